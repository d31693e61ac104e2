// Linear map without bias, W as in a weights file.   x: [M, K]   w: [N, K]   y, dy: [M, N]   dx: [M, K]   dw: [N, K] in float
//   y = x w^T (+ residual)      dx = dy w (+ residual)      dw = dy^T x, or dw += dy^T x
// Saved for backward: x, w.
//
// 2 M N K operations a product.  Bound by the tensor cores where N and K are large; at K = 512 an element of y costs as much time
// in memory as in arithmetic, so that a residual is added before y leaves the registers.  One tile loop (matmul_tile.cuh) serves
// the three layouts.
// dw has few tiles and a long sum over M: `splits` blocks share each tile, each with its own part of M, and leave partial
// sums, which matmul_add_partials adds in the order of the splits: the bits never depend on scheduling.
//
// Sectors of 32 bytes that a product asks for, with s bytes an element: x once for every column of tiles and w once for every row
// of them, (M ceil_div(N, TILE_N) + N ceil_div(M, TILE_M)) K s / 32 for y and likewise for the others; the rest once.
#include "matmul_rows.cuh"

// y = x w^T (+ residual).
template <typename T>
__device__ __forceinline__ void forward(T* y, const element* x, const element* w, const T* residual, int M, int N, int K,
                                        int y_pitch, int x_pitch, int residual_pitch, bool add) {
    const Tile tile = tile_at(blockIdx.x, M, N, TILE_N);
    Accumulators acc = {};
    tile_product<true, true>(acc, {x, M, K, x_pitch}, {w, N, K, K}, tile);
    store_tile(acc, tile, y, residual, M, N, y_pitch, residual_pitch, add);
}

// launch: grid ceil_div(M, TILE_M) * ceil_div(N, TILE_N), block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    matmul_forward(element* y,               // [M, N], rows y_pitch apart
                   const element* x,         // [M, K], rows x_pitch apart
                   const element* w,         // [N, K]
                   const element* residual,  // [M, N], rows residual_pitch apart; may be y
                   int M, int N, int K, int y_pitch, int x_pitch, int residual_pitch,
                   int add) {  // 1: y = residual + x w^T, 0: y = x w^T
    forward(y, x, w, residual, M, N, K, y_pitch, x_pitch, residual_pitch, add);
}

// The same to float: logits, and a residual stream in float.
// launch: grid ceil_div(M, TILE_M) * ceil_div(N, TILE_N), block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    matmul_forward_to_float(float* y,               // [M, N], rows y_pitch apart
                            const element* x,       // [M, K], rows x_pitch apart
                            const element* w,       // [N, K]
                            const float* residual,  // [M, N], rows residual_pitch apart; may be y
                            int M, int N, int K, int y_pitch, int x_pitch, int residual_pitch,
                            int add) {  // 1: y = residual + x w^T, 0: y = x w^T
    forward(y, x, w, residual, M, N, K, y_pitch, x_pitch, residual_pitch, add);
}

// launch: grid ceil_div(M, TILE_M) * ceil_div(K, TILE_N), block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    matmul_backward_input(element* dx,              // [M, K], rows dx_pitch apart
                          const element* dy,        // [M, N], rows dy_pitch apart
                          const element* w,         // [N, K]
                          const element* residual,  // [M, K], rows residual_pitch apart; may be dx
                          int M, int N, int K, int dx_pitch, int dy_pitch, int residual_pitch,
                          int add) {  // 1: dx = residual + dy w, 0: dx = dy w
    const Tile tile = tile_at(blockIdx.x, M, K, TILE_N);
    Accumulators acc = {};
    tile_product<true, false>(acc, {dy, M, N, dy_pitch}, {w, N, K, K}, tile);
    store_tile(acc, tile, dx, residual, M, K, dx_pitch, residual_pitch, add);
}

// Split s sums over its part of M, with one split over all of it.
// launch: grid ceil_div(N, TILE_M) * ceil_div(K, TILE_N) * splits, block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    matmul_backward_weight(float* dw,          // [splits, N, K]; of several splits partial sums
                           const element* dy,  // [M, N], rows dy_pitch apart
                           const element* x,   // [M, K], rows x_pitch apart
                           int M, int N, int K, int dy_pitch, int x_pitch, int splits,
                           int accumulate) {  // 1: dw += dy^T x, 0: dw = dy^T x
    // The blocks of a split are neighbours, for they read the same rows.
    const int tiles = ceil_div(N, TILE_M) * ceil_div(K, TILE_N);
    const int split = blockIdx.x / tiles;
    const Tile tile = tile_at(blockIdx.x % tiles, N, K, TILE_N);
    const int share = ceil_div(ceil_div(M, STEP), splits) * STEP;
    const int begin = min(split * share, M), rows = min(share, M - begin);
    Accumulators acc = {};
    tile_product<false, false>(acc, {dy + (long long)begin * dy_pitch, rows, N, dy_pitch},
                               {x + (long long)begin * x_pitch, rows, K, x_pitch}, tile);
    float* const to = dw + (long long)split * N * K;
    store_tile(acc, tile, to, to, N, K, K, K, accumulate);
}

constexpr int ADD_THREADS = 256;

// dw = the sum of the partial sums, in the order of the splits, or dw += that.
// launch: grid ceil_div(count, ADD_THREADS * 4), block ADD_THREADS, registers 40
extern "C" __global__ void __launch_bounds__(ADD_THREADS)
    matmul_add_partials(float* dw,             // [count]
                        const float* partial,  // [splits, count]
                        int count, int splits, int accumulate) {
    const long long first = thread_index() * 4;
    const int here = (int)min(count - first, 4LL);
    if (here <= 0) return;
    const bool whole = count % 4 == 0;  // or else the rows of partial begin anywhere
    auto load = [&](const float* from) {
        Vector<float> v = {};
        if (whole) return load_vector(from);
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i < here) v.at[i] = from[i];
        return v;
    };
    Vector<float> sum = load(partial + first);
#pragma unroll 4
    for (int split = 1; split < splits; split++) {
        const Vector<float> part = load(partial + (long long)split * count + first);
#pragma unroll
        for (int i = 0; i < 4; i++) sum.at[i] += part.at[i];
    }
    if (accumulate) {
        const Vector<float> before = load(dw + first);
#pragma unroll
        for (int i = 0; i < 4; i++) sum.at[i] += before.at[i];
    }
    if (whole) return store_vector(dw + first, sum);
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < here) dw[first + i] = sum.at[i];
}

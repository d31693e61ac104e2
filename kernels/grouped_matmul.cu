// Linear maps of the experts, each over the rows that chose it.   x: [S, K] in the order of the experts  w: [E, N, K]  y: [S, N]
//   y[r] = x[r] w[e(r)]^T      dx[r] = dy[r] w[e(r)]      dw[e] = sum over e's rows of dy[r]^T x[r], in float
// and the gated FFN's two products with what surrounds them, as in matmul.cu: w = gate rows, then up rows, of each expert.
//
// The device itself has cut the rows into tiles of at most TILE_M rows of one expert (`tiles`); there is room for max_tiles, and
// those without rows end at once: nobody waits for the host to count. An expert that was never chosen costs nothing; its dw is 0.
// The products are those of matmul.cu, by the same tile loop. Bound by the tensor cores, or with few rows an expert by w.
// dw: the blocks of an expert sum over its rows, in order, so the bits never depend on scheduling.
#include "matmul_rows.cuh"

// A tile of rows of one expert.
struct ExpertTile {
    int expert, first, rows;
};

// (expert, first row, rows, unused) in one read.
__device__ __forceinline__ ExpertTile expert_tile(const int* tiles, int index) {
    const int4 tile = reinterpret_cast<const int4*>(tiles)[index];
    return {tile.x, tile.y, tile.z};
}

// launch: grid max_tiles * ceil_div(N, TILE_N), block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    grouped_matmul_forward(element* y,        // [S, N]
                           const element* x,  // [S, K]
                           const element* w,  // [E, N, K]
                           const int* tiles,  // [max_tiles, 4]
                           int max_tiles, int N, int K) {
    Tile tile = tile_at(blockIdx.x, max_tiles * TILE_M, N, TILE_N);
    const ExpertTile of = expert_tile(tiles, tile.row / TILE_M);
    if (of.rows == 0) return;  // the whole block: no barrier is missed
    tile.row = of.first;
    Accumulators acc = {};
    tile_product<true, true>(acc, {x, of.first + of.rows, K, K}, {w + (long long)of.expert * N * K, N, K, K}, tile);
    store_tile(acc, tile, y, y, of.first + of.rows, N, N, N, false);
}

// A block owns TILE_N / 2 gates and the ups that belong to them.
// launch: grid max_tiles * ceil_div(I, TILE_N / 2), block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    grouped_matmul_swiglu_forward(element* h,        // [S, I]
                                  element* gate_up,  // [S, 2 I]: g, then u
                                  const element* x,  // [S, K]
                                  const element* w,  // [E, 2 I, K]
                                  const int* tiles,  // [max_tiles, 4]
                                  int max_tiles, int I, int K) {
    Tile tile = tile_at(blockIdx.x, max_tiles * TILE_M, I, TILE_N / 2);
    const ExpertTile of = expert_tile(tiles, tile.row / TILE_M);
    if (of.rows == 0) return;  // the whole block: no barrier is missed
    tile.row = of.first;
    const long long half = (long long)I * K;
    Accumulators acc = {};
    tile_product<true, true, true>(acc, {x, of.first + of.rows, K, K}, {w + of.expert * 2 * half, I, K, K}, tile, half);
    store_swiglu(acc, tile, h, gate_up, of.first + of.rows, I);
}

// launch: grid max_tiles * ceil_div(K, TILE_N), block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    grouped_matmul_backward_input(element* dx,        // [S, K]
                                  const element* dy,  // [S, N]
                                  const element* w,   // [E, N, K]
                                  const int* tiles,   // [max_tiles, 4]
                                  int max_tiles, int N, int K) {
    Tile tile = tile_at(blockIdx.x, max_tiles * TILE_M, K, TILE_N);
    const ExpertTile of = expert_tile(tiles, tile.row / TILE_M);
    if (of.rows == 0) return;  // the whole block: no barrier is missed
    tile.row = of.first;
    Accumulators acc = {};
    tile_product<true, false>(acc, {dy, of.first + of.rows, N, N}, {w + (long long)of.expert * N * K, N, K, K}, tile);
    store_tile(acc, tile, dx, dx, of.first + of.rows, K, K, K, false);
}

// launch: grid max_tiles * ceil_div(I, TILE_N), block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    grouped_matmul_swiglu_backward(element* d_gate_up,      // [S, 2 I]: dg, then du
                                   const element* dy,       // [S, N]
                                   const element* w,        // [E, N, I]
                                   const element* gate_up,  // [S, 2 I]
                                   const int* tiles,        // [max_tiles, 4]
                                   int max_tiles, int N, int I) {
    Tile tile = tile_at(blockIdx.x, max_tiles * TILE_M, I, TILE_N);
    const ExpertTile of = expert_tile(tiles, tile.row / TILE_M);
    if (of.rows == 0) return;  // the whole block: no barrier is missed
    tile.row = of.first;
    Accumulators acc = {};
    tile_product<true, false>(acc, {dy, of.first + of.rows, N, N}, {w + (long long)of.expert * N * I, N, I, I}, tile);
    store_swiglu_gradient(acc, tile, d_gate_up, gate_up, of.first + of.rows, I);
}

// launch: grid E * ceil_div(N, TILE_M) * ceil_div(K, TILE_N), block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    grouped_matmul_backward_weight(float* dw,           // [E, N, K]
                                   const element* dy,   // [S, N]
                                   const element* x,    // [S, K]
                                   const int* offsets,  // [E + 1]: where each expert's rows begin
                                   int E, int N, int K,
                                   int accumulate) {  // 1: dw += dy^T x, 0: dw = dy^T x
    const int tiles = ceil_div(N, TILE_M) * ceil_div(K, TILE_N);
    const int expert = blockIdx.x / tiles;
    const Tile tile = tile_at(blockIdx.x % tiles, N, K, TILE_N);
    const int begin = offsets[expert], rows = offsets[expert + 1] - begin;
    if (rows == 0 && accumulate) return;
    Accumulators acc = {};
    tile_product<false, false>(acc, {dy + (long long)begin * N, rows, N, N},
                               {x + (long long)begin * K, rows, K, K}, tile);
    float* const to = dw + (long long)expert * N * K;
    store_tile(acc, tile, to, to, N, K, K, K, accumulate);
}

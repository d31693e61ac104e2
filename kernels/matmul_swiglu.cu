// The products of a gated FFN, with silu(g) = g / (1 + e^-g) and its gradient computed on the way.
//   forward: [g, u] = x w^T, h = silu(g) u    x: [M, K]   w: [2 I, K], the gates' rows, then the ups'   g, u, h: [M, I]
//   backward, through y = h w^T: dh = dy w, dg = dh u (p + g p (1 - p)), du = dh g p, p = 1 / (1 + e^-g)    dy: [M, N]   w: [N, I]
// Saved for backward: x, both weights, g, u and h.  The other gradients are plain products (matmul.cu).
//
// 4 M I K and 2 M N I operations by the tile loop of matmul_tile.cuh.  Forward is bound by the tensor cores, and spares the
// activation reading g and u again.  Backward moves 4 M I elements beside the operands, which at N = 512 takes longer than to
// multiply: bound by memory; dh never gets there.
#include "matmul_rows.cuh"

// A block owns TILE_N / 2 gates and the ups that belong to them.
// launch: grid ceil_div(M, TILE_M) * ceil_div(I, TILE_N / 2), block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    matmul_swiglu_forward(element* h,        // [M, I]
                          element* gate_up,  // [M, 2 I]: g, then u
                          const element* x,  // [M, K], rows x_pitch apart
                          const element* w,  // [2 I, K]
                          int M, int I, int K, int x_pitch) {
    const Tile tile = tile_at(blockIdx.x, M, I, TILE_N / 2);
    Accumulators acc = {};
    tile_product<true, true, true>(acc, {x, M, K, x_pitch}, {w, I, K, K}, tile, (long long)I * K);
    store_swiglu(acc, tile, h, gate_up, M, I);
}

// launch: grid ceil_div(M, TILE_M) * ceil_div(I, TILE_N), block THREADS, shared TILE_BYTES, registers REGISTERS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_SM)
    matmul_swiglu_backward(element* d_gate_up,      // [M, 2 I]: dg, then du
                           const element* dy,       // [M, N], rows dy_pitch apart
                           const element* w,        // [N, I]
                           const element* gate_up,  // [M, 2 I]
                           int M, int N, int I, int dy_pitch) {
    const Tile tile = tile_at(blockIdx.x, M, I, TILE_N);
    Accumulators acc = {};
    tile_product<true, false>(acc, {dy, M, N, dy_pitch}, {w, N, I, I}, tile);
    store_swiglu_gradient(acc, tile, d_gate_up, gate_up, M, I);
}

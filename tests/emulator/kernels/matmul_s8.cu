// C = A B^T of 8-bit integers on tensor cores.  A: [M, K] s8   B: [N, K] s8   C: [M, N] s32.  K is a multiple of 16, N is even.
// Tiles of 32 x 32 x 32 by two warps of 16 x 32.  Rows in shared memory are 48 bytes apart: an odd number of 16-byte units, so
// that ldmatrix reads without bank conflicts.
#include "ptx.cuh"

constexpr int TILE = 32, STEP = 32, PITCH = 48;

extern "C" __global__ void __launch_bounds__(64)
matmul_s8(int* c, const signed char* a, const signed char* b, int M, int N, int K) {
    __shared__ __align__(16) u8 as[TILE * PITCH], bs[TILE * PITCH];
    const int row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int r = threadIdx.x / 2, unit = threadIdx.x % 2 * 16;  // the 16 bytes of each tile that this thread moves

    int sum[4][4] = {};
    for (int k = 0; k < K; k += STEP) {
        const int4 zero = make_int4(0, 0, 0, 0);
        const bool inside = k + unit < K;
        const int4 va = inside && row0 + r < M ? *reinterpret_cast<const int4*>(a + (size_t)(row0 + r) * K + k + unit) : zero;
        const int4 vb = inside && col0 + r < N ? *reinterpret_cast<const int4*>(b + (size_t)(col0 + r) * K + k + unit) : zero;
        *reinterpret_cast<int4*>(as + r * PITCH + unit) = va;
        *reinterpret_cast<int4*>(bs + r * PITCH + unit) = vb;
        __syncthreads();  // both tiles are written

        u32 fa[4], fb[2][4];
        ldmatrix_x4(fa, shared_address(as + (warp * 16 + lane % 16) * PITCH + lane / 16 * 16));
#pragma unroll
        for (int j = 0; j < 2; j++)
            ldmatrix_x4(fb[j], shared_address(bs + (j * 16 + lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 16));
#pragma unroll
        for (int j = 0; j < 4; j++) mma_s8(sum[j], fa, fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        __syncthreads();  // both tiles are read: the next step may overwrite them
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = row0 + warp * 16 + half * 8 + lane / 4, col = col0 + j * 8 + lane % 4 * 2;
            if (row < M && col < N)
                *reinterpret_cast<int2*>(c + (size_t)row * N + col) = make_int2(sum[j][half * 2], sum[j][half * 2 + 1]);
        }
}

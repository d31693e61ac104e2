// C = A B on tensor cores.  A: [M, K] bf16   B: [K, N] bf16   C: [M, N] f32.  K and N are multiples of 8.
// Tiles of 64 x 64 x 32 by 2 x 2 warps of 32 x 32; STAGES tiles in flight by cp.async, which fills what lies outside with zeros.
// Shared memory is swizzled in units of 16 bytes, so that the 8 rows that one ldmatrix phase reads lie in different banks:
//   A rows of 64 bytes:  unit u of row r at u ^ (r / 2 % 4)      B rows of 128 bytes:  unit u of row r at u ^ (r % 8)
#include "ptx.cuh"

constexpr int TILE = 64, STEP = 32, THREADS = 128;
constexpr u32 A_BYTES = TILE * STEP * 2, B_BYTES = STEP * TILE * 2, STAGE_BYTES = A_BYTES + B_BYTES;

extern __shared__ __align__(128) u8 smem[];

__device__ __forceinline__ u32 a_offset(u32 row, u32 unit) { return row * 64 + (unit ^ (row / 2 % 4)) * 16; }
__device__ __forceinline__ u32 b_offset(u32 row, u32 unit) { return A_BYTES + row * 128 + (unit ^ (row % 8)) * 16; }

extern "C" __global__ void __launch_bounds__(THREADS) matmul_bf16(float* c, const bf16* a, const bf16* b, int M, int N, int K) {
    const int row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_row = warp / 2 * 32, warp_col = warp % 2 * 32;
    const u32 base = shared_address(smem);
    const int steps = (K + STEP - 1) / STEP;

    auto load = [&](int step) {
        if (step < steps) {
            const u32 stage = base + step % STAGES * STAGE_BYTES;
            for (int i = threadIdx.x; i < TILE * 4; i += THREADS) {
                const int r = i / 4, u = i % 4, k = step * STEP + u * 8;
                const bool inside = row0 + r < M && k < K;
                cp_async_16(stage + a_offset(r, u), inside ? a + (size_t)(row0 + r) * K + k : a, inside ? 16 : 0);
            }
            for (int i = threadIdx.x; i < STEP * 8; i += THREADS) {
                const int r = i / 8, u = i % 8, k = step * STEP + r, n = col0 + u * 8;
                const bool inside = k < K && n < N;
                cp_async_16(stage + b_offset(r, u), inside ? b + (size_t)k * N + n : b, inside ? 16 : 0);
            }
        }
        cp_async_commit();  // an empty group at the end keeps the count of pending ones right
    };

    for (int s = 0; s < STAGES - 1; s++) load(s);

    float sum[2][4][4] = {};
    for (int step = 0; step < steps; step++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // everyone's part of this stage has come, and everyone has left the stage that is filled next
        load(step + STAGES - 1);
        const u32 stage = base + step % STAGES * STAGE_BYTES;
#pragma unroll
        for (int k = 0; k < STEP / 16; k++) {
            u32 fa[2][4], fb[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) ldmatrix_x4(fa[i], stage + a_offset(warp_row + i * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
            for (int j = 0; j < 2; j++)
                ldmatrix_x4_trans(fb[j], stage + b_offset(k * 16 + lane % 16, warp_col / 8 + j * 2 + lane / 16));
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) mma_bf16(sum[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
    }

#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int r = row0 + warp_row + i * 16 + half * 8 + lane / 4, col = col0 + warp_col + j * 8 + lane % 4 * 2;
                if (r < M && col < N)
                    *reinterpret_cast<float2*>(c + (size_t)r * N + col) = make_float2(sum[i][j][half * 2], sum[i][j][half * 2 + 1]);
            }
}

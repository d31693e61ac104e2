// y = x w^T (+ residual), rung 4: the products by the tensor cores. bf16 and half.
//   x: [M, K]   w: [N, K]   y, residual: [M, N]
// One mma.sync makes 2048 products of a warp, where a fused multiply-add makes 32: 7.5 times fewer instructions in all. A warp owns
// 16 x 64 of y; it reads its fragments from shared memory pair by pair, as mma.cuh lays them out.
#ifndef element  // tensor cores do not multiply floats
#define element bf16
#endif
#include "mma.cuh"

#ifndef ALIGNED
#define ALIGNED 1
#endif

constexpr int SIDE = 64;         // of the block's part of y
constexpr int WARP_ROWS = 16;    // of a warp's
constexpr int THREADS = SIDE / WARP_ROWS * 32;
constexpr int STEP = 32;         // of k
constexpr int PITCH = STEP + 8;  // of a row in shared memory: the pairs that a warp reads at once lie in different banks
constexpr int UNIT = 8;          // elements of 16 bytes

// SIDE rows of the matrix from `row0` on, STEP columns from `k0` on; zeros for what lies outside.
__device__ __forceinline__ void load(element (&tile)[SIDE][PITCH], const element* matrix, int row0, int k0, int rows, int K, int pitch) {
#pragma unroll
    for (int at = threadIdx.x; at < SIDE * STEP / UNIT; at += THREADS) {
        const int row = row0 + at / (STEP / UNIT), k = k0 + at % (STEP / UNIT) * UNIT;
        const element* from = matrix + (long long)row * pitch + k;
        Vector<element> unit = {};
        if (ALIGNED && row < rows && k + UNIT <= K) {
            unit = load_vector(from);
        } else if (row < rows) {
#pragma unroll
            for (int i = 0; i < UNIT; i++)
                if (k + i < K) unit.at[i] = from[i];
        }
        store_vector(&tile[row - row0][k - k0], unit);
    }
}

__device__ __forceinline__ u32 pair_at(const element* at) { return *reinterpret_cast<const u32*>(at); }

// launch: grid (ceil_div(N, SIDE), ceil_div(M, SIDE)), block THREADS, registers 128
extern "C" __global__ void __launch_bounds__(THREADS)
    matmul_forward(element* y,               // [M, N], rows y_pitch apart
                   const element* x,         // [M, K], rows x_pitch apart
                   const element* w,         // [N, K]
                   const element* residual,  // [M, N], rows residual_pitch apart; may be y
                   int M, int N, int K, int y_pitch, int x_pitch, int residual_pitch,
                   int add) {  // 1: y = residual + x w^T, 0: y = x w^T
    __shared__ __align__(16) element x_tile[SIDE][PITCH], w_tile[SIDE][PITCH];
    const int m0 = blockIdx.y * SIDE, n0 = blockIdx.x * SIDE;
    const int warp_row = threadIdx.x / 32 * WARP_ROWS, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float sum[SIDE / 8][4] = {};
    for (int k0 = 0; k0 < K; k0 += STEP) {
        load(x_tile, x, m0, k0, M, K, x_pitch);
        load(w_tile, w, n0, k0, N, K, K);
        __syncthreads();  // the step is there
#pragma unroll
        for (int k = 0; k < STEP; k += 16) {
            u32 a[4];
#pragma unroll
            for (int q = 0; q < 4; q++) a[q] = pair_at(&x_tile[warp_row + g + q % 2 * 8][k + 2 * t + q / 2 * 8]);
#pragma unroll
            for (int j = 0; j < SIDE / 8; j++) {
                const element* b = &w_tile[j * 8 + g][k + 2 * t];
                mma_m16n8k16<element>(sum[j], a, pair_at(b), pair_at(b + 8));
            }
        }
        __syncthreads();  // nobody reads it any more
    }
#pragma unroll
    for (int j = 0; j < SIDE / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int m = m0 + warp_row + g + i / 2 * 8, n = n0 + j * 8 + 2 * t + i % 2;
            if (m >= M || n >= N) continue;
            float v = sum[j][i];
            if (add) v += to_float(residual[(long long)m * residual_pitch + n]);
            y[(long long)m * y_pitch + n] = from_float<element>(v);
        }
}

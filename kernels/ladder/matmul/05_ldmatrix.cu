// y = x w^T (+ residual), rung 5: fragments by ldmatrix. bf16 and half.
//   x: [M, K]   w: [N, K]   y, residual: [M, N]
// One instruction brings four 8 x 8 matrices to the places where mma.sync wants them, where there were four loads: 3 times fewer
// accesses to shared memory. Lanes 8 i to 8 i + 7 point to the rows of matrix i; with 80 bytes a row, these lie in different banks.
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
constexpr int PITCH = STEP + 8;  // of a row in shared memory: 8 rows of 16 bytes that are read at once lie in different banks
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
    const int warp_row = threadIdx.x / 32 * WARP_ROWS, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    // The quarters of a's 16 x 16 are down, then across; those of 16 rows of w are b0 and b1 of the first 8, then of the others.
    const u32 a_at = shared_address(&x_tile[warp_row + lane % 16][lane / 16 * 8]);
    const u32 b_at = shared_address(&w_tile[lane / 16 * 8 + lane % 8][lane / 8 % 2 * 8]);
    float sum[SIDE / 8][4] = {};
    for (int k0 = 0; k0 < K; k0 += STEP) {
        load(x_tile, x, m0, k0, M, K, x_pitch);
        load(w_tile, w, n0, k0, N, K, K);
        __syncthreads();  // the step is there
#pragma unroll
        for (int k = 0; k < STEP; k += 16) {
            u32 a[4], b[SIDE / 16][4];
            ldmatrix_x4(a, a_at + k * 2);
#pragma unroll
            for (int j = 0; j < SIDE / 16; j++) ldmatrix_x4(b[j], b_at + (j * 16 * PITCH + k) * 2);
#pragma unroll
            for (int j = 0; j < SIDE / 8; j++) mma_m16n8k16<element>(sum[j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
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

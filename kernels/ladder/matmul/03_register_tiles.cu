// y = x w^T (+ residual), rung 3: a thread owns 4 x 4 elements of y in registers.
//   x: [M, K]   w: [N, K]   y, residual: [M, N]
// Shared memory was what the rung before waited for: two words for each product. Eight words now serve 16 products, and come as two
// accesses of four: 3.5 times fewer passes over shared memory. For that the tiles lie there with k outside.
#include "common.cuh"

constexpr int SIDE = 64;               // of the block's part of y
constexpr int OWN = 4;                 // of a thread's
constexpr int ACROSS = SIDE / OWN;     // threads
constexpr int THREADS = ACROSS * ACROSS;
constexpr int STEP = 16;               // of k
constexpr int PITCH = SIDE + OWN;      // of a row in shared memory: a multiple of 16 bytes

// SIDE rows of the matrix from `row0` on, STEP columns from `k0` on, transposed; zeros for what lies outside.
__device__ __forceinline__ void load(float (&tile)[STEP][PITCH], const element* matrix, int row0, int k0, int rows, int K, int pitch) {
#pragma unroll
    for (int at = threadIdx.x; at < SIDE * STEP; at += THREADS) {
        const int row = at / STEP, k = at % STEP;
        const bool inside = row0 + row < rows && k0 + k < K;
        tile[k][row] = inside ? to_float(matrix[(long long)(row0 + row) * pitch + k0 + k]) : 0.0f;
    }
}

// launch: grid (ceil_div(N, SIDE), ceil_div(M, SIDE)), block THREADS, registers 96
extern "C" __global__ void __launch_bounds__(THREADS)
    matmul_forward(element* y,               // [M, N], rows y_pitch apart
                   const element* x,         // [M, K], rows x_pitch apart
                   const element* w,         // [N, K]
                   const element* residual,  // [M, N], rows residual_pitch apart; may be y
                   int M, int N, int K, int y_pitch, int x_pitch, int residual_pitch,
                   int add) {  // 1: y = residual + x w^T, 0: y = x w^T
    __shared__ __align__(16) float x_tile[STEP][PITCH], w_tile[STEP][PITCH];
    const int m0 = blockIdx.y * SIDE, n0 = blockIdx.x * SIDE;
    const int i0 = threadIdx.x / ACROSS * OWN, j0 = threadIdx.x % ACROSS * OWN;
    float sum[OWN][OWN] = {};
    for (int k0 = 0; k0 < K; k0 += STEP) {
        load(x_tile, x, m0, k0, M, K, x_pitch);
        load(w_tile, w, n0, k0, N, K, K);
        __syncthreads();  // the step is there
#pragma unroll
        for (int k = 0; k < STEP; k++) {
            const Vector<float> a = load_vector(&x_tile[k][i0]), b = load_vector(&w_tile[k][j0]);
#pragma unroll
            for (int i = 0; i < OWN; i++)
#pragma unroll
                for (int j = 0; j < OWN; j++) sum[i][j] = fmaf(a.at[i], b.at[j], sum[i][j]);
        }
        __syncthreads();  // nobody reads it any more
    }
#pragma unroll
    for (int i = 0; i < OWN; i++)
#pragma unroll
        for (int j = 0; j < OWN; j++) {
            const int m = m0 + i0 + i, n = n0 + j0 + j;
            if (m >= M || n >= N) continue;
            float v = sum[i][j];
            if (add) v += to_float(residual[(long long)m * residual_pitch + n]);
            y[(long long)m * y_pitch + n] = from_float<element>(v);
        }
}

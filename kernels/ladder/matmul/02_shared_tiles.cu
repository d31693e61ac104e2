// y = x w^T (+ residual), rung 2: the block's part of x and w passes through shared memory.
//   x: [M, K]   w: [N, K]   y, residual: [M, N]
// A block owns SIDE x SIDE elements of y and walks along k in steps of SIDE. Each step is loaded once, by neighbours along k, and used
// by SIDE threads, and a warp's access now lies in one row: 130 times fewer sectors.
#include "common.cuh"

constexpr int SIDE = 32;

// What lies outside of the matrix is zero and adds nothing.
__device__ __forceinline__ float element_at(const element* matrix, int row, int column, int rows, int columns, int pitch) {
    return row < rows && column < columns ? to_float(matrix[(long long)row * pitch + column]) : 0.0f;
}

// launch: grid (ceil_div(N, SIDE), ceil_div(M, SIDE)), block (SIDE, SIDE), registers 64
extern "C" __global__ void __launch_bounds__(SIDE * SIDE)
    matmul_forward(element* y,               // [M, N], rows y_pitch apart
                   const element* x,         // [M, K], rows x_pitch apart
                   const element* w,         // [N, K]
                   const element* residual,  // [M, N], rows residual_pitch apart; may be y
                   int M, int N, int K, int y_pitch, int x_pitch, int residual_pitch,
                   int add) {  // 1: y = residual + x w^T, 0: y = x w^T
    // A word of padding a row, so that neighbours in n lie in different banks.
    __shared__ float x_tile[SIDE][SIDE + 1], w_tile[SIDE][SIDE + 1];
    const int m0 = blockIdx.y * SIDE, n0 = blockIdx.x * SIDE, i = threadIdx.y, j = threadIdx.x;
    float sum = 0.0f;
    for (int k0 = 0; k0 < K; k0 += SIDE) {
        x_tile[i][j] = element_at(x, m0 + i, k0 + j, M, K, x_pitch);
        w_tile[i][j] = element_at(w, n0 + i, k0 + j, N, K, K);
        __syncthreads();  // the step is there
#pragma unroll
        for (int k = 0; k < SIDE; k++) sum = fmaf(x_tile[i][k], w_tile[j][k], sum);
        __syncthreads();  // nobody reads it any more
    }
    const int m = m0 + i, n = n0 + j;
    if (m >= M || n >= N) return;
    if (add) sum += to_float(residual[(long long)m * residual_pitch + n]);
    y[(long long)m * y_pitch + n] = from_float<element>(sum);
}

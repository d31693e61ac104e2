// y = x w^T (+ residual), rung 1: a thread for each element of y.
//   x: [M, K]   w: [N, K]   y, residual: [M, N]
// Right, and slow: the lanes of a warp stand in different rows of w, so that each of their elements costs a sector of its own, and every
// element of x and w is asked for as often as y has columns or rows.
#include "common.cuh"

constexpr int SIDE = 16;

// launch: grid (ceil_div(N, SIDE), ceil_div(M, SIDE)), block (SIDE, SIDE), registers 48
extern "C" __global__ void __launch_bounds__(SIDE * SIDE)
    matmul_forward(element* y,               // [M, N], rows y_pitch apart
                   const element* x,         // [M, K], rows x_pitch apart
                   const element* w,         // [N, K]
                   const element* residual,  // [M, N], rows residual_pitch apart; may be y
                   int M, int N, int K, int y_pitch, int x_pitch, int residual_pitch,
                   int add) {  // 1: y = residual + x w^T, 0: y = x w^T
    const int m = blockIdx.y * SIDE + threadIdx.y, n = blockIdx.x * SIDE + threadIdx.x;
    if (m >= M || n >= N) return;
    const element* row = x + (long long)m * x_pitch;
    const element* column = w + (long long)n * K;
    float sum = 0.0f;
    for (int k = 0; k < K; k++) sum = fmaf(to_float(row[k]), to_float(column[k]), sum);
    if (add) sum += to_float(residual[(long long)m * residual_pitch + n]);
    y[(long long)m * y_pitch + n] = from_float<element>(sum);
}

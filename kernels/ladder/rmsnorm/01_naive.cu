// RMSNorm forward, rung 1: a thread walks over a row, once for the sum and once to write.
//   x, y: [R, WIDTH]   w: [WIDTH]   rstd: [R]      rstd = 1 / sqrt(mean(x^2) + eps)      y = w * x * rstd
// Right, and slow: the 32 threads of a warp stand in 32 rows, so that each of their elements costs a sector of 32 bytes of its own.
#include "common.cuh"

#ifndef WIDTH
#define WIDTH 512
#endif

constexpr int THREADS = 128;

// launch: grid max(1, ceil_div(R, THREADS)), block THREADS, registers 48
extern "C" __global__ void __launch_bounds__(THREADS) rmsnorm_forward(element* y,          // [R, WIDTH]
                                                                      float* rstd,         // [R]
                                                                      const element* x,    // [R, WIDTH]
                                                                      const element* w,    // [WIDTH]
                                                                      int R, float eps) {
    const long long row = thread_index();
    if (row >= R) return;
    x += row * WIDTH;
    y += row * WIDTH;
    float squares = 0.0f;
    for (int c = 0; c < WIDTH; c++) squares = fmaf(to_float(x[c]), to_float(x[c]), squares);
    const float scale = 1.0f / sqrtf(squares * (1.0f / WIDTH) + eps);
    rstd[row] = scale;
    for (int c = 0; c < WIDTH; c++) y[c] = from_float<element>(to_float(w[c]) * (to_float(x[c]) * scale));
}

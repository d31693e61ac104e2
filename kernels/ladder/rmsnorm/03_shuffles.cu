// RMSNorm forward, rung 3: the sum over the row by shuffles.
//   x, y: [R, WIDTH]   w: [WIDTH]   rstd: [R]      rstd = 1 / sqrt(mean(x^2) + eps)      y = w * x * rstd
// The lanes of a warp add up what they hold without any memory between them, in 5 steps; only the sums of the 8 warps go through shared
// memory. Two barriers instead of nine: 4.5 times fewer barriers, at which all warps wait for the slowest. The price is a few more
// instructions, for now all threads add up the 8 sums, and none has to wait for another's result.
#include "common.cuh"

#ifndef WIDTH
#define WIDTH 512
#endif

constexpr int THREADS = 256;

// launch: grid max(1, R), block THREADS, registers 48
extern "C" __global__ void __launch_bounds__(THREADS) rmsnorm_forward(element* y,          // [R, WIDTH]
                                                                      float* rstd,         // [R]
                                                                      const element* x,    // [R, WIDTH]
                                                                      const element* w,    // [WIDTH]
                                                                      int R, float eps) {
    __shared__ float scratch[THREADS / WARP];
    const int row = blockIdx.x;
    if (row >= R) return;
    x += (size_t)row * WIDTH;
    y += (size_t)row * WIDTH;
    float squares = 0.0f;
    for (int c = threadIdx.x; c < WIDTH; c += THREADS) squares = fmaf(to_float(x[c]), to_float(x[c]), squares);
    squares = block_sum<THREADS>(squares, scratch);
    const float scale = 1.0f / sqrtf(squares * (1.0f / WIDTH) + eps);
    if (threadIdx.x == 0) rstd[row] = scale;
    for (int c = threadIdx.x; c < WIDTH; c += THREADS) y[c] = from_float<element>(to_float(w[c]) * (to_float(x[c]) * scale));
}

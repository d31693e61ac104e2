// RMSNorm forward, rung 4: the row stays in registers between the sum over it and the pass that writes.
//   x, y: [R, WIDTH]   w: [WIDTH]   rstd: [R]      rstd = 1 / sqrt(mean(x^2) + eps)      y = w * x * rstd
// A row costs x, w and y, where it was x, x, w and y: 1.3 times fewer sectors. The number of elements that a thread holds is known when
// the kernel is compiled, for only then can an array be in registers.
#include "common.cuh"

#ifndef WIDTH
#define WIDTH 512
#endif

constexpr int THREADS = 256;
constexpr int HELD = ceil_div(WIDTH, THREADS);  // elements of a thread

// launch: grid max(1, R), block THREADS, registers 96
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
    float held[HELD];
    float squares = 0.0f;
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int c = h * THREADS + threadIdx.x;
        held[h] = c < WIDTH ? to_float(x[c]) : 0.0f;
        squares = fmaf(held[h], held[h], squares);
    }
    squares = block_sum<THREADS>(squares, scratch);
    const float scale = 1.0f / sqrtf(squares * (1.0f / WIDTH) + eps);
    if (threadIdx.x == 0) rstd[row] = scale;
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int c = h * THREADS + threadIdx.x;
        if (c < WIDTH) y[c] = from_float<element>(to_float(w[c]) * (held[h] * scale));
    }
}

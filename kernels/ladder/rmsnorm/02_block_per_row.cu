// RMSNorm forward, rung 2: a block owns a row, and neighbouring threads read neighbouring elements.
//   x, y: [R, WIDTH]   w: [WIDTH]   rstd: [R]      rstd = 1 / sqrt(mean(x^2) + eps)      y = w * x * rstd
// The 32 elements of a warp's access lie in a row side by side: in bf16 they share 2 sectors where they took 32 before. With what was
// together already, the weight, that is 12 times fewer sectors.
// What the threads have summed is added up as a tree in shared memory, half of the threads falling silent at each level.
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
    __shared__ float sums[THREADS];
    const int row = blockIdx.x;
    if (row >= R) return;
    x += (size_t)row * WIDTH;
    y += (size_t)row * WIDTH;
    float squares = 0.0f;
    for (int c = threadIdx.x; c < WIDTH; c += THREADS) squares = fmaf(to_float(x[c]), to_float(x[c]), squares);
    sums[threadIdx.x] = squares;
    for (int distance = THREADS / 2; distance > 0; distance /= 2) {
        __syncthreads();  // the level before is complete
        if (threadIdx.x < distance) sums[threadIdx.x] += sums[threadIdx.x + distance];
    }
    __syncthreads();  // the sum of all is there
    const float scale = 1.0f / sqrtf(sums[0] * (1.0f / WIDTH) + eps);
    if (threadIdx.x == 0) rstd[row] = scale;
    for (int c = threadIdx.x; c < WIDTH; c += THREADS) y[c] = from_float<element>(to_float(w[c]) * (to_float(x[c]) * scale));
}

// RMSNorm forward with another mistake, which learn/04-your-own-kernel.md finds.
#include "common.cuh"

#ifndef WIDTH
#define WIDTH 512
#endif

constexpr int THREADS = 256;

// launch: grid R, block THREADS
extern "C" __global__ void rmsnorm_forward(element* y,        // [R, WIDTH]
                                           float* rstd,       // [R]
                                           const element* x,  // [R, WIDTH]
                                           const element* w,  // [WIDTH]
                                           int R, float eps) {
    __shared__ float squares;
    x += (size_t)blockIdx.x * WIDTH;
    y += (size_t)blockIdx.x * WIDTH;
    float mine = 0.0f;
    for (int c = threadIdx.x; c < WIDTH; c += THREADS) mine += to_float(x[c]) * to_float(x[c]);
    if (threadIdx.x == 0) squares = 0.0f;
    __syncthreads();  // the sum is zero
    atomicAdd(&squares, mine);
    __syncthreads();  // the sum is complete
    const float scale = 1.0f / sqrtf(squares / WIDTH + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = scale;
    for (int c = threadIdx.x; c < WIDTH; c += THREADS) y[c] = from_float<element>(to_float(w[c]) * to_float(x[c]) * scale);
}

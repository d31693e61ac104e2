// y[r,c] = exp(x[r,c] - max_c x[r,c]) / sum_c exp(x[r,c] - max_c x[r,c]).  x, y: [R, C].
// One block per row; two passes over the row to reduce (maximum, then sum), one to write.
#include "ptx.cuh"

constexpr int WARPS = THREADS / 32;

extern "C" __global__ void __launch_bounds__(THREADS) softmax(float* y, const float* x, int C) {
    __shared__ float partial[WARPS];
    __shared__ float largest, denominator;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x += (size_t)blockIdx.x * C;
    y += (size_t)blockIdx.x * C;

    float m = minus_infinity();
    for (int c = threadIdx.x; c < C; c += THREADS) m = fmaxf(m, x[c]);
    for (int step = 16; step > 0; step /= 2) m = fmaxf(m, __shfl_xor_sync(FULL_WARP, m, step));
    if (lane == 0) partial[warp] = m;
    __syncthreads();  // every warp's maximum is written
    if (threadIdx.x == 0) {
        for (int w = 1; w < WARPS; w++) m = fmaxf(m, partial[w]);
        largest = m;
    }
    __syncthreads();  // the row's maximum is written, and partial is read: it may be used again
    m = largest;

    float sum = 0.0f;
    for (int c = threadIdx.x; c < C; c += THREADS) sum += expf(x[c] - m);
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, step);
    if (lane == 0) partial[warp] = sum;
    __syncthreads();  // every warp's sum is written
    if (threadIdx.x == 0) {
        for (int w = 1; w < WARPS; w++) sum += partial[w];
        denominator = sum;
    }
    __syncthreads();  // the row's sum is written
    const float scale = 1.0f / denominator;

    for (int c = threadIdx.x; c < C; c += THREADS) y[c] = expf(x[c] - m) * scale;
}

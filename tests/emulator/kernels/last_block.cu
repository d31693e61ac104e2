// out[0] = sum_i x[i] in one launch: each block leaves a partial sum, and the block that finishes last adds them, in order.
// x: [n]   partial: [blocks]   count: one word, zero before and after.  Sums do not depend on which block is last.
#include "ptx.cuh"

constexpr int WARPS = THREADS / 32;

__device__ float block_sum(float value, float* shared) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(FULL_WARP, value, step);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();  // each warp's sum is written
    value = 0.0f;
    for (int w = 0; w < WARPS; w++) value += shared[w];
    return value;
}

extern "C" __global__ void __launch_bounds__(THREADS) last_block(float* out, float* partial, u32* count, const float* x, int n) {
    __shared__ float shared[WARPS];
    __shared__ bool last;
    float sum = 0.0f;
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) sum += x[i];
    sum = block_sum(sum, shared);

    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
        __threadfence();  // the partial sum is seen by whoever sees the count
        last = atomicAdd(count, 1) == gridDim.x - 1;
        __threadfence();  // the other blocks' sums are read after the count
    }
    __syncthreads();  // all threads know whether this block is the last; shared is read and may be used again
    if (!last) return;
    const volatile float* sums = partial;
    sum = block_sum(threadIdx.x < gridDim.x ? sums[threadIdx.x] : 0.0f, shared);
    if (threadIdx.x == 0) {
        out[0] = sum;
        *count = 0;
    }
}

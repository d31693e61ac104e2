// One sum per block of 256 threads: y[b] = sum of x[256 b .. 256 b + 255], where x ends at n.
// Each warp adds its 32 values by shuffles; thread 0 adds the eight results.
// -D MISTAKE=1 .. 4 plants the mistakes that learn/02-a-kernel-without-a-gpu.md finds.

#ifndef MISTAKE
#define MISTAKE 0
#endif

constexpr int WARPS = 8;

extern "C" __global__ void block_sum(float* y,        // [blocks]
                                     const float* x,  // [n]
                                     int n) {
    __shared__ float of_warp[WARPS];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
#if MISTAKE == 1
    float sum = x[i];                                  // the last block reaches beyond the end
#else
    float sum = i < n ? x[i] : 0.0f;
#endif
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffff, sum, distance);
#if MISTAKE == 2
    if (threadIdx.x % 32 == 0 && i < n) of_warp[threadIdx.x / 32] = sum;   // the last block leaves some of them unwritten
#else
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
#endif
#if MISTAKE != 3
    __syncthreads();                                   // thread 0 reads what other warps wrote
#endif
    if (threadIdx.x == 0) {
        float total = 0.0f;
        const int last = MISTAKE == 4 ? WARPS : WARPS - 1;
        for (int warp = 0; warp <= last; warp++) total += of_warp[warp];
        y[blockIdx.x] = total;
    }
}

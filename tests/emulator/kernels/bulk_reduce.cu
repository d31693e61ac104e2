// total[c] += sum_r x[r,c]: each block adds up its rows in shared memory, and one bulk reduction adds them to the result.
// x: [R, C]   total: [C], C a multiple of 4 and at most THREADS.  Sums of integers, so that the order of blocks does not matter.
#include "ptx_sm90.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) bulk_reduce(float* total, const float* x, int R, int C) {
    __shared__ __align__(16) float sums[THREADS];
    const int c = threadIdx.x;
    float sum = 0.0f;
    if (c < C)
        for (int r = blockIdx.x; r < R; r += gridDim.x) sum += x[(size_t)r * C + c];
    sums[c] = sum;
    fence_proxy_async();  // what this thread wrote is seen by the reduction
    __syncthreads();      // all have written
    if (c == 0) {
        bulk_reduce_add_f32(total, shared_address(sums), C * 4);
        bulk_commit();
        bulk_wait<0>();  // shared memory must live until it is read
    }
}

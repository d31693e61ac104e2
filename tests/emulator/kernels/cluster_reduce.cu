// y[r,c] = x[r,c] - mean_c x[r,c], a row shared by a cluster of two blocks.  x, y: [clusters, C], C even.
// Each block sums its half; both then read both sums through distributed shared memory, in the order of the ranks.
#include "ptx_sm90.cuh"

constexpr int WARPS = THREADS / 32;

extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(THREADS) cluster_reduce(float* y, const float* x, int C) {
    __shared__ float partial[WARPS];
    __shared__ float block_sum;
    const u32 rank = cluster_rank();
    const size_t begin = (size_t)(blockIdx.x / 2) * C + rank * (C / 2);

    float sum = 0.0f;
    for (int c = threadIdx.x; c < C / 2; c += THREADS) sum += x[begin + c];
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, step);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();  // each warp's sum is written
    if (threadIdx.x == 0) {
        sum = 0.0f;
        for (int w = 0; w < WARPS; w++) sum += partial[w];
        block_sum = sum;
    }
    cluster_arrive();
    cluster_wait();  // both blocks' sums are written
    sum = 0.0f;
    for (u32 other = 0; other < 2; other++) sum += load_cluster(map_shared(shared_address(&block_sum), other));
    cluster_arrive();

    const float mean = sum / C;
    for (int c = threadIdx.x; c < C / 2; c += THREADS) y[begin + c] = x[begin + c] - mean;
    cluster_wait();  // a block's shared memory must live until the other has read it
}

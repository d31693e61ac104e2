// Mean and variance of each row: mean[r] = sum_c x[r,c] / C,  variance[r] = sum_c (x[r,c] - mean[r])^2 / C.
// x: [R, C]   mean, variance: [R].  One block per row; shuffles within a warp, shared memory between warps.
// The number of warps need not be a power of two.
#include "ptx.cuh"

__device__ float warp_sum(float value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(FULL_WARP, value, step);
    return value;
}

// The sum over the block, in every thread.
__device__ float block_sum(float value, float* partial) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    value = warp_sum(value);
    if (lane == 0) partial[warp] = value;
    __syncthreads();  // the partial sums are written
    value = warp_sum(lane < warps ? partial[lane] : 0.0f);
    __syncthreads();  // and read: the next call may overwrite them
    return value;
}

extern "C" __global__ void block_reduce(float* mean, float* variance, const float* x, int C) {
    __shared__ float partial[32];
    const float* row = x + (size_t)blockIdx.x * C;

    float sum = 0.0f;
    for (int c = threadIdx.x; c < C; c += blockDim.x) sum += row[c];
    const float mu = block_sum(sum, partial) / C;

    float squares = 0.0f;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        const float d = row[c] - mu;
        squares = fmaf(d, d, squares);
    }
    squares = block_sum(squares, partial);

    if (threadIdx.x == 0) {
        mean[blockIdx.x] = mu;
        variance[blockIdx.x] = squares / C;
    }
}

// count[b] += the number of bytes x[i] with x[i] / 4 = b.  x: [n] bytes, 4-byte aligned   count: [64].
// Each block counts in shared memory, then adds its counts to the result: one global atomic per bin and block.
#include "ptx.cuh"

constexpr int BINS = 64;

extern "C" __global__ void histogram(u32* count, const u8* x, int n) {
    __shared__ u32 local[BINS];
    for (int b = threadIdx.x; b < BINS; b += blockDim.x) local[b] = 0;
    __syncthreads();  // the counts start from zero
    const int first = blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = first; i < n / 4; i += gridDim.x * blockDim.x) {
        const uchar4 v = reinterpret_cast<const uchar4*>(x)[i];
        atomicAdd(&local[v.x / 4], 1);
        atomicAdd(&local[v.y / 4], 1);
        atomicAdd(&local[v.z / 4], 1);
        atomicAdd(&local[v.w / 4], 1);
    }
    const int tail = n / 4 * 4 + first;
    if (tail < n) atomicAdd(&local[x[tail] / 4], 1);
    __syncthreads();  // all bytes are counted
    for (int b = threadIdx.x; b < BINS; b += blockDim.x)
        if (local[b] != 0) atomicAdd(&count[b], local[b]);
}

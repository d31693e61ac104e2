// y[i] = a[i] + b[i], 16 bytes at a time.  y, a, b: [n], 16-byte aligned.
// A grid-stride loop over whole float4; the first n % 4 threads of the grid add what is left.
#include "ptx.cuh"

extern "C" __global__ void vector_add(float* y, const float* a, const float* b, int n) {
    const int first = blockIdx.x * blockDim.x + threadIdx.x;
    const int stride = gridDim.x * blockDim.x;
    const int vectors = n / 4;
    for (int i = first; i < vectors; i += stride) {
        const float4 u = reinterpret_cast<const float4*>(a)[i];
        const float4 v = reinterpret_cast<const float4*>(b)[i];
        reinterpret_cast<float4*>(y)[i] = make_float4(u.x + v.x, u.y + v.y, u.z + v.z, u.w + v.w);
    }
    const int tail = vectors * 4 + first;
    if (tail < n) y[tail] = a[tail] + b[tail];
}

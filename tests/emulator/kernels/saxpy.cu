// y[i] = alpha * x[i] + y[i] in place, a grid-stride loop.  x, y: [n].
#include "ptx.cuh"

extern "C" __global__ void saxpy(float* y, const float* x, float alpha, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = fmaf(alpha, x[i], y[i]);
}

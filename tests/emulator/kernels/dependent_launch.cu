// Two kernels overlapped by programmatic dependent launch.  x, y, z, c: [n].  y[i] = x[i]^2,  then  z[i] = y[n-1-i] + 3 c[i].
// The second may begin early; what does not depend on the first it does before it waits for the first's results.
#include "ptx_sm90.cuh"

extern "C" __global__ void square_first(float* y, const float* x, int n) {
    launch_dependents();
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] * x[i];
}

extern "C" __global__ void add_second(float* z, const float* y, const float* c, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const float own = i < n ? 3.0f * c[i] : 0.0f;
    grid_dependency_wait();  // all of y is written
    if (i < n) z[i] = y[n - 1 - i] + own;
}

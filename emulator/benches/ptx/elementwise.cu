// Element by element: addition, saxpy in strides of the grid, an AdamW step, SwiGLU.
#include <cuda_bf16.h>

extern "C" __global__ void vadd(float* y, const float* a, const float* b, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a[i] + b[i];
}

extern "C" __global__ void saxpy(float* y, const float* x, float a, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = a * x[i] + y[i];
}

extern "C" __global__ void adamw(float* p, float* m, float* v, const float* g, int n, float rate, float b1, float b2, float eps,
                                 float decay, float c1, float c2) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float first = b1 * m[i] + (1.0f - b1) * g[i];
    const float second = b2 * v[i] + (1.0f - b2) * g[i] * g[i];
    m[i] = first;
    v[i] = second;
    p[i] -= rate * (first / c1 / (sqrtf(second / c2) + eps) + decay * p[i]);
}

// y[i] = silu(gate[i]) * up[i], two elements per thread.
extern "C" __global__ void swiglu(__nv_bfloat162* y, const __nv_bfloat162* gate, const __nv_bfloat162* up, int pairs) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < pairs; i += gridDim.x * blockDim.x) {
        const float2 g = __bfloat1622float2(gate[i]), u = __bfloat1622float2(up[i]);
        y[i] = __floats2bfloat162_rn(g.x / (1.0f + __expf(-g.x)) * u.x, g.y / (1.0f + __expf(-g.y)) * u.y);
    }
}

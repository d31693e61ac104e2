// AdamW (Loshchilov and Hutter 2019), one step in place on flat buffers; also the bf16 working copy.
//   m = b1 m + (1 - b1) g   v = b2 v + (1 - b2) g^2   p = p - rate (m / c1 / (sqrt(v / c2) + eps) + decay p)
// p, m, v, g: [n] f32   copy: [n] bf16.  c1 = 1 - b1^t and c2 = 1 - b2^t come from the host.
#include "ptx.cuh"

extern "C" __global__ void adamw(float* p, float* m, float* v, bf16* copy, const float* g, int n, float rate, float b1, float b2,
                                 float eps, float decay, float c1, float c2) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        const float gradient = g[i];
        const float first = b1 * m[i] + (1.0f - b1) * gradient;
        const float second = b2 * v[i] + (1.0f - b2) * gradient * gradient;
        const float value = p[i] - rate * (first / c1 / (sqrtf(second / c2) + eps) + decay * p[i]);
        m[i] = first;
        v[i] = second;
        p[i] = value;
        copy[i] = to_bf16(value);
    }
}

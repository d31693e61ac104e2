// SwiGLU: y[r,c] = silu(gate[r,c]) * up[r,c], silu(x) = x / (1 + exp(-x)), with the types of cuda_bf16.h.
// x: [R, 2C], the gate in the first half of a row, the rest after it   y: [R, C].  C is even.
#include <cuda_bf16.h>
#include "ptx.cuh"

extern "C" __global__ void swiglu(__nv_bfloat16* y, const __nv_bfloat16* x, int R, int C) {
    const int pairs = C / 2;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < R * pairs; i += gridDim.x * blockDim.x) {
        const int r = i / pairs, c = i % pairs;
        const __nv_bfloat162* row = reinterpret_cast<const __nv_bfloat162*>(x) + (size_t)r * 2 * pairs;
        const float2 gate = __bfloat1622float2(row[c]), up = __bfloat1622float2(row[pairs + c]);
        reinterpret_cast<__nv_bfloat162*>(y)[i] =
            __floats2bfloat162_rn(gate.x / (1.0f + __expf(-gate.x)) * up.x, gate.y / (1.0f + __expf(-gate.y)) * up.y);
    }
}

// Rotary embedding: pairs (x[t,2i], x[t,2i+1]) turned by the angle position[t] * frequency[i].  x, y: [T, D]   frequency: [D / 2].
// Far positions take sincosf's slow path: a table in constant memory and an array in local memory.
#include "ptx.cuh"

extern "C" __global__ void rope(float* y, const float* x, const int* position, const float* frequency, int T, int D) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= T * (D / 2)) return;
    const int t = i / (D / 2), pair = i % (D / 2);
    float sine, cosine;
    sincosf((float)position[t] * frequency[pair], &sine, &cosine);
    const float2 v = reinterpret_cast<const float2*>(x)[i];
    reinterpret_cast<float2*>(y)[i] = make_float2(v.x * cosine - v.y * sine, v.x * sine + v.y * cosine);
}

// Embedding: y[t] = table[id[t]], and its gradient dtable[w] = sum over the t with id[t] = w of dy[t], with no atomics: a block
// owns a word and walks over all tokens in order, so that the bits do not depend on scheduling.
// id: [T]   table, dtable: [V, C]   y, dy: [T, C].  C is a multiple of 4, at most 4 * blockDim.x.
#include "ptx.cuh"

extern "C" __global__ void embedding_gather(float* y, const float* table, const int* id, int T, int C) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < T * (C / 4); i += gridDim.x * blockDim.x) {
        const int t = i / (C / 4), c = i % (C / 4);
        reinterpret_cast<float4*>(y)[i] = reinterpret_cast<const float4*>(table)[(size_t)id[t] * (C / 4) + c];
    }
}

extern "C" __global__ void embedding_scatter(float* dtable, const float* dy, const int* id, int T, int C) {
    const int c = threadIdx.x;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int base = 0; base < T; base += blockDim.x) {
        const int t = base + threadIdx.x;
        if (__syncthreads_or(t < T && id[t] == blockIdx.x) == 0) continue;  // none of these tokens is this word
        for (int other = base; other < min(base + (int)blockDim.x, T); other++) {
            if (id[other] != blockIdx.x || c >= C / 4) continue;
            const float4 d = reinterpret_cast<const float4*>(dy)[(size_t)other * (C / 4) + c];
            sum.x += d.x, sum.y += d.y, sum.z += d.z, sum.w += d.w;
        }
    }
    if (c < C / 4) reinterpret_cast<float4*>(dtable)[(size_t)blockIdx.x * (C / 4) + c] = sum;
}

// Dropout: y[i] = kept[i] ? x[i] * scale : 0, kept[i] if a random 32-bit number is at or above the threshold.
// x, y: [n]   kept: [n] bytes.
// Numbers from Philox 4x32-10 (Salmon et al. 2011), counter (i / 4, 0, 0, site), key the seed: thread j makes those of
// 4j .. 4j + 3.
#include "ptx.cuh"

__device__ __forceinline__ uint4 philox(uint4 c, u32 k0, u32 k1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u32 high0 = __umulhi(0xd2511f53u, c.x), low0 = 0xd2511f53u * c.x;
        const u32 high1 = __umulhi(0xcd9e8d57u, c.z), low1 = 0xcd9e8d57u * c.z;
        c = make_uint4(high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0);
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return c;
}

extern "C" __global__ void dropout(float* y, u8* kept, const float* x, int n, u64 seed, u32 site, u32 threshold, float scale) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    const uint4 r = philox(make_uint4(j, 0, 0, site), (u32)seed, (u32)(seed >> 32));
    const u32 random[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
    for (int e = 0; e < 4; e++) {
        const int i = j * 4 + e;
        if (i >= n) return;
        const bool keep = random[e] >= threshold;
        kept[i] = keep;
        y[i] = keep ? x[i] * scale : 0.0f;
    }
}

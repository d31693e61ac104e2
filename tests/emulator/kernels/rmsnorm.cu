// y = w * x * rstd,  rstd = rsqrt(mean_c(x^2) + eps).  x, y: [R, C] bf16   w: [C] bf16   rstd: [R].
// A warp owns a row; C is a multiple of 8, so that a lane takes 8 elements by one 16-byte load.  The row stays in registers.
#include "ptx.cuh"

constexpr int VECTORS = 2;  // 16-byte vectors per lane: C <= 32 * 8 * VECTORS

extern "C" __global__ void rmsnorm(bf16* y, float* rstd, const bf16* x, const bf16* w, int R, int C, float eps) {
    const int lane = threadIdx.x % 32;
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= R) return;  // whole warps leave: only the warp's own lanes meet below

    uint4 held[VECTORS];
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int c = (i * 32 + lane) * 8;
        held[i] = make_uint4(0, 0, 0, 0);
        if (c < C) held[i] = *reinterpret_cast<const uint4*>(x + (size_t)row * C + c);
        const u32 pair[4] = {held[i].x, held[i].y, held[i].z, held[i].w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            squares = fmaf(low_float(pair[j]), low_float(pair[j]), squares);
            squares = fmaf(high_float(pair[j]), high_float(pair[j]), squares);
        }
    }
    for (int step = 16; step > 0; step /= 2) squares += __shfl_xor_sync(FULL_WARP, squares, step);
    const float r = rsqrtf(squares / C + eps);
    if (lane == 0) rstd[row] = r;

#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int c = (i * 32 + lane) * 8;
        if (c >= C) continue;
        const uint4 weight = *reinterpret_cast<const uint4*>(w + c);
        const u32 a[4] = {held[i].x, held[i].y, held[i].z, held[i].w};
        const u32 b[4] = {weight.x, weight.y, weight.z, weight.w};
        u32 out[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            out[j] = pack_bf16(low_float(a[j]) * r * low_float(b[j]), high_float(a[j]) * r * high_float(b[j]));
        *reinterpret_cast<uint4*>(y + (size_t)row * C + c) = make_uint4(out[0], out[1], out[2], out[3]);
    }
}

// C = (2 A) B with A scaled in registers on its way to wgmma, as attention does with its probabilities.
// A: [64, K] bf16   B: [K, 64] bf16   C: [64, 64] f32.  One warpgroup.  K is even.
// B is staged by ordinary stores in two buffers of 32 rows, n innermost: row k's 16-byte unit u lies at u ^ (k % 8), and groups of
// 8 rows follow each other at 1024 bytes, which is what the descriptor of a 128-byte swizzled, transposed operand says.
#include "ptx_sm90.cuh"

constexpr int STEP = 32, COLUMNS = 64;

__device__ __forceinline__ u32 doubled(u32 pair) { return pack_bf16(2.0f * low_float(pair), 2.0f * high_float(pair)); }

extern "C" __global__ void __launch_bounds__(128) wgmma_registers(float* c, const bf16* a, const bf16* b, int K) {
    __shared__ __align__(1024) u8 bs[2][STEP * COLUMNS * 2];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sum[32];
    int stage = 0;
    for (int k0 = 0; k0 < K; k0 += STEP, stage ^= 1) {
        for (int i = threadIdx.x; i < STEP * 8; i += 128) {
            const int k = i / 8, u = i % 8;
            uint4 unit = make_uint4(0, 0, 0, 0);
            if (k0 + k < K) unit = *reinterpret_cast<const uint4*>(b + (size_t)(k0 + k) * COLUMNS + u * 8);
            *reinterpret_cast<uint4*>(&bs[stage][k * 128 + (u ^ k % 8) * 16]) = unit;
        }
        u32 fa[STEP / 16][4];
#pragma unroll
        for (int i = 0; i < STEP / 16; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int row = warp * 16 + e % 2 * 8 + lane / 4, k = k0 + i * 16 + e / 2 * 8 + lane % 4 * 2;
                fa[i][e] = k < K ? doubled(*reinterpret_cast<const u32*>(a + (size_t)row * K + k)) : 0;
            }
        fence_proxy_async();  // what this thread wrote is seen by wgmma
        __syncthreads();      // all have written; all have waited for the products that read the other buffer
        hold(sum);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < STEP / 16; i++)
            wgmma_m64n64k16(sum, fa[i], wgmma_descriptor(shared_address(&bs[stage][i * 16 * 128]), 1024), k0 > 0 || i > 0);
        wgmma_commit();
        wgmma_wait<0>();  // the fragments of A change in the next step
        hold(sum);
    }
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
        const int row = warp * 16 + i % 4 / 2 * 8 + lane / 4, col = i / 4 * 8 + lane % 4 * 2;
        *reinterpret_cast<float2*>(c + row * COLUMNS + col) = make_float2(sum[i], sum[i + 1]);
    }
}

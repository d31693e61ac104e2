// C = A B^T rounded to bf16.  A: [M, K]   B: [32, K]   C: [M, 32], all bf16; K a multiple of 16.
// A warp makes 16 rows from fragments loaded straight from global memory.  The sums pass through shared memory by stmatrix
// (rows of 64 bytes, 16-byte unit u of row r at u ^ (r / 2 % 4)), so that a row leaves by whole 16-byte stores.
#include "ptx_sm90.cuh"

constexpr int COLUMNS = 32;

extern "C" __global__ void __launch_bounds__(64) stmatrix_epilogue(bf16* c, const bf16* a, const bf16* b, int M, int K) {
    __shared__ __align__(16) u8 tile[2][16 * COLUMNS * 2];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row0 = blockIdx.x * 32 + warp * 16;

    float sum[4][4] = {};
    for (int k = 0; k < K; k += 16) {
        u32 fa[4];
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int row = row0 + e % 2 * 8 + lane / 4;
            fa[e] = row < M ? *reinterpret_cast<const u32*>(a + (size_t)row * K + k + e / 2 * 8 + lane % 4 * 2) : 0;
        }
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const u32* fb = reinterpret_cast<const u32*>(b + (size_t)(n * 8 + lane / 4) * K + k + lane % 4 * 2);
            mma_bf16(sum[n], fa, fb[0], fb[4]);
        }
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const int r = lane % 16, u = j * 2 + lane / 16;
        stmatrix_x4(shared_address(&tile[warp][r * 64 + (u ^ r / 2 % 4) * 16]), pack_bf16(sum[j * 2][0], sum[j * 2][1]),
                    pack_bf16(sum[j * 2][2], sum[j * 2][3]), pack_bf16(sum[j * 2 + 1][0], sum[j * 2 + 1][1]),
                    pack_bf16(sum[j * 2 + 1][2], sum[j * 2 + 1][3]));
    }
    __syncwarp();  // the tile is read by other lanes of the warp
    for (int i = lane; i < 16 * 4; i += 32) {
        const int r = i / 4, u = i % 4;
        if (row0 + r < M)
            *reinterpret_cast<uint4*>(c + (size_t)(row0 + r) * COLUMNS + u * 8) =
                *reinterpret_cast<const uint4*>(&tile[warp][r * 64 + (u ^ r / 2 % 4) * 16]);
    }
}

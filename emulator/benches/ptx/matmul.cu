// C = A B on tensor cores.  A: [M, K] bf16   B: [K, N] bf16   C: [M, N] f32; M and N multiples of 64, K of 32.
// Tiles of 64 x 64 x 32 by 2 x 2 warps of 32 x 32; two tiles in flight by cp.async.  Shared memory is swizzled in units of
// 16 bytes, so that the 8 rows of one ldmatrix phase lie in different banks.
typedef unsigned u32;
typedef unsigned short bf16;

constexpr int TILE = 64, STEP = 32, THREADS = 128, STAGES = 2;
constexpr u32 A_BYTES = TILE * STEP * 2, STAGE_BYTES = 2 * A_BYTES;

__device__ __forceinline__ u32 at_a(u32 row, u32 unit) { return row * 64 + (unit ^ (row / 2 % 4)) * 16; }
__device__ __forceinline__ u32 at_b(u32 row, u32 unit) { return A_BYTES + row * 128 + (unit ^ (row % 8)) * 16; }

__device__ __forceinline__ void copy16(u32 shared, const bf16* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}

extern "C" __global__ void __launch_bounds__(THREADS) matmul(float* c, const bf16* a, const bf16* b, int N, int K) {
    __shared__ __align__(128) unsigned char tiles[STAGES * STAGE_BYTES];
    const u32 base = (u32)__cvta_generic_to_shared(tiles);
    const int row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_row = warp / 2 * 32, warp_col = warp % 2 * 32;

    auto fill = [&](int k0) {
        const u32 stage = base + k0 / STEP % STAGES * STAGE_BYTES;
        if (k0 < K) {
#pragma unroll
            for (int i = threadIdx.x; i < TILE * 4; i += THREADS)
                copy16(stage + at_a(i / 4, i % 4), a + (size_t)(row0 + i / 4) * K + k0 + i % 4 * 8);
#pragma unroll
            for (int i = threadIdx.x; i < STEP * 8; i += THREADS)
                copy16(stage + at_b(i / 8, i % 8), b + (size_t)(k0 + i / 8) * N + col0 + i % 8 * 8);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };

    float sum[2][4][4] = {};
    fill(0);
    for (int k0 = 0; k0 < K; k0 += STEP) {
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
        fill(k0 + STEP);
        const u32 stage = base + k0 / STEP % STAGES * STAGE_BYTES;
#pragma unroll
        for (int k = 0; k < STEP / 16; k++) {
            u32 fa[2][4], fb[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++)
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(fa[i][0]), "=r"(fa[i][1]), "=r"(fa[i][2]), "=r"(fa[i][3])
                             : "r"(stage + at_a(warp_row + i * 16 + lane % 16, k * 2 + lane / 16)) : "memory");
#pragma unroll
            for (int j = 0; j < 2; j++)
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(fb[j][0]), "=r"(fb[j][1]), "=r"(fb[j][2]), "=r"(fb[j][3])
                             : "r"(stage + at_b(k * 16 + lane % 16, warp_col / 8 + j * 2 + lane / 16)) : "memory");
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                                 "{%0, %1, %2, %3};"
                                 : "+f"(sum[i][j][0]), "+f"(sum[i][j][1]), "+f"(sum[i][j][2]), "+f"(sum[i][j][3])
                                 : "r"(fa[i][0]), "r"(fa[i][1]), "r"(fa[i][2]), "r"(fa[i][3]), "r"(fb[j / 2][j % 2 * 2]),
                                   "r"(fb[j / 2][j % 2 * 2 + 1]));
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = row0 + warp_row + i * 16 + half * 8 + lane / 4, col = col0 + warp_col + j * 8 + lane % 4 * 2;
                *reinterpret_cast<float2*>(c + (size_t)row * N + col) = make_float2(sum[i][j][half * 2], sum[i][j][half * 2 + 1]);
            }
}

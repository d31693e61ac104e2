// C = A B^T on Hopper's tensor cores.  A: [M, K] bf16   B: [N, K] bf16   C: [M, N] f32, N even.
// Tiles of 64 x 128 x 64.  One thread of warpgroup 0 loads them by tensor copies into a ring of STAGES, which fill what lies
// outside with zeros; warpgroup 1 multiplies.  Rows of a tile are 128 bytes, swizzled; 8 rows make a group of 1024 bytes.
// The producer gives registers back, the consumer takes them.
#include "ptx_sm90.cuh"

constexpr int ROWS = 64, COLUMNS = 128, STEP = 64;
constexpr u32 A_BYTES = ROWS * STEP * 2, B_BYTES = COLUMNS * STEP * 2, STAGE_BYTES = A_BYTES + B_BYTES;

extern __shared__ __align__(1024) u8 smem[];  // the stages, then the barriers: full[STAGES], empty[STAGES]

extern "C" __global__ void __launch_bounds__(256, 1) wgmma_matmul(float* c, const __grid_constant__ TensorMap a_map,
                                                                  const __grid_constant__ TensorMap b_map, int M, int N, int K) {
    const u32 base = shared_address(smem), full = base + STAGES * STAGE_BYTES, empty = full + STAGES * 8;
    const int row0 = blockIdx.y * ROWS, col0 = blockIdx.x * COLUMNS, steps = (K + STEP - 1) / STEP;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(full + s * 8, 1);
            mbarrier_init(empty + s * 8, 4);  // one arrival per consumer warp
        }
        fence_mbarrier_init();
    }
    __syncthreads();  // the barriers are ready

    if (threadIdx.x < 128) {
        setmaxnreg_dec<40>();
        if (threadIdx.x == 0) {
            for (int step = 0; step < steps; step++) {
                const int s = step % STAGES;
                mbarrier_wait(empty + s * 8, (step / STAGES + 1) % 2);
                mbarrier_arrive_expect_tx(full + s * 8, STAGE_BYTES);
                tensor_load_2d(base + s * STAGE_BYTES, a_map, step * STEP, row0, full + s * 8);
                tensor_load_2d(base + s * STAGE_BYTES + A_BYTES, b_map, step * STEP, col0, full + s * 8);
            }
        }
    } else {
        setmaxnreg_inc<232>();
        const int t = threadIdx.x - 128, lane = t % 32, warp = t / 32;
        float sum[64];
        for (int step = 0; step < steps; step++) {
            const int s = step % STAGES;
            mbarrier_wait(full + s * 8, step / STAGES % 2);
            hold(sum);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < STEP / 16; k++)
                wgmma_m64n128k16(sum, wgmma_descriptor(base + s * STAGE_BYTES + k * 32, 1024),
                                 wgmma_descriptor(base + s * STAGE_BYTES + A_BYTES + k * 32, 1024), step > 0 || k > 0);
            wgmma_commit();
            hold(sum);
            wgmma_wait<1>();  // the previous step's products are done: its stage may be filled again
            if (step > 0 && lane == 0) mbarrier_arrive(empty + (step - 1) % STAGES * 8);
        }
        wgmma_wait<0>();
        hold(sum);
#pragma unroll
        for (int i = 0; i < 64; i += 2) {
            const int row = row0 + warp * 16 + i % 4 / 2 * 8 + lane / 4, col = col0 + i / 4 * 8 + lane % 4 * 2;
            if (row < M && col < N) *reinterpret_cast<float2*>(c + (size_t)row * N + col) = make_float2(sum[i], sum[i + 1]);
        }
    }
}

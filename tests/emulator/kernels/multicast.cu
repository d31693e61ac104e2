// y = x w, where the two blocks of a cluster own different rows of x and share w.  x: [R, K]   w: [K, 32]   y: [R, 32], all f32.
// A step's 16 rows of w are loaded once per cluster: each block loads 8 of them and multicasts them to both.  A block may refill
// a stage only when the consumers of both blocks have left it, so each consumer warp reports to both.
// Warp 0 loads; warps 1 and 2 own one row of x each.  A block: 2 rows; R is a multiple of 4.
#include "ptx_sm90.cuh"

constexpr int STEP = 16, COLUMNS = 32, HALF_BYTES = STEP / 2 * COLUMNS * 4;

extern "C" __global__ void __launch_bounds__(96)
multicast(float* y, const float* x, const __grid_constant__ TensorMap w_map, int K) {
    __shared__ __align__(128) float ws[STAGES][STEP * COLUMNS];
    __shared__ __align__(8) u64 full[STAGES], empty[STAGES];
    const u32 rank = cluster_rank();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, steps = (K + STEP - 1) / STEP;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(shared_address(&full[s]), 1);
            mbarrier_init(shared_address(&empty[s]), 4);  // two consumer warps of two blocks
        }
        fence_mbarrier_init();
    }
    cluster_arrive();
    cluster_wait();  // the barriers of both blocks are ready

    if (warp == 0) {
        if (elect_one()) {
            for (int step = 0; step < steps; step++) {
                const int s = step % STAGES;
                mbarrier_wait_cluster(shared_address(&empty[s]), (step / STAGES + 1) % 2);
                mbarrier_arrive_expect_tx(shared_address(&full[s]), 2 * HALF_BYTES);  // one half from each block
                tensor_load_2d_multicast(shared_address(ws[s]) + rank * HALF_BYTES, w_map, 0, step * STEP + rank * (STEP / 2),
                                         shared_address(&full[s]), 3);
            }
        }
        __syncwarp();  // the warp meets again before the barrier of the cluster
    } else {
        const int row = blockIdx.x * 2 + warp - 1;
        float sum = 0.0f;
        for (int step = 0; step < steps; step++) {
            const int s = step % STAGES;
            mbarrier_wait(shared_address(&full[s]), step / STAGES % 2);
            for (int j = 0; j < STEP; j++) {
                const int k = step * STEP + j;
                if (k < K) sum = fmaf(x[(size_t)row * K + k], ws[s][j * COLUMNS + lane], sum);
            }
            __syncwarp();  // all lanes have read the stage
            if (lane < 2) mbarrier_arrive_cluster(map_shared(shared_address(&empty[s]), lane));
        }
        y[row * COLUMNS + lane] = sum;
    }
    cluster_arrive();
    cluster_wait();  // the other block still writes and reports to this one's shared memory
}

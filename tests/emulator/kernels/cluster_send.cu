// Blocks of a cluster of two send each other a tile: y[b] = x[b] + reversed x[peer of b].  x, y: [blocks, 64].
// A bulk copy from shared memory to the peer's, whose mbarrier counts the bytes.
#include "ptx_sm90.cuh"

constexpr int TILE = 64, BYTES = TILE * 4;

extern "C" __global__ void __launch_bounds__(TILE) cluster_send(float* y, const float* x) {
    __shared__ __align__(16) float mine[TILE], received[TILE];
    __shared__ __align__(8) u64 barrier;
    const u32 peer = cluster_rank() ^ 1;
    const int i = threadIdx.x;
    if (i == 0) {
        mbarrier_init(shared_address(&barrier), 1);
        fence_mbarrier_init();
        mbarrier_arrive_expect_tx(shared_address(&barrier), BYTES);
    }
    mine[i] = x[blockIdx.x * TILE + i];
    fence_proxy_async();  // what this thread wrote is seen by the copy
    cluster_arrive();
    cluster_wait();  // both tiles are written and both barriers ready
    if (i == 0)
        bulk_send(map_shared(shared_address(received), peer), shared_address(mine), BYTES,
                  map_shared(shared_address(&barrier), peer));
    mbarrier_wait_cluster(shared_address(&barrier), 0);
    y[blockIdx.x * TILE + i] = mine[i] + received[TILE - 1 - i];
    cluster_arrive();
    cluster_wait();  // this block's tile must live until the peer has it
}

// y[i] = 2 x[i] + i in chunks that come and go by bulk copies.  x, y: [n], n a multiple of 4.
// Warp 0 loads chunks into a ring of STAGES buffers (full and empty mbarriers); warps 1 and 2 compute into one of two output
// buffers, which a bulk store empties while they work on the other.
#include "ptx_sm90.cuh"

constexpr int CHUNK = 128, CONSUMERS = 64;

extern "C" __global__ void __launch_bounds__(32 + CONSUMERS) bulk_copy(float* y, const float* x, int n) {
    __shared__ __align__(128) float in[STAGES][CHUNK], out[2][CHUNK];
    __shared__ __align__(8) u64 full[STAGES], empty[STAGES];
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(shared_address(&full[s]), 1);
            mbarrier_init(shared_address(&empty[s]), CONSUMERS);
        }
        fence_mbarrier_init();
    }
    __syncthreads();  // the barriers are ready
    const int chunks = (n + CHUNK - 1) / CHUNK;

    if (threadIdx.x < 32) {
        if (elect_one()) {
            int turn = 0;
            for (int chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x, turn++) {
                const int s = turn % STAGES, bytes = min(CHUNK, n - chunk * CHUNK) * 4;
                mbarrier_wait(shared_address(&empty[s]), (turn / STAGES + 1) % 2);
                mbarrier_arrive_expect_tx(shared_address(&full[s]), bytes);
                bulk_load(shared_address(in[s]), x + (size_t)chunk * CHUNK, bytes, shared_address(&full[s]));
            }
        }
    } else {
        const int t = threadIdx.x - 32;
        int turn = 0;
        for (int chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x, turn++) {
            const int s = turn % STAGES, length = min(CHUNK, n - chunk * CHUNK);
            float* target = out[turn % 2];
            mbarrier_wait(shared_address(&full[s]), turn / STAGES % 2);
            if (t == 0) bulk_wait_read<1>();  // the store before the last one has read its buffer
            bar_sync(1, CONSUMERS);           // and all may write to it
            for (int j = t; j < length; j += CONSUMERS) target[j] = 2.0f * in[s][j] + (float)(chunk * CHUNK + j);
            mbarrier_arrive(shared_address(&empty[s]));
            fence_proxy_async();     // what this thread wrote is seen by the store
            bar_sync(1, CONSUMERS);  // all have written
            if (t == 0) {
                bulk_store(y + (size_t)chunk * CHUNK, shared_address(target), length * 4);
                bulk_commit();
            }
        }
        if (t == 0) bulk_wait<0>();  // shared memory must live until it is read
    }
}

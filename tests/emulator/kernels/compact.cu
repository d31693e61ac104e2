// Stream compaction: the positive elements of x in their order, and how many there are.  x, y: [n]   kept: [1].
// One block, tile after tile: ballots number the lanes, shared counts the warps.
#include "ptx.cuh"

constexpr int WARPS = THREADS / 32;

extern "C" __global__ void __launch_bounds__(THREADS) compact(int* y, int* kept, const int* x, int n) {
    __shared__ int counts[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int written = 0;
    for (int base = 0; base < n; base += THREADS) {
        const int i = base + threadIdx.x;
        const int value = i < n ? x[i] : 0;
        const u32 votes = __ballot_sync(FULL_WARP, value > 0);
        if (lane == 0) counts[warp] = __popc(votes);
        __syncthreads();  // every warp's count is written
        int place = written + __popc(votes & ((1u << lane) - 1));
        for (int w = 0; w < WARPS; w++) {
            if (w < warp) place += counts[w];
            written += counts[w];
        }
        if (value > 0) y[place] = value;
        __syncthreads();  // the counts are read: the next tile may overwrite them
    }
    if (threadIdx.x == 0) kept[0] = written;
}

// Inclusive prefix sum of many blocks in one pass: decoupled look-back (Merrill and Garland 2016).  x, y: [n].
// state: [tiles], zero before: flag in the upper half, sum in the lower, so that one relaxed word carries both.
//   flag 1: the sum of the tile alone; flag 2: the sum of all tiles up to it.
// tickets: one word, zero before.  Tiles are numbered as blocks begin, hence a block only ever waits for blocks that run.
#include "ptx.cuh"

constexpr int WARPS = THREADS / 32;
constexpr u64 ALONE = 1ull << 32, ALL = 2ull << 32;

extern "C" __global__ void __launch_bounds__(THREADS) lookback(u32* y, u64* state, u32* tickets, const u32* x, int n) {
    __shared__ u32 totals[WARPS];
    __shared__ u32 ticket, exclusive;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (threadIdx.x == 0) ticket = atomicAdd(tickets, 1);
    __syncthreads();  // the ticket is known to all
    const u32 tile = ticket;
    const int i = tile * THREADS + threadIdx.x;

    u32 sum = i < n ? x[i] : 0;
    for (int step = 1; step < 32; step *= 2) {
        const u32 left = __shfl_up_sync(FULL_WARP, sum, step);
        if (lane >= step) sum += left;
    }
    if (lane == 31) totals[warp] = sum;
    __syncthreads();  // every warp's total is written
    for (int w = 0; w < warp; w++) sum += totals[w];

    if (threadIdx.x == 0) {
        u32 total = 0, before = 0;
        for (int w = 0; w < WARPS; w++) total += totals[w];
        if (tile > 0) {
            store_relaxed(&state[tile], ALONE | total);
            for (int t = tile - 1; t >= 0; t--) {
                u64 seen;
                do seen = load_relaxed(&state[t]); while (seen < ALONE);
                before += (u32)seen;
                if (seen >= ALL) break;
            }
        }
        store_relaxed(&state[tile], ALL | (before + total));
        exclusive = before;
    }
    __syncthreads();  // the sum of the tiles to the left is known
    if (i < n) y[i] = exclusive + sum;
}

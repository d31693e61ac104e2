// Inclusive prefix sum y[i] = x[0] + ... + x[i] by one block, tile after tile with a carry.  x, y: [n].
// In a warp: Hillis and Steele 1986 over shared memory, where __syncwarp separates a step's reads from its writes.
#include "ptx.cuh"

constexpr int WARPS = THREADS / 32;

extern "C" __global__ void __launch_bounds__(THREADS) scan(u32* y, const u32* x, int n) {
    __shared__ u32 sums[THREADS];
    __shared__ u32 totals[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32* mine = sums + warp * 32;
    u32 carry = 0;

    for (int base = 0; base < n; base += THREADS) {
        const int i = base + threadIdx.x;
        mine[lane] = i < n ? x[i] : 0;
        for (int step = 1; step < 32; step *= 2) {
            __syncwarp();  // the previous step's sums are written
            const u32 left = lane >= step ? mine[lane - step] : 0;
            __syncwarp();  // and read by all before they change
            mine[lane] += left;
        }
        if (lane == 31) totals[warp] = mine[31];
        __syncthreads();  // every warp's total is written
        u32 before = carry;
        for (int w = 0; w < WARPS; w++) {
            if (w < warp) before += totals[w];
            carry += totals[w];
        }
        if (i < n) y[i] = before + mine[lane];
        __syncthreads();  // the totals are read: the next tile may overwrite them
    }
}

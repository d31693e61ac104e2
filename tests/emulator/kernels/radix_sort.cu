// One pass of a stable radix sort: pairs (key, value) ordered by 4 bits of the key.  keys, values and sorted ones: [n].
// One block; a warp owns a contiguous part, counts its digits, and, after a scan over (digit, warp), writes its pairs where
// they belong, 32 at a time in order, lanes of equal digit numbering themselves by a match.
#include "ptx.cuh"

constexpr int DIGITS = 16, WARPS = THREADS / 32;

extern "C" __global__ void __launch_bounds__(THREADS) radix_sort(u32* sorted_keys, u32* sorted_values, const u32* keys,
                                                                 const u32* values, int n, int shift) {
    __shared__ u32 start[DIGITS * WARPS];  // [digit][warp]: first counts, then the place of the next pair
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int part = (n + WARPS * 32 - 1) / (WARPS * 32) * 32;
    const int begin = warp * part, end = min(begin + part, n);

    for (int i = threadIdx.x; i < DIGITS * WARPS; i += THREADS) start[i] = 0;
    __syncthreads();  // the counts start from zero
    for (int i = begin + lane; i < end; i += 32) atomicAdd(&start[(keys[i] >> shift) % DIGITS * WARPS + warp], 1);
    __syncthreads();  // the counts are complete

    if (warp == 0) {  // exclusive scan by one warp
        u32 carry = 0;
        for (int base = 0; base < DIGITS * WARPS; base += 32) {
            const u32 count = start[base + lane];
            u32 sum = count;
            for (u32 step = 1; step < 32; step *= 2) {
                const u32 left = __shfl_up_sync(FULL_WARP, sum, step);
                if (lane >= step) sum += left;
            }
            start[base + lane] = carry + sum - count;
            carry += __shfl_sync(FULL_WARP, sum, 31);
        }
    }
    __syncthreads();  // every warp knows its places

    for (int base = begin; base < end; base += 32) {
        const int i = base + lane;
        const u32 present = __ballot_sync(FULL_WARP, i < end);
        if (i < end) {
            const u32 key = keys[i], slot = (key >> shift) % DIGITS * WARPS + warp;
            const u32 peers = __match_any_sync(present, slot);
            const u32 rank = __popc(peers & ((1u << lane) - 1));
            const u32 place = start[slot] + rank;
            sorted_keys[place] = key;
            sorted_values[place] = values[i];
            __syncwarp(present);  // all have read their place before the last of each digit moves it
            if (peers >> lane == 1) start[slot] = place + 1;
        }
        __syncwarp();  // the moved places are seen by the next 32
    }
}

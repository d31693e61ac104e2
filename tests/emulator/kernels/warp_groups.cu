// Groups smaller than a warp.  key, value: [n]   rank: [n]   total: [keys], added to   tile: [ceil(n / 8)].
// 1. Lanes of equal key find each other (match), number themselves, and sum their values (redux) before one atomic.
// 2. Tiles of 8 lanes reduce on their own: even tiles to their maximum, odd tiles to their sum, in code of their own.
#include "ptx.cuh"

extern "C" __global__ void warp_groups(int* rank, int* total, int* tile, const int* key, const int* value, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const u32 lane = threadIdx.x % 32;
    const u32 present = __ballot_sync(FULL_WARP, i < n);
    if (i >= n) return;

    const int mine = key[i], v = value[i];
    const u32 peers = __match_any_sync(present, mine);
    rank[i] = __popc(peers & ((1u << lane) - 1));
    const int sum = __reduce_add_sync(peers, v);
    if (lane == __ffs(peers) - 1) atomicAdd(&total[mine], sum);

    const u32 group = present & (0xffu << (lane & ~7u));  // the last tile may be short
    int r = v;
    if (lane & 8) {
        for (u32 step = 4; step > 0; step /= 2) {
            const bool inside = (lane & 7) + step < 8 && group >> (lane + step) & 1;
            const int other = __shfl_sync(group, r, inside ? lane + step : lane);
            if (inside) r += other;
        }
    } else {
        for (u32 step = 4; step > 0; step /= 2) {
            const bool inside = (lane & 7) + step < 8 && group >> (lane + step) & 1;
            const int other = __shfl_sync(group, r, inside ? lane + step : lane);
            if (inside) r = max(r, other);
        }
    }
    if ((lane & 7) == 0) tile[i / 8] = r;
}

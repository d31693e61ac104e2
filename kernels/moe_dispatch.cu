// Dispatch of a mixture of experts: a stable counting sort of the slots by expert.  A token has a slot for each of its k choices
//   choices: [slots]  ->  counts: [E]   offsets: [E + 1], where the rows of each expert begin
//                         row_of_slot, slot_of_row: [slots], inverse of each other; the token of a slot is slot / k
//                         tiles: [max_tiles, 4], (expert, first row, rows, 0), at most tile_rows rows each, for grouped matmuls
// Four launches: each block counts the experts among its BLOCK_SLOTS slots; a block an expert turns these counts into where each
// block's slots begin among the expert's; a block an expert writes its offset and tiles; each block places its slots.
// Reads 8 bytes a slot and writes 8, nothing beside the rows that then move; the host learns none of it. Slots of one expert in a
// warp number themselves by a match, warps and blocks by a scan: no atomic decides about an order. No gradient.

#include "common.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
constexpr int ROUNDS = 8;  // slots of a thread
constexpr int BLOCK_SLOTS = THREADS * ROUNDS;
constexpr int MAX_EXPERTS = THREADS;  // where a thread is an expert

// Over a block of THREADS threads, all of which call it: every thread gets the sum. `scratch` has WARPS ints of shared memory.
__device__ __forceinline__ int block_total(int x, int* scratch) {
    x = __reduce_add_sync(ALL_LANES, x);
    __syncthreads();  // nobody still reads what an earlier call left there
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads();  // every warp's sum is there
    int total = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) total += scratch[w];
    return total;
}

// Numbers this warp's slots of each expert in their order: rank[r] is how many of them lie before this lane's slot of round r.
// count: [E], the warp's own, 0 before, how many there are after.  A warp owns ROUNDS * WARP adjacent slots, a lane every 32nd.
__device__ __forceinline__ void rank_slots(int (&expert)[ROUNDS], int (&rank)[ROUNDS], int* count, const int* choices, int slots,
                                           int E) {
    const int lane = threadIdx.x % WARP;
    const long long first = ((long long)blockIdx.x * WARPS + threadIdx.x / WARP) * ROUNDS * WARP + lane;
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) expert[r] = first + r * WARP < slots ? choices[first + r * WARP] : E;
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        const u32 peers = __match_any_sync(ALL_LANES, expert[r]);
        const bool last = peers >> lane == 1;  // of the lanes with this expert
        rank[r] = expert[r] < E ? count[expert[r]] + __popc(peers & ((1u << lane) - 1)) : 0;
        __syncwarp();  // all have read before the last one counts them
        if (last && expert[r] < E) count[expert[r]] = rank[r] + 1;
        __syncwarp();  // the next round sees the count
    }
}

// launch: grid ceil_div(slots, BLOCK_SLOTS), block THREADS, registers 40
extern "C" __global__ void __launch_bounds__(THREADS) moe_dispatch_count(int* in_block,       // [E, blocks]
                                                                         const int* choices,  // [slots]
                                                                         int slots, int E) {
    __shared__ int count[MAX_EXPERTS];
    if (threadIdx.x < E) count[threadIdx.x] = 0;
    __syncthreads();  // the counts start from zero
    const long long first = (long long)blockIdx.x * BLOCK_SLOTS + threadIdx.x;
    int expert[ROUNDS];
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) expert[r] = first + r * THREADS < slots ? choices[first + r * THREADS] : E;
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        const u32 peers = __match_any_sync(ALL_LANES, expert[r]);
        const bool last = peers >> threadIdx.x % WARP == 1;  // of the lanes with this expert: it counts them all
        if (last && expert[r] < E) atomicAdd(&count[expert[r]], __popc(peers));
    }
    __syncthreads();  // all slots are counted
    if (threadIdx.x < E) in_block[(long long)threadIdx.x * gridDim.x + blockIdx.x] = count[threadIdx.x];
}

// In place: the counts of an expert's slots in each block become the number of its slots in the blocks before.
// launch: grid E, block THREADS, registers 32
extern "C" __global__ void __launch_bounds__(THREADS) moe_dispatch_scan(int* in_block,  // [E, blocks]
                                                                        int* counts,    // [E]
                                                                        int* load,      // [E]: += counts
                                                                        int E, int blocks) {
    __shared__ int scratch[WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int* const row = in_block + (long long)blockIdx.x * blocks;
    int before = 0;
    for (int base = 0; base < blocks; base += THREADS) {
        const int i = base + threadIdx.x;
        const int mine = i < blocks ? row[i] : 0;
        int sum = mine;  // of this lane and those before
#pragma unroll
        for (int distance = 1; distance < WARP; distance *= 2) {
            const int left = __shfl_up_sync(ALL_LANES, sum, distance);
            if (lane >= distance) sum += left;
        }
        __syncthreads();  // nobody still reads the last sums
        if (lane == WARP - 1) scratch[warp] = sum;
        __syncthreads();  // every warp's sum is there
        int total = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            if (w == warp) sum += total;
            total += scratch[w];
        }
        if (i < blocks) row[i] = before + sum - mine;
        before += total;
    }
    if (threadIdx.x == 0) {
        counts[blockIdx.x] = before;
        load[blockIdx.x] += before;
    }
}

// max_tiles is slots / tile_rows + E: there are never more. Those that there are not have no rows.
// launch: grid E, block THREADS, registers 40
extern "C" __global__ void __launch_bounds__(THREADS) moe_dispatch_tiles(int* offsets,       // [E + 1]
                                                                         int* tiles,         // [max_tiles, 4], aligned to 16 bytes
                                                                         int* tile_count,    // [1]
                                                                         const int* counts,  // [E]
                                                                         int E, int tile_rows, int max_tiles) {
    __shared__ int scratch[WARPS];
    const int e = blockIdx.x;
    const int before = threadIdx.x < e ? counts[threadIdx.x] : 0;  // of this thread's expert, where it comes before e
    const int begin = block_total(before, scratch);
    const int first_tile = block_total(ceil_div(before, tile_rows), scratch);
    const int count = counts[e], mine = ceil_div(count, tile_rows);
    int4* const tile = reinterpret_cast<int4*>(tiles);
    for (int i = threadIdx.x; i < mine; i += THREADS)
        tile[first_tile + i] = make_int4(e, begin + i * tile_rows, min(tile_rows, count - i * tile_rows), 0);
    if (threadIdx.x == 0) offsets[e] = begin;
    if (e != E - 1) return;
    for (int i = first_tile + mine + threadIdx.x; i < max_tiles; i += THREADS) tile[i] = make_int4(0, 0, 0, 0);
    if (threadIdx.x == 0) {
        offsets[E] = begin + count;
        tile_count[0] = first_tile + mine;
    }
}

// launch: grid ceil_div(slots, BLOCK_SLOTS), block THREADS, registers 40
extern "C" __global__ void __launch_bounds__(THREADS) moe_dispatch_place(int* row_of_slot,     // [slots]
                                                                         int* slot_of_row,     // [slots]
                                                                         const int* choices,   // [slots]
                                                                         const int* in_block,  // [E, blocks], after the scan
                                                                         const int* offsets,   // [E + 1]
                                                                         int slots, int E) {
    __shared__ int of_warp[WARPS][MAX_EXPERTS];  // counts, then the row of a warp's first slot
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int e = lane; e < E; e += WARP) of_warp[warp][e] = 0;
    __syncwarp();  // the counts start from zero
    int expert[ROUNDS], rank[ROUNDS];
    rank_slots(expert, rank, of_warp[warp], choices, slots, E);
    __syncthreads();  // every warp has counted
    if (threadIdx.x < E) {
        int row = offsets[threadIdx.x] + in_block[(long long)threadIdx.x * gridDim.x + blockIdx.x];
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const int count = of_warp[w][threadIdx.x];
            of_warp[w][threadIdx.x] = row;
            row += count;
        }
    }
    __syncthreads();  // every warp knows its rows
    const long long first = ((long long)blockIdx.x * WARPS + warp) * ROUNDS * WARP + lane;
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        if (expert[r] >= E) continue;
        const int slot = first + r * WARP, row = of_warp[warp][expert[r]] + rank[r];
        row_of_slot[slot] = row;
        slot_of_row[row] = slot;
    }
}

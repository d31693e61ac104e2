// Embedding, forward and backward.  table, dtable: [V, H]   ids: [N], each in 0..V   y, dy: [N, H]
//   y[n] = table[ids[n]]      dtable[v] += sum of dy[n] over the n with ids[n] = v, in the order of n
// Bound by memory: forward reads N rows and writes them; backward reads dy, and reads and writes the rows of dtable that occur.
// Backward without atomics.  The positions n are sorted by id, stably, in two passes over digits of DIGIT_BITS bits: then equal ids
// are neighbours and in order.  A pass is two launches: each block counts the digits of its tile; then each block adds up the
// counts before its own and moves its tile's ids to their places.  In the sorted order a warp adds up a piece of PIECE positions in
// 128 columns.  Where an id's run begins, its sum goes to dtable at once; of an id that began in an earlier piece, the sum goes to
// partial[piece], and a last kernel adds these to dtable in the order of pieces.  So a frequent id is shared out among many warps.
// Saved for backward: ids.

#include "span.cuh"

#ifndef DIGIT_BITS  // at most 9; V is at most 2^(2 * DIGIT_BITS)
#define DIGIT_BITS 9
#endif
#ifndef TILE  // ids that a block sorts, a multiple of 512
#define TILE 4096
#endif
#ifndef PIECE  // sorted positions that a warp adds up, a multiple of 32
#define PIECE 64
#endif

constexpr int ROW_THREADS = 256;  // of the kernels that own rows by warps
constexpr int ROW_WARPS = ROW_THREADS / 32;
constexpr int WIDTH = 16 / sizeof(element);

constexpr int DIGITS = 1 << DIGIT_BITS;
constexpr int SORT_THREADS = 512;
constexpr int SORT_WARPS = SORT_THREADS / 32;
constexpr int SORT_ROUNDS = TILE / SORT_THREADS;  // ids of each thread

constexpr int COLUMNS = 4;            // of a lane: 16 bytes of dtable
constexpr int SLAB = 32 * COLUMNS;    // of a warp
constexpr int AT_ONCE = 8;            // rows of dy that a warp has under way

// A warp owns a row.
// launch: grid ceil_div(N, ROW_WARPS), block ROW_THREADS, registers 64
extern "C" __global__ void __launch_bounds__(ROW_THREADS) embedding_forward(element* y,            // [N, H]
                                                                            const element* table,  // [V, H]
                                                                            const int* ids,        // [N]
                                                                            int N, int H) {
    constexpr int ROUNDS = 4;  // vectors of a lane that are under way together
    const int n = blockIdx.x * ROW_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (n >= N) return;
    const element* from = table + (long long)ids[n] * H;
    element* to = y + (long long)n * H;
    if (!rows_aligned<WIDTH>(table, H) || !rows_aligned<WIDTH>(y, H)) {
        for (int c = lane; c < H; c += WARP) to[c] = from[c];
        return;
    }
    for (int first = lane * WIDTH; first < H; first += ROUNDS * WARP * WIDTH) {
        u32 words[ROUNDS][4];
#pragma unroll
        for (int i = 0; i < ROUNDS; i++)
            if (first + i * WARP * WIDTH < H) load_words(words[i], from + first + i * WARP * WIDTH);
#pragma unroll
        for (int i = 0; i < ROUNDS; i++)
            if (first + i * WARP * WIDTH < H) store_words(to + first + i * WARP * WIDTH, words[i]);
    }
}

// How often each digit occurs in each tile.
// launch: grid ceil_div(N, TILE), block SORT_THREADS, registers 32
extern "C" __global__ void __launch_bounds__(SORT_THREADS) embedding_count(int* counts,      // [tiles, DIGITS]
                                                                           const int* keys,  // [N]
                                                                           int N, int shift) {
    __shared__ int bins[DIGITS];
    for (int d = threadIdx.x; d < DIGITS; d += SORT_THREADS) bins[d] = 0;
    __syncthreads();  // the bins are empty
#pragma unroll
    for (int i = 0; i < SORT_ROUNDS; i++) {
        const int n = blockIdx.x * TILE + i * SORT_THREADS + threadIdx.x;
        if (n < N) atomicAdd(&bins[keys[n] >> shift & DIGITS - 1], 1);  // integers: their sum does not depend on the order
    }
    __syncthreads();  // everything is counted
    for (int d = threadIdx.x; d < DIGITS; d += SORT_THREADS) counts[(long long)blockIdx.x * DIGITS + d] = bins[d];
}

// The exclusive sum of one integer in each thread of a block, in the order of threads.
template <int BLOCK>
__device__ __forceinline__ int block_scan(int x, int* scratch) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int sum = x;
#pragma unroll
    for (int distance = 1; distance < WARP; distance *= 2) {
        const int left = __shfl_up_sync(ALL_LANES, sum, distance);
        if (lane >= distance) sum += left;
    }
    if (lane == WARP - 1) scratch[warp] = sum;
    __syncthreads();  // every warp's total is there
    int before = 0;
#pragma unroll
    for (int w = 0; w < BLOCK / WARP; w++) before += w < warp ? scratch[w] : 0;
    return before + sum - x;
}

// Moves keys to the places that their digits give them, equal digits in the order in which they stood.
// launch: grid ceil_div(N, TILE), block SORT_THREADS, registers 64
extern "C" __global__ void __launch_bounds__(SORT_THREADS)
    embedding_sort(int* sorted,        // [N]: the keys
                   int* order,         // [N]: where each one stood at first
                   const int* keys,    // [N]
                   const int* before,  // [N]: the order after the first pass; that pass itself, whose shift is 0, does not read it
                   const int* counts,  // [tiles, DIGITS]
                   int N, int shift) {
    constexpr int OWNED = ceil_div(DIGITS, SORT_THREADS);  // digits of a thread
    __shared__ int place[SORT_WARPS][DIGITS];              // counts of each warp, then where its next key of that digit goes
    __shared__ int scratch[SORT_WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, tiles = ceil_div(N, TILE);

    // A warp owns neighbouring keys: a key's rank among those of its digit in the warp.
    for (int d = lane; d < DIGITS; d += WARP) place[warp][d] = 0;
    __syncwarp();  // the warp's counts are 0
    int key[SORT_ROUNDS], position[SORT_ROUNDS], rank[SORT_ROUNDS];
    const int first = blockIdx.x * TILE + warp * WARP * SORT_ROUNDS + lane;
#pragma unroll
    for (int i = 0; i < SORT_ROUNDS; i++) {
        const int n = first + i * WARP;
        key[i] = n < N ? keys[n] : 0;
        position[i] = n < N && shift > 0 ? before[n] : n;
    }
#pragma unroll
    for (int i = 0; i < SORT_ROUNDS; i++) {
        const bool present = first + i * WARP < N;
        const int digit = present ? key[i] >> shift & DIGITS - 1 : DIGITS;
        const u32 peers = __match_any_sync(ALL_LANES, digit);
        if (present) rank[i] = place[warp][digit] + __popc(peers & (1u << lane) - 1);
        __syncwarp();  // all lanes have read their digit's count
        if (present && peers >> lane == 1) place[warp][digit] = rank[i] + 1;  // the last of its digit
        __syncwarp();  // the next round sees the counts
    }
    __syncthreads();  // every warp has counted

    // Before this tile's keys of digit d stand all keys of smaller digits, and those of digit d in earlier tiles.
    int total[OWNED], earlier[OWNED], all = 0;
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
        const int d = threadIdx.x * OWNED + i;
        total[i] = earlier[i] = 0;
        if (d >= DIGITS) continue;
        for (int t = 0; t < tiles; t++) {
            if (t == blockIdx.x) earlier[i] = total[i];
            total[i] += counts[(long long)t * DIGITS + d];
        }
        all += total[i];
    }
    int base = block_scan<SORT_THREADS>(all, scratch);
#pragma unroll
    for (int i = 0; i < OWNED; i++) {
        const int d = threadIdx.x * OWNED + i;
        if (d >= DIGITS) continue;
        int next = base + earlier[i];
        for (int w = 0; w < SORT_WARPS; w++) {
            const int count = place[w][d];
            place[w][d] = next;
            next += count;
        }
        base += total[i];
    }
    __syncthreads();  // every warp's places are known
#pragma unroll
    for (int i = 0; i < SORT_ROUNDS; i++) {
        if (first + i * WARP >= N) continue;
        const int to = place[warp][key[i] >> shift & DIGITS - 1] + rank[i];
        sorted[to] = key[i];
        order[to] = position[i];
    }
}

// to += sum, or to = sum, of one lane's columns of a row.
__device__ __forceinline__ void put(float* to, const float (&sum)[COLUMNS], int count, bool aligned, bool add) {
    float v[COLUMNS] = {};
    if (add) load_span<COLUMNS>(v, to, count, aligned);
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) v[j] += sum[j];
    store_span<COLUMNS>(to, v, count, aligned);
}

// A warp owns a piece of the sorted positions and a slab of columns.
// launch: grid ceil_div(ceil_div(N, PIECE) * ceil_div(H, SLAB), ROW_WARPS), block ROW_THREADS, registers 104
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    embedding_backward(float* dtable,           // [V, H]
                       float* partial,          // [ceil_div(N, PIECE), H]: of ids that began in an earlier piece
                       const element* dy,       // [N, H]
                       const int* sorted,       // [N]: the ids in order
                       const int* order,        // [N]: where each of them stands in ids
                       int N, int H) {
    const int unit = blockIdx.x * ROW_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int slabs = ceil_div(H, SLAB), piece = unit / slabs, column = unit % slabs * SLAB + lane * COLUMNS;
    const int begin = piece * PIECE, end = min(begin + PIECE, N);
    if (begin >= N) return;  // the whole warp
    const bool dy_aligned = rows_aligned<COLUMNS>(dy, H);
    const bool aligned = rows_aligned<COLUMNS>(dtable, H) && rows_aligned<COLUMNS>(partial, H);
    int current = sorted[begin];
    bool began_earlier = begin > 0 && sorted[begin - 1] == current;
    float* to = (began_earlier ? partial + (long long)piece * H : dtable + (long long)current * H) + column;
    float sum[COLUMNS] = {};
    for (int base = begin; base < end; base += WARP) {
        const bool present = base + lane < end;
        const int id = present ? sorted[base + lane] : -1;
        const int n = present ? order[base + lane] : 0;
        for (int first = 0; first < min(WARP, end - base); first += AT_ONCE) {
            float v[AT_ONCE][COLUMNS];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {  // positions beyond the end stand for row 0 and are not added
                const int row = __shfl_sync(ALL_LANES, n, first + i);
                load_span<COLUMNS>(v[i], dy + (long long)row * H + column, H - column, dy_aligned);
            }
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                const int next = __shfl_sync(ALL_LANES, id, first + i);
                if (next < 0) break;  // the same for the whole warp
                if (next != current) {
                    put(to, sum, H - column, aligned, !began_earlier);
                    to = dtable + (long long)next * H + column;
                    began_earlier = false;
                    current = next;
#pragma unroll
                    for (int j = 0; j < COLUMNS; j++) sum[j] = 0.0f;
                }
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) sum[j] += v[i][j];
            }
        }
    }
    put(to, sum, H - column, aligned, !began_earlier);
}

// A block owns a piece and a slab, and has something to do where the piece is the first that an id reaches after that in which it
// began.  Its warps share the id's pieces; their sums are added in order.
// launch: grid (ceil_div(N, PIECE), ceil_div(H, SLAB)), block ROW_THREADS, registers 64
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    embedding_backward_rest(float* dtable,         // [V, H]
                            const float* partial,  // [ceil_div(N, PIECE), H]
                            const int* sorted,     // [N]
                            int N, int H) {
    __shared__ float4 sums[ROW_WARPS][WARP];
    const int begin = blockIdx.x * PIECE, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int column = blockIdx.y * SLAB + lane * COLUMNS;
    const int id = sorted[begin];
    const bool reaches = begin > 0 && sorted[begin - 1] == id;
    const bool reached_before = begin > PIECE && sorted[begin - PIECE - 1] == id;
    if (!reaches || reached_before) return;  // the same for the whole block: no barrier is missed

    int low = blockIdx.x + 1, high = ceil_div(N, PIECE);  // the first piece that does not begin with this id, by halving
    while (low < high) {
        const int middle = (low + high) / 2;
        if (sorted[middle * PIECE] == id) low = middle + 1;
        else high = middle;
    }
    const int pieces = low - blockIdx.x, share = ceil_div(pieces, ROW_WARPS);
    const int first = blockIdx.x + warp * share, last = min(first + share, low);
    const bool aligned = rows_aligned<COLUMNS>(dtable, H) && rows_aligned<COLUMNS>(partial, H);
    float sum[COLUMNS] = {};
#pragma unroll 4
    for (int p = first; p < last; p++) {
        float v[COLUMNS];
        load_span<COLUMNS>(v, partial + (long long)p * H + column, H - column, aligned);
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) sum[j] += v[j];
    }
    sums[warp][lane] = make_float4(sum[0], sum[1], sum[2], sum[3]);
    __syncthreads();  // every warp's share is added up
    if (warp > 0) return;
    for (int w = 1; w < ROW_WARPS; w++) {
        const float4 other = sums[w][lane];
        sum[0] += other.x, sum[1] += other.y, sum[2] += other.z, sum[3] += other.w;
    }
    put(dtable + (long long)id * H + column, sum, H - column, aligned, true);
}

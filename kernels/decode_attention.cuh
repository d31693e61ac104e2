// Attention of a sequence's newest tokens to its cache: what decode_attention.cu and decode_latent.cu have in common.
//
// The query heads that share a key and value head, of all new tokens, are the rows of one problem, ROWS of them a block: the cache
// is read once for all. A block walks over its share of the keys in tiles that cp.async brings in ahead of their use. For each tile
// every warp computes the scores of its keys; the rows' maxima go through shared memory; then every warp weighs all values of the
// tile for its columns of the output. Products are mma.sync's for 16-bit elements, plain ones for float. Softmax works with powers
// of 2.
//
// Before it is included: KEY_DIM columns of a key, ROTARY_DIM more of them from a second array (0: none), VALUE_DIM, all multiples
// of 8; ROTARY_PER_HEAD: whether that array has them for each query head; VALUES_IN_KEYS: whether the values are the keys' first
// columns instead of an array of their own.
#pragma once

#include "async_copy.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
constexpr int ROWS = 16;                        // of one mma
constexpr int SPREAD = 16 / sizeof(element);    // one 16-byte vector

// Rows of shared memory are an odd number of vectors apart: then eight of them lie in different banks.
constexpr int KEY_WIDTH = KEY_DIM + (ROTARY_PER_HEAD ? 0 : ROTARY_DIM);  // what all heads share
constexpr int KEY_PADDED = ceil_div(KEY_WIDTH, 32) * 32;  // with zeros, to whole steps of two mma
constexpr int KEY_PITCH = KEY_PADDED + SPREAD;
constexpr int VALUE_PITCH = VALUES_IN_KEYS ? 0 : VALUE_DIM + (VALUE_DIM / SPREAD % 2 == 0 ? SPREAD : 0);
constexpr int KEY_BYTES = (KEY_WIDTH + (VALUES_IN_KEYS ? 0 : VALUE_DIM)) * sizeof(element);  // what the cache holds of a token
constexpr int TILE_KEYS = KEY_BYTES <= 512 ? 64 : 32;
constexpr int STAGES = KEY_BYTES <= 256 ? 3 : 2;
constexpr int SCORE_PITCH = TILE_KEYS + SPREAD;
constexpr int STAGE = TILE_KEYS * (KEY_PITCH + VALUE_PITCH);
constexpr int OWN_PITCH = ROTARY_PER_HEAD ? ROTARY_DIM + (ROTARY_DIM / SPREAD % 2 == 0 ? SPREAD : 0) : 0;
constexpr int QUERIES = ROWS * (KEY_PITCH + OWN_PITCH);
constexpr int SHARED = (STAGES * STAGE + QUERIES + ROWS * SCORE_PITCH) * sizeof(element) + WARPS * ROWS * sizeof(float);

constexpr int KEY_TILES = TILE_KEYS / 8 / WARPS;                 // mma tiles of 8 keys that a warp scores
constexpr int VALUE_TILES = ceil_div(ceil_div(VALUE_DIM, 8), WARPS);  // mma tiles of 8 columns that a warp sums

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

// What a block attends with, and to.
struct Share {
    const element* keys;    // [capacity, key_pitch], from the sequence's first on
    const element* rotary;  // [capacity, rotary_pitch]; a head's ROTARY_DIM columns follow another's if they have their own
    const element* values;  // [capacity, value_pitch]
    int key_pitch, rotary_pitch, value_pitch;
    int begin, end;         // keys
    int seen[2];            // how many keys rows lane / 4 and lane / 4 + 8 may see
    int heads[2];           // which heads they are of
    float scale;            // times log2(e)
};

// Neighbours that are stored together.
template <typename T>
struct alignas(2 * sizeof(T)) Pair {
    T at[2];
};

// Result for rows lane / 4 and lane / 4 + 8: values not yet divided by the sum, columns 8 (warp + WARPS i) + 2 (lane % 4) and the
// next.
struct Result {
    float max[2], sum[2], values[VALUE_TILES][4];
};

// COUNT rows of COLUMNS elements; those from `present` on become zeros.
template <int COUNT, int COLUMNS>
__device__ __forceinline__ void copy_rows(element* to, int to_pitch, const element* from, int from_pitch, int present) {
    if constexpr (COLUMNS > 0) {
        constexpr int VECTORS = COLUMNS / SPREAD;
        for (int i = threadIdx.x; i < COUNT * VECTORS; i += THREADS) {
            int row = i / VECTORS, column = i % VECTORS * SPREAD;
            if (VECTORS % 8 == 4) {
                // Eight lanes write all banks once: four vectors of a row and four of the fourth row after it, not eight across a
                // row's end.
                const int run = i / 4;
                row = run / (2 * VECTORS) * 8 + run % 2 * 4 + run % 8 / 2;
                column = (run / 8 % (VECTORS / 4) * 4 + i % 4) * SPREAD;
            }
            const bool inside = row < present;
            copy_async_16(shared_address(to + row * to_pitch + column), from + (inside ? (long long)row * from_pitch : 0) + column,
                          inside ? 16 : 0);
        }
    }
}

__device__ __forceinline__ void copy_tile(element* stage, const Share& share, int first) {
    const int present = share.end - first;
    copy_rows<TILE_KEYS, KEY_DIM>(stage, KEY_PITCH, share.keys + (long long)first * share.key_pitch, share.key_pitch, present);
    copy_rows<TILE_KEYS, KEY_WIDTH - KEY_DIM>(stage + KEY_DIM, KEY_PITCH, share.rotary + (long long)first * share.rotary_pitch,
                                     share.rotary_pitch, present);
    copy_rows<TILE_KEYS, VALUES_IN_KEYS ? 0 : VALUE_DIM>(stage + TILE_KEYS * KEY_PITCH, VALUE_PITCH,
                                                         share.values + (long long)first * share.value_pitch, share.value_pitch,
                                                         present);
}

// The columns from KEY_WIDTH to KEY_PADDED, of queries and keys: no copy ever writes there.
__device__ __forceinline__ void clear_padding(element* rows, int count) {
    for (int row = threadIdx.x; row < count; row += THREADS)
        for (int column = KEY_WIDTH; column < KEY_PADDED; column++) rows[row * KEY_PITCH + column] = from_float<element>(0.0f);
}

// scores [ROWS, 8 keys] of each of the warp's tiles, as mma lays them out; `keys` are the warp's.
template <typename T>
__device__ __forceinline__ void score(float (&scores)[KEY_TILES][4], const T* queries, const T* keys) {
    const int lane = threadIdx.x % WARP;
    if constexpr (sizeof(T) == 2) {
#pragma unroll 4
        for (int k = 0; k < KEY_PADDED; k += 32) {
            u32 a[2][4];
#pragma unroll
            for (int half_step = 0; half_step < 2; half_step++)
                ldmatrix_x4(a[half_step], shared_address(queries + lane % 16 * KEY_PITCH + k + 16 * half_step + lane / 16 * 8));
#pragma unroll
            for (int n = 0; n < KEY_TILES; n++) {
                u32 b[4];
                ldmatrix_x4(b, shared_address(keys + (8 * n + lane % 8) * KEY_PITCH + k + lane / 8 * 8));
                mma_m16n8k16<T>(scores[n], a[0], b[0], b[1]);
                mma_m16n8k16<T>(scores[n], a[1], b[2], b[3]);
            }
        }
    } else {
        for (int k = 0; k < KEY_PADDED; k += 4)
#pragma unroll
            for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const Vector<T> q = load_vector(queries + (lane / 4 + j / 2 * 8) * KEY_PITCH + k);
                    const Vector<T> key = load_vector(keys + (8 * n + lane % 4 * 2 + j % 2) * KEY_PITCH + k);
                    for (int i = 0; i < 4; i++) scores[n][j] = fmaf(q.at[i], key.at[i], scores[n][j]);
                }
    }
}

// Adds what the heads' own columns contribute to the scores of keys first, first + 1 and so on. They are used once, and so come
// straight from memory.
__device__ __forceinline__ void add_own(float (&scores)[KEY_TILES][4], const element* queries, const Share& share, int first) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int key = first + 8 * n + lane % 4 * 2 + j % 2;
            if (key >= min(share.end, share.seen[j / 2])) continue;
            const element* const own = share.rotary + (long long)key * share.rotary_pitch + share.heads[j / 2] * ROTARY_DIM;
            for (int k = 0; k < ROTARY_DIM; k += SPREAD) {
                const Vector<element> a = load_vector(queries + (lane / 4 + j / 2 * 8) * OWN_PITCH + k), b = load_vector(own + k);
#pragma unroll
                for (int i = 0; i < SPREAD; i++) scores[n][j] = fmaf(to_float(a.at[i]), to_float(b.at[i]), scores[n][j]);
            }
        }
}

// sums += weights [ROWS, TILE_KEYS] times values [TILE_KEYS, VALUE_DIM], of the warp's columns.
template <typename T>
__device__ __forceinline__ void weigh(float (&sums)[VALUE_TILES][4], const T* weights, const T* values) {
    constexpr int PITCH = VALUES_IN_KEYS ? KEY_PITCH : VALUE_PITCH;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    if constexpr (sizeof(T) == 2) {
        u32 a[TILE_KEYS / 16][4];
#pragma unroll
        for (int k = 0; k < TILE_KEYS / 16; k++)
            ldmatrix_x4(a[k], shared_address(weights + lane % 16 * SCORE_PITCH + 16 * k + lane / 16 * 8));
#pragma unroll
        for (int i = 0; i < VALUE_TILES; i++) {
            const int column = 8 * (warp + WARPS * i);
            if (column >= VALUE_DIM) break;
#pragma unroll
            for (int k = 0; k < TILE_KEYS / 16; k += 2) {
                u32 b[4];
                ldmatrix_x4_trans(b, shared_address(values + (16 * k + lane) * PITCH + column));
                mma_m16n8k16<T>(sums[i], a[k], b[0], b[1]);
                mma_m16n8k16<T>(sums[i], a[k + 1], b[2], b[3]);
            }
        }
    } else {
        for (int k = 0; k < TILE_KEYS; k++) {
            const float weight[2] = {weights[lane / 4 * SCORE_PITCH + k], weights[(lane / 4 + 8) * SCORE_PITCH + k]};
#pragma unroll
            for (int i = 0; i < VALUE_TILES; i++) {
                const int column = 8 * (warp + WARPS * i);
                if (column >= VALUE_DIM) break;
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sums[i][j] = fmaf(weight[j / 2], values[k * PITCH + column + lane % 4 * 2 + j % 2], sums[i][j]);
            }
        }
    }
}

// The block's share, begin < end. The copies of the queries, ROWS rows at the front of `shared`, are under way and not yet
// committed.
__device__ __forceinline__ void attend(Result& result, unsigned char* shared, const Share& share) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    element* const queries = reinterpret_cast<element*>(shared);
    element* const weights = queries + QUERIES;
    element* const stages = weights + ROWS * SCORE_PITCH;
    float* const maxima = reinterpret_cast<float*>(stages + STAGES * STAGE);  // [WARPS, ROWS]
    const int tiles = ceil_div(share.end - share.begin, TILE_KEYS);

    for (int tile = 0; tile < STAGES - 1; tile++) {
        if (tile < tiles) copy_tile(stages + tile * STAGE, share, share.begin + tile * TILE_KEYS);
        copy_async_commit();
    }
    clear_padding(queries, ROWS);
    for (int stage = 0; stage < STAGES; stage++) clear_padding(stages + stage * STAGE, TILE_KEYS);
    for (int r = 0; r < 2; r++) {
        result.max[r] = minus_infinity();
        result.sum[r] = 0.0f;
    }
    for (int i = 0; i < VALUE_TILES; i++)
        for (int j = 0; j < 4; j++) result.values[i][j] = 0.0f;

    for (int tile = 0; tile < tiles; tile++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();  // everybody's copies of this tile are there, and nobody reads the previous tile or its weights any more
        const int ahead = tile + STAGES - 1;
        if (ahead < tiles) copy_tile(stages + ahead % STAGES * STAGE, share, share.begin + ahead * TILE_KEYS);
        copy_async_commit();
        const element* const keys = stages + tile % STAGES * STAGE;

        float scores[KEY_TILES][4] = {};
        const int mine = warp * KEY_TILES * 8;
        score(scores, queries, keys + mine * KEY_PITCH);
        if (ROTARY_PER_HEAD) add_own(scores, queries + ROWS * KEY_PITCH, share, share.begin + tile * TILE_KEYS + mine);
        float most[2] = {minus_infinity(), minus_infinity()};
#pragma unroll
        for (int n = 0; n < KEY_TILES; n++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int key = share.begin + tile * TILE_KEYS + mine + 8 * n + lane % 4 * 2 + j % 2;
                scores[n][j] = key < min(share.end, share.seen[j / 2]) ? scores[n][j] * share.scale : minus_infinity();
                most[j / 2] = fmaxf(most[j / 2], scores[n][j]);
            }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            most[r] = warp_max<4>(most[r]);
            if (lane % 4 == 0) maxima[warp * ROWS + lane / 4 + 8 * r] = most[r];
        }
        __syncthreads();  // every warp's maxima are there

        float shrink[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float max = result.max[r];
#pragma unroll
            for (int w = 0; w < WARPS; w++) max = fmaxf(max, maxima[w * ROWS + lane / 4 + 8 * r]);
            const float base = max == minus_infinity() ? 0.0f : max;  // a row that sees no key yet
            shrink[r] = exp2f(result.max[r] - base);
            result.max[r] = max;
            result.sum[r] *= shrink[r];
#pragma unroll
            for (int n = 0; n < KEY_TILES; n++) {
                element* const to = weights + (lane / 4 + 8 * r) * SCORE_PITCH + mine + 8 * n + lane % 4 * 2;
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const float weight = exp2f(scores[n][2 * r + j] - base);
                    result.sum[r] += weight;
                    to[j] = from_float<element>(weight);
                }
            }
        }
        __syncthreads();  // all weights of the tile are there

#pragma unroll
        for (int i = 0; i < VALUE_TILES; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) result.values[i][j] *= shrink[j / 2];
        weigh(result.values, weights, VALUES_IN_KEYS ? keys : keys + TILE_KEYS * KEY_PITCH);
    }

    // A row's sum is spread over the four lanes of a row and the warps.
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float sum = warp_sum<4>(result.sum[r]);
        if (lane % 4 == 0) maxima[warp * ROWS + lane / 4 + 8 * r] = sum;  // the barrier above: nobody reads the maxima any more
    }
    __syncthreads();  // every warp's sums are there
#pragma unroll
    for (int r = 0; r < 2; r++) {
        result.sum[r] = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) result.sum[r] += maxima[w * ROWS + lane / 4 + 8 * r];
    }
}

// Row r of a block's ROWS: the new token and the head it belongs to; `total` counts rows of one key and value head.
struct Place {
    int token, head;
    bool exists;
};

__device__ __forceinline__ Place place_of(int r, int group, int new_tokens, int kv_heads) {
    const int row_blocks = gridDim.y / kv_heads, kv_head = blockIdx.y / row_blocks;
    const int row = blockIdx.y % row_blocks * ROWS + r;
    return {row / group, kv_head * group + row % group, row < group * new_tokens};
}

// Writes the result of one of `splits` shares: the output itself where there is one share only.
__device__ __forceinline__ void store_result(element* o, float* partial, float* stats, const Result& result, int group,
                                             int new_tokens, int heads, int kv_heads, int splits) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const Place place = place_of(lane / 4 + 8 * r, group, new_tokens, kv_heads);
        if (!place.exists) continue;
        const long long row = ((long long)blockIdx.z * new_tokens + place.token) * heads + place.head;
        const long long split_row = (long long)blockIdx.x * gridDim.z * new_tokens * heads + row;
        if (splits > 1 && lane % 4 == 0 && warp == 0) {
            stats[2 * split_row] = result.max[r];
            stats[2 * split_row + 1] = result.sum[r];
        }
#pragma unroll
        for (int i = 0; i < VALUE_TILES; i++) {
            const int column = 8 * (warp + WARPS * i) + lane % 4 * 2;
            if (column >= VALUE_DIM) break;
            const float* const values = &result.values[i][2 * r];
            const float sum = result.sum[r];
            if (splits > 1)
                *reinterpret_cast<Pair<float>*>(partial + split_row * VALUE_DIM + column) = {values[0], values[1]};
            else
                *reinterpret_cast<Pair<element>*>(o + row * VALUE_DIM + column) = {from_float<element>(values[0] / sum),
                                                                                  from_float<element>(values[1] / sum)};
        }
    }
}

// COLUMNS of the queries of the block's rows, from the sequence's first new token on; rows that do not exist become zeros.
template <int COLUMNS>
__device__ __forceinline__ void copy_queries(element* to, int to_pitch, const element* from, int pitch, int stride, int group,
                                             int new_tokens, int kv_heads) {
    if constexpr (COLUMNS > 0) {
        constexpr int VECTORS = COLUMNS / SPREAD;
        for (int i = threadIdx.x; i < ROWS * VECTORS; i += THREADS) {
            const int row = i / VECTORS, column = i % VECTORS * SPREAD;
            const Place place = place_of(row, group, new_tokens, kv_heads);
            const long long at = place.exists ? (long long)place.token * pitch + (long long)place.head * stride : 0;
            copy_async_16(shared_address(to + row * to_pitch + column), from + at + column, place.exists ? 16 : 0);
        }
    }
}

// Attention of the block: its share of the keys for its rows. `q` and `q_rotary` begin with the sequence's new tokens.
__device__ __forceinline__ void attend_share(element* o, float* partial, float* stats, const element* q, const element* q_rotary,
                                             Share share, int length, int new_tokens, int heads, int kv_heads, int q_pitch,
                                             int q_rotary_pitch, int q_rotary_stride, int splits, unsigned char* shared) {
    const int lane = threadIdx.x % WARP, group = heads / kv_heads;
    const int keys = ceil_div(ceil_div(length, TILE_KEYS), splits) * TILE_KEYS;
    share.begin = blockIdx.x * keys;
    share.end = min(length, share.begin + keys);
    for (int r = 0; r < 2; r++) {
        const Place place = place_of(lane / 4 + 8 * r, group, new_tokens, kv_heads);
        share.seen[r] = place.exists ? length - new_tokens + place.token + 1 : 0;
        share.heads[r] = place.head;
    }
    Result result = {{minus_infinity(), minus_infinity()}};
    if (share.begin < share.end) {
        element* const queries = reinterpret_cast<element*>(shared);
        copy_queries<KEY_DIM>(queries, KEY_PITCH, q, q_pitch, KEY_DIM, group, new_tokens, kv_heads);
        element* const rotary = queries + (ROTARY_PER_HEAD ? ROWS * KEY_PITCH : KEY_DIM);
        copy_queries<ROTARY_DIM>(rotary, ROTARY_PER_HEAD ? OWN_PITCH : KEY_PITCH, q_rotary, q_rotary_pitch, q_rotary_stride, group,
                                 new_tokens, kv_heads);
        attend(result, shared, share);
    }
    store_result(o, partial, stats, result, group, new_tokens, heads, kv_heads, splits);
}

// Row blockIdx.x of the output from the shares' results, added in their order.
__device__ __forceinline__ void combine_shares(element* o, const float* partial, const float* stats, int rows, int splits) {
    const int row = blockIdx.x, lane = threadIdx.x % WARP;
    float max = minus_infinity();
    for (int s = lane; s < splits; s += WARP) max = fmaxf(max, stats[2 * ((long long)s * rows + row)]);
    max = warp_max(max);
    float sum = 0.0f;
    for (int column = threadIdx.x; column - threadIdx.x < VALUE_DIM; column += blockDim.x) {
        float value = 0.0f;
        sum = 0.0f;
        for (int first = 0; first < splits; first += WARP) {
            // Lane l knows share first + l.
            const bool known = first + lane < splits;
            const long long at = 2 * ((long long)(first + lane) * rows + row);
            const float weight = known ? exp2f(stats[at] - max) : 0.0f;
            sum += warp_sum(known ? weight * stats[at + 1] : 0.0f);
            for (int s = 0; s < min(WARP, splits - first); s++) {
                const float of_share = __shfl_sync(ALL_LANES, weight, s);  // 0 where the share had no key: it wrote zeros
                const long long from = ((long long)(first + s) * rows + row) * VALUE_DIM + column;
                if (column < VALUE_DIM) value = fmaf(of_share, partial[from], value);
            }
        }
        if (column < VALUE_DIM) o[(long long)row * VALUE_DIM + column] = from_float<element>(value / sum);
    }
}

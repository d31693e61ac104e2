// Causal attention forward, rung 3: the queries of a block share their keys and values in shared memory.
//   o = softmax(scale q k^T) v over the keys at or before each query     q: [B T, heads D]   k, v: [B T, kv_heads D or DV]
//   lse[row] = log sum_j exp(scale q k_j)
// ROWS queries of one key head read each tile of KEYS keys and values once for all: 14 times fewer sectors. The loads are also
// by 16 bytes, and all of the block's threads wait together for them, twice a tile.
#include "ladder/attention/query.cuh"

constexpr int ROWS = 16;
constexpr int WARPS = ROWS;
constexpr int THREADS = WARPS * 32;
constexpr int KEYS = 32;
#define SHARED_BYTES ((KEYS * (HEAD_DIM + VALUE_DIM)) * sizeof(element))

// Rows of WIDTH columns, from that of `key0` on as far as there are any, to shared memory in rows of PITCH.
template <int WIDTH, int PITCH>
__device__ __forceinline__ void load_tile(element* tile, const element* from, int key0, int T, int pitch) {
    constexpr int UNIT = Vector<element>::SIZE, UNITS = WIDTH / UNIT;
    for (int at = threadIdx.x; at < KEYS * UNITS; at += THREADS) {
        const int key = at / UNITS, c = at % UNITS * UNIT;
        if (key0 + key < T) store_vector(tile + key * PITCH + c, load_vector(from + (long long)(key0 + key) * pitch + c));
    }
}

// launch: grid (ceil_div(T * (heads / kv_heads), WARPS), kv_heads, B), block THREADS, shared SHARED_BYTES, registers 128
extern "C" __global__ void __launch_bounds__(THREADS, 1)
attention_forward(element* o,                             // [B T, heads VALUE_DIM]
                  float* lse,                             // [B, kv_heads, T heads / kv_heads]
                  const element* q,                       // [B T, q_pitch], heads HEAD_DIM of each row
                  const element* k,                       // [B T, k_pitch], kv_heads HEAD_DIM of each row
                  const element* v,                       // [B T, v_pitch], kv_heads VALUE_DIM of each row
                  const int* document_starts,             // [B, T] first token of each token's document, if DOCUMENTS
                  const int* attention_mask,              // [B, T] 0 where a token is padding, if PADDING
                  const unsigned long long* philox_key,   // [1] if DROPOUT
                  const unsigned long long* sample_ids,   // [B] if DROPOUT
                  int B, int T, int heads, int kv_heads, int q_pitch, int k_pitch, int v_pitch,
                  float scale, unsigned dropped_below,    // p 2^32
                  float kept_scale) {                     // 1 / (1 - p)
    extern __shared__ __align__(16) unsigned char shared[];
    element* const keys = reinterpret_cast<element*>(shared);
    element* const values = keys + KEYS * HEAD_DIM;
    const int group = heads / kv_heads, row = blockIdx.x * WARPS + threadIdx.x / WARP;
    const bool exists = row < T * group;
    const Query query(row, T, group, document_starts, attention_mask, philox_key, sample_ids, dropped_below, kept_scale);
    Columns<HEAD_DIM> own;
    own.each([&](float& x, int c) { x = to_float(q[(query.token0 + query.token) * q_pitch + query.head * HEAD_DIM + c]); });

    // Rows are in the order of tokens: the first looks back furthest, the last has the latest keys.
    const int first_token = blockIdx.x * WARPS / group, last_token = min((blockIdx.x * WARPS + WARPS - 1) / group, T - 1);
    const int first_tile = DOCUMENTS ? document_starts[query.token0 + first_token] / KEYS : 0;
    float max = minus_infinity(), total = 0.0f;
    Columns<VALUE_DIM> sum;
    for (int key0 = first_tile * KEYS; key0 <= last_token; key0 += KEYS) {
        __syncthreads();  // nobody reads the tile before any more
        load_tile<HEAD_DIM, HEAD_DIM>(keys, k + query.token0 * k_pitch + blockIdx.y * HEAD_DIM, key0, T, k_pitch);
        load_tile<VALUE_DIM, VALUE_DIM>(values, v + query.token0 * v_pitch + blockIdx.y * VALUE_DIM, key0, T, v_pitch);
        __syncthreads();  // the tile is there
        for (int key = key0; key < min(key0 + KEYS, query.token + 1); key++) {
            if (!query.sees(key)) continue;
            const element* const key_at = keys + (key - key0) * HEAD_DIM;
            const element* const value_at = values + (key - key0) * VALUE_DIM;
            float dot = 0.0f;
            own.each([&](float& x, int c) { dot = fmaf(x, to_float(key_at[c]), dot); });
            const float score = warp_sum(dot) * scale, before = max;
            max = fmaxf(max, score);
            const float rescale = expf(before - max), p = expf(score - max), kept = p * query.kept(key);
            total = fmaf(total, rescale, p);
            sum.each([&](float& x, int c) { x = fmaf(x, rescale, kept * to_float(value_at[c])); });
        }
    }
    if (exists) query.store(o, lse, sum, max, total, T, heads, kv_heads);
}

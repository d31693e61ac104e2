// Causal attention forward, rung 1: a warp for each query, which walks over its keys three times.
//   o = softmax(scale q k^T) v over the keys at or before each query     q: [B T, heads D]   k, v: [B T, kv_heads D or DV]
//   lse[row] = log sum_j exp(scale q k_j)
// The first walk finds the largest score, the second the sum of the exponentials, the third adds up the values. A lane owns each 32nd
// column of a head, so that a score is a sum over the warp; keeping the scores instead would take T x T of memory.
#include "ladder/attention/query.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * 32;

// launch: grid (ceil_div(T * (heads / kv_heads), WARPS), kv_heads, B), block THREADS, registers 128
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
    const int group = heads / kv_heads, row = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (row >= T * group) return;  // a whole warp, and no barrier follows
    const Query query(row, T, group, document_starts, attention_mask, philox_key, sample_ids, dropped_below, kept_scale);
    Columns<HEAD_DIM> own;
    own.each([&](float& x, int c) { x = to_float(q[(query.token0 + query.token) * q_pitch + query.head * HEAD_DIM + c]); });
    auto score = [&](int key) {
        const element* const from = k + (query.token0 + key) * k_pitch + blockIdx.y * HEAD_DIM;
        float dot = 0.0f;
        own.each([&](float& x, int c) { dot = fmaf(x, to_float(from[c]), dot); });
        return warp_sum(dot) * scale;
    };

    float max = minus_infinity();
    for (int key = query.first_key; key <= query.token; key++)
        if (query.sees(key)) max = fmaxf(max, score(key));
    float total = 0.0f;
    for (int key = query.first_key; key <= query.token; key++)
        if (query.sees(key)) total += expf(score(key) - max);
    Columns<VALUE_DIM> sum;
    for (int key = query.first_key; key <= query.token; key++) {
        if (!query.sees(key)) continue;
        const float p = expf(score(key) - max) * query.kept(key);
        const element* const from = v + (query.token0 + key) * v_pitch + blockIdx.y * VALUE_DIM;
        sum.each([&](float& x, int c) { x = fmaf(p, to_float(from[c]), x); });
    }
    query.store(o, lse, sum, max, total, T, heads, kv_heads);
}

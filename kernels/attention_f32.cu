// Causal attention with grouped queries in plain loops, forward and backward, for element = float, which the tensor cores do not
// multiply: the prototypes and formulas of attention_forward.cu and attention_backward.cu, every product and sum in float.
// Bound by arithmetic, far from what the machine can do. A warp owns a row (attention.cuh), or in attention_backward_keys a key,
// and takes the keys, or the rows, that it meets 32 at a time: a lane makes the dots of one, then all lanes add up columns.
#include "attention.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * 32;

// WIDTH columns, among which a lane owns each 32nd.
template <int WIDTH>
struct Columns {
    float at[(WIDTH + WARP - 1) / WARP] = {};

    __device__ __forceinline__ void scale(float factor) {
        for (float& x : at) x *= factor;
    }
    // Adds weight times a row, for the row and weight of each lane in turn. Lanes without a row have weight 0.
    __device__ __forceinline__ void add(float weight, const element* row) {
#pragma unroll 4
        for (int i = 0; i < WARP; i++) {
            const float w = __shfl_sync(ALL_LANES, weight, i);
            const element* r = reinterpret_cast<const element*>(__shfl_sync(ALL_LANES, reinterpret_cast<u64>(row), i));
            if (w == 0.0f) continue;
#pragma unroll
            for (int c = threadIdx.x % WARP; c < WIDTH; c += WARP) at[c / WARP] = fmaf(w, to_float(r[c]), at[c / WARP]);
        }
    }
    __device__ __forceinline__ void store(element* row, float factor) const {
#pragma unroll
        for (int c = threadIdx.x % WARP; c < WIDTH; c += WARP) row[c] = from_float<element>(at[c / WARP] * factor);
    }
};

template <int WIDTH>
__device__ __forceinline__ float dot(const element* a, const element* b) {
    constexpr int SIZE = Vector<element>::SIZE;
    float sums[SIZE] = {};
#pragma unroll 4
    for (int c = 0; c < WIDTH; c += SIZE) {
        const auto x = load_vector(a + c), y = load_vector(b + c);
#pragma unroll
        for (int i = 0; i < SIZE; i++) sums[i] = fmaf(to_float(x.at[i]), to_float(y.at[i]), sums[i]);
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < SIZE; i++) sum += sums[i];
    return sum;
}

// What the probability of `key` for a query is multiplied by.
__device__ __forceinline__ float kept(const Dropout& dropout, int token, int head, int key, float kept_scale) {
    if (!DROPOUT) return 1.0f;
    const Words random = philox_words(dropout.philox, key / 64 * 16 + key % 16, token, head, 0);
    const int word = key / 16 % 4;
    const u32 bits = word == 0 ? random.at[0] : word == 1 ? random.at[1] : word == 2 ? random.at[2] : random.at[3];
    return bits >= dropout.threshold ? kept_scale : 0.0f;
}

// launch: grid (ceil_div(T * (heads / kv_heads), WARPS), kv_heads, B), block THREADS, registers 128
extern "C" __global__ void __launch_bounds__(THREADS, 4)
attention_forward(element* o,                             // [B T, heads VALUE_DIM]
                  float* lse,                             // [B, kv_heads, T heads / kv_heads]
                  const element* q,                       // [B T, q_pitch], heads HEAD_DIM of each row
                  const element* k,                       // [B T, k_pitch], kv_heads HEAD_DIM of each row
                  const element* v,                       // [B T, v_pitch], kv_heads VALUE_DIM of each row
                  const int* document_starts,             // [B, T] first token of each token's document, if DOCUMENTS
                  const int* attention_mask,              // [B, T] 0 where a token is padding, if PADDING
                  const unsigned long long* philox_key,   // [1] if DROPOUT
                  const unsigned long long* sample_ids,   // [B] if DROPOUT
                  int B, int T, int heads, int kv_heads, int q_pitch, int k_pitch, int v_pitch,  // pitches: multiples of 8
                  float scale, unsigned dropped_below,    // p 2^32
                  float kept_scale) {                     // 1 / (1 - p)
    const int lane = threadIdx.x % WARP, sequence = blockIdx.z, kv_head = blockIdx.y, group = heads / kv_heads;
    const int row = blockIdx.x * WARPS + threadIdx.x / WARP, token = row / group, head = kv_head * group + row % group;
    if (token >= T) return;  // a whole warp, and no barrier follows
    const long long token0 = (long long)sequence * T;
    Dropout dropout = {{0}, dropped_below};
    if (DROPOUT) dropout.philox = philox_stream({philox_key[0]}, sample_ids[sequence]);
    const element* q_row = q + (token0 + token) * q_pitch + head * HEAD_DIM;

    Columns<VALUE_DIM> sum;
    float max = minus_infinity(), total = 0.0f;
    for (int key0 = DOCUMENTS ? document_starts[token0 + token] : 0; key0 <= token; key0 += WARP) {
        const int key = key0 + lane;
        const bool seen = key <= token && (!PADDING || attention_mask[token0 + key] != 0);
        const float s = seen ? dot<HEAD_DIM>(q_row, k + (token0 + key) * k_pitch + kv_head * HEAD_DIM) * scale : minus_infinity();
        const float before = max;
        max = fmaxf(max, warp_max(s));
        if (max == minus_infinity()) continue;  // no key yet
        const float rescale = expf(before - max), p = expf(s - max);
        total = total * rescale + warp_sum(p);
        sum.scale(rescale);
        sum.add(p * kept(dropout, token, head, key, kept_scale), v + (token0 + key) * v_pitch + kv_head * VALUE_DIM);
    }
    sum.store(o + ((token0 + token) * heads + head) * VALUE_DIM, total == 0.0f ? 0.0f : 1.0f / total);
    const long long at = ((long long)sequence * kv_heads + kv_head) * T * group + row;
    if (lane == 0) lse[at] = total == 0.0f ? -minus_infinity() : max + logf(total);
}

// launch: grid (ceil_div(T * (heads / kv_heads), WARPS), kv_heads, B), block THREADS, registers 128
extern "C" __global__ void __launch_bounds__(THREADS, 4)
attention_backward_queries(element* dq,                            // [B T, dq_pitch], heads HEAD_DIM of each row
                           float* delta,                           // [B, kv_heads, T heads / kv_heads]
                           const element* q,                       // [B T, q_pitch], heads HEAD_DIM of each row
                           const element* k,                       // [B T, k_pitch], kv_heads HEAD_DIM of each row
                           const element* v,                       // [B T, v_pitch], kv_heads VALUE_DIM of each row
                           const element* o,                       // [B T, heads VALUE_DIM]
                           const element* d_o,                     // [B T, heads VALUE_DIM]
                           const float* lse,                       // [B, kv_heads, T heads / kv_heads]
                           const int* document_starts,             // [B, T] first token of each token's document, if DOCUMENTS
                           const int* attention_mask,              // [B, T] 0 where a token is padding, if PADDING
                           const unsigned long long* philox_key,   // [1] if DROPOUT
                           const unsigned long long* sample_ids,   // [B] if DROPOUT
                           int B, int T, int heads, int kv_heads, int dq_pitch, int q_pitch, int k_pitch, int v_pitch,
                           float scale, unsigned dropped_below,    // p 2^32
                           float kept_scale) {                     // 1 / (1 - p)
    const int lane = threadIdx.x % WARP, sequence = blockIdx.z, kv_head = blockIdx.y, group = heads / kv_heads;
    const int row = blockIdx.x * WARPS + threadIdx.x / WARP, token = row / group, head = kv_head * group + row % group;
    if (token >= T) return;  // a whole warp, and no barrier follows
    const long long token0 = (long long)sequence * T, at = ((long long)sequence * kv_heads + kv_head) * T * group + row;
    Dropout dropout = {{0}, dropped_below};
    if (DROPOUT) dropout.philox = philox_stream({philox_key[0]}, sample_ids[sequence]);
    const element* q_row = q + (token0 + token) * q_pitch + head * HEAD_DIM;
    const element* o_row = o + ((token0 + token) * heads + head) * VALUE_DIM;
    const element* d_o_row = d_o + ((token0 + token) * heads + head) * VALUE_DIM;

    const float row_lse = lse[at], row_delta = dot<VALUE_DIM>(o_row, d_o_row);
    if (lane == 0) delta[at] = row_delta;
    Columns<HEAD_DIM> sum;
    for (int key0 = DOCUMENTS ? document_starts[token0 + token] : 0; key0 <= token; key0 += WARP) {
        const int key = key0 + lane;
        const bool seen = key <= token && (!PADDING || attention_mask[token0 + key] != 0);
        const element* k_row = k + (token0 + key) * k_pitch + kv_head * HEAD_DIM;
        float ds = 0.0f;
        if (seen) {
            const float p = expf(dot<HEAD_DIM>(q_row, k_row) * scale - row_lse);
            const float dp = dot<VALUE_DIM>(d_o_row, v + (token0 + key) * v_pitch + kv_head * VALUE_DIM);
            ds = p * (dp * kept(dropout, token, head, key, kept_scale) - row_delta);
        }
        sum.add(ds, k_row);
    }
    sum.store(dq + (token0 + token) * dq_pitch + head * HEAD_DIM, scale);
}

// launch: grid (ceil_div(T, WARPS), kv_heads, B), block THREADS, registers 128
extern "C" __global__ void __launch_bounds__(THREADS, 4)
attention_backward_keys(element* dk,                            // [B T, dk_pitch], kv_heads HEAD_DIM of each row
                        element* dv,                            // [B T, dv_pitch], kv_heads VALUE_DIM of each row
                        const element* q,                       // [B T, q_pitch], heads HEAD_DIM of each row
                        const element* k,                       // [B T, k_pitch], kv_heads HEAD_DIM of each row
                        const element* v,                       // [B T, v_pitch], kv_heads VALUE_DIM of each row
                        const element* d_o,                     // [B T, heads VALUE_DIM]
                        const float* lse,                       // [B, kv_heads, T heads / kv_heads]
                        const float* delta,                     // [B, kv_heads, T heads / kv_heads]
                        const int* document_ends,               // [B, T] one past each token's document, if DOCUMENTS
                        const int* attention_mask,              // [B, T] 0 where a token is padding, if PADDING
                        const unsigned long long* philox_key,   // [1] if DROPOUT
                        const unsigned long long* sample_ids,   // [B] if DROPOUT
                        int B, int T, int heads, int kv_heads, int dk_pitch, int dv_pitch, int q_pitch, int k_pitch, int v_pitch,
                        float scale, unsigned dropped_below,    // p 2^32
                        float kept_scale) {                     // 1 / (1 - p)
    const int lane = threadIdx.x % WARP, sequence = blockIdx.z, kv_head = blockIdx.y, group = heads / kv_heads;
    const int key = blockIdx.x * WARPS + threadIdx.x / WARP;
    if (key >= T) return;  // a whole warp, and no barrier follows
    const long long token0 = (long long)sequence * T, at = ((long long)sequence * kv_heads + kv_head) * T * group;
    Dropout dropout = {{0}, dropped_below};
    if (DROPOUT) dropout.philox = philox_stream({philox_key[0]}, sample_ids[sequence]);
    const element* k_row = k + (token0 + key) * k_pitch + kv_head * HEAD_DIM;
    const element* v_row = v + (token0 + key) * v_pitch + kv_head * VALUE_DIM;

    const bool is_real = !PADDING || attention_mask[token0 + key] != 0;
    const int end = is_real ? (DOCUMENTS ? document_ends[token0 + key] : T) * group : 0;
    Columns<HEAD_DIM> sum_k;
    Columns<VALUE_DIM> sum_v;
    for (int row0 = key * group; row0 < end; row0 += WARP) {
        const int row = row0 + lane, token = row / group, head = kv_head * group + row % group;
        const element* q_row = q + (token0 + token) * q_pitch + head * HEAD_DIM;
        const element* d_o_row = d_o + ((token0 + token) * heads + head) * VALUE_DIM;
        float p = 0.0f, ds = 0.0f;
        if (row < end) {
            const float keep = kept(dropout, token, head, key, kept_scale);
            p = expf(dot<HEAD_DIM>(q_row, k_row) * scale - lse[at + row]);
            ds = p * (dot<VALUE_DIM>(d_o_row, v_row) * keep - delta[at + row]);
            p *= keep;
        }
        sum_k.add(ds, q_row);
        sum_v.add(p, d_o_row);
    }
    sum_k.store(dk + (token0 + key) * dk_pitch + kv_head * HEAD_DIM, scale);
    sum_v.store(dv + (token0 + key) * dv_pitch + kv_head * VALUE_DIM, 1.0f);
}

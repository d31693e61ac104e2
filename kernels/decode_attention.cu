// Attention of the newest tokens of each sequence to its cache of keys and values: generation, forward only.
//   o[b,t,h] = sum_j p_j values[b,j,h/group]     p = softmax_j(scale q[b,t,h] . keys[b,j,h/group])
//   over j <= lengths[b] - new_tokens + t
//   q: [B, new_tokens, heads D]   keys: [B, capacity, kv_heads D]   values: [B, capacity, kv_heads Dv]   group = heads / kv_heads
// Bound by memory: reads the cache once, 2 (D + Dv) kv_heads bytes a token in 16-bit types, for 2 (D + Dv) heads FLOPs.
// The cache's length is read on the device, so that a captured launch serves it as it grows. `splits` blocks share the keys of a
// sequence and head (decode_attention.cuh says how each goes about it); decode_attention_combine then adds their results in order.

#ifndef HEAD_DIM
#define HEAD_DIM 64  // D
#endif
#ifndef VALUE_DIM
#define VALUE_DIM HEAD_DIM  // Dv
#endif
#define KEY_DIM HEAD_DIM
#define ROTARY_DIM 0
#define ROTARY_PER_HEAD 0
#define VALUES_IN_KEYS 0
#include "decode_attention.cuh"

// All pointers and pitches are multiples of 16 bytes, D and Dv of 8. Where splits is 1 only o is written, else only partial and
// stats.
// launch: grid (splits, kv_heads * ceil_div(heads / kv_heads * new_tokens, ROWS), batch), block THREADS, shared SHARED,
// registers 128
extern "C" __global__ void __launch_bounds__(THREADS)
    decode_attention_forward(element* o,              // [batch, new_tokens, heads, Dv]
                             float* partial,          // [splits, batch, new_tokens, heads, Dv]
                             float* stats,            // [splits, batch, new_tokens, heads, 2]: maximum, and sum under it
                             const element* q,        // [batch * new_tokens, q_pitch]
                             const element* keys,     // [batch, capacity, kv_heads, D], rotated, those of the new tokens among them
                             const element* values,   // [batch, capacity, kv_heads, Dv]
                             const int* lengths,      // [batch]: tokens in the cache, at least new_tokens
                             int batch, int new_tokens, int heads, int kv_heads, int capacity, int q_pitch, int splits,
                             float scale) {
    extern __shared__ __align__(16) unsigned char shared[];
    const int row_blocks = gridDim.y / kv_heads, kv_head = blockIdx.y / row_blocks;
    const long long first = (long long)blockIdx.z * capacity * kv_heads + kv_head;
    Share share;
    share.keys = keys + first * HEAD_DIM;
    share.rotary = nullptr;
    share.rotary_pitch = 0;
    share.values = values + first * VALUE_DIM;
    share.key_pitch = kv_heads * HEAD_DIM;
    share.value_pitch = kv_heads * VALUE_DIM;
    share.scale = scale * 1.44269504f;
    attend_share(o, partial, stats, q + (long long)blockIdx.z * new_tokens * q_pitch, nullptr, share, lengths[blockIdx.z],
                 new_tokens, heads, kv_heads, q_pitch, 0, 0, splits, shared);
}

// launch: grid (rows), block min(128, ceil_div(VALUE_DIM, 32) * 32), registers 40
extern "C" __global__ void __launch_bounds__(128)
    decode_attention_combine(element* o,             // [rows, Dv], rows = batch * new_tokens * heads
                             const float* partial,   // [splits, rows, Dv]
                             const float* stats,     // [splits, rows, 2]
                             int rows, int splits) {
    combine_shares(o, partial, stats, rows, splits);
}

// Takes what the cache keeps of the new tokens to its place: two arrays of any width, keys and values, or latents and rotated keys.
// All pointers, widths and pitches are multiples of 16 bytes.
// launch: grid (batch * new_tokens), block 128, registers 40
extern "C" __global__ void __launch_bounds__(128)
    decode_attention_append(element* first,             // [batch, capacity, first_width]
                            element* second,            // [batch, capacity, second_width]
                            const element* new_first,   // [batch * new_tokens, first_pitch]
                            const element* new_second,  // [batch * new_tokens, second_pitch]
                            const int* lengths,         // [batch]: tokens in the cache, the new ones among them
                            int batch, int new_tokens, int capacity, int first_width, int second_width, int first_pitch,
                            int second_pitch) {
    const int sequence = blockIdx.x / new_tokens, token = blockIdx.x % new_tokens;
    const long long to = (long long)sequence * capacity + lengths[sequence] - new_tokens + token;
    for (int i = SPREAD * threadIdx.x; i < first_width; i += SPREAD * 128)
        store_vector(first + to * first_width + i, load_vector(new_first + (long long)blockIdx.x * first_pitch + i));
    for (int i = SPREAD * threadIdx.x; i < second_width; i += SPREAD * 128)
        store_vector(second + to * second_width + i, load_vector(new_second + (long long)blockIdx.x * second_pitch + i));
}

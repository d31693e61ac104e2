// Multi-head latent attention of the newest tokens to their cache, the projections out of the latent absorbed (DeepSeek-V2, arXiv
// 2405.04434, section 2.1.2): generation, forward only.
//   o[b,t,h] = sum_j p_j latents[b,j]     p = softmax_j(scale (q[b,t,h] . latents[b,j] + q_rotary[b,t,h] . rotary[b,j]))
//   over j <= lengths[b] - new_tokens + t;  q is the query already times the keys' projection, o still to be taken through the values'.
//   q, o: [B, new_tokens, heads, r]   latents: [B, capacity, r]   rotary: [B, capacity, R], or [B, capacity, heads, R]
// Bound by memory: reads the cache once for all heads, 2 (r + R) bytes a token in 16-bit types, for 2 (2 r + R) heads FLOPs; past
// about 64 heads by mma.sync. The latents are keys and values at once, so that a tile in shared memory serves both products.
// Lengths, splits and the combination are decode_attention.cu's.

#ifndef LATENT_DIM
#define LATENT_DIM 512  // r
#endif
#ifndef ROTARY_DIM
#define ROTARY_DIM 64  // R
#endif
#ifndef ROTARY_PER_HEAD
#define ROTARY_PER_HEAD 0  // 1: each query head has rotated keys of its own
#endif
#define KEY_DIM LATENT_DIM
#define VALUE_DIM LATENT_DIM
#define VALUES_IN_KEYS 1
#include "decode_attention.cuh"

// All pointers, pitches and strides are multiples of 16 bytes, r and R of 8. Where splits is 1 only o is written, else only partial
// and stats.
// launch: grid (splits, ceil_div(heads * new_tokens, ROWS), batch), block THREADS, shared SHARED, registers 168
extern "C" __global__ void __launch_bounds__(THREADS)
    decode_latent_forward(element* o,                // [batch, new_tokens, heads, r]
                          float* partial,            // [splits, batch, new_tokens, heads, r]
                          float* stats,              // [splits, batch, new_tokens, heads, 2]: maximum, and sum under it
                          const element* q,          // [batch, new_tokens, heads, r]
                          const element* q_rotary,   // [batch * new_tokens, q_rotary_pitch], heads q_rotary_stride apart
                          const element* latents,    // [batch, capacity, r]
                          const element* rotary,     // [batch, capacity, R], or R for each head
                          const int* lengths,        // [batch]: tokens in the cache, at least new_tokens
                          int batch, int new_tokens, int heads, int capacity, int q_rotary_pitch, int q_rotary_stride, int splits,
                          float scale) {
    extern __shared__ __align__(16) unsigned char shared[];
    const long long first = (long long)blockIdx.z * capacity, token = (long long)blockIdx.z * new_tokens;
    Share share;
    share.keys = latents + first * LATENT_DIM;
    share.rotary_pitch = ROTARY_PER_HEAD ? heads * ROTARY_DIM : ROTARY_DIM;
    share.rotary = rotary + first * share.rotary_pitch;
    share.values = nullptr;
    share.key_pitch = LATENT_DIM;
    share.value_pitch = 0;
    share.scale = scale * 1.44269504f;
    attend_share(o, partial, stats, q + token * heads * LATENT_DIM, q_rotary + token * q_rotary_pitch, share, lengths[blockIdx.z],
                 new_tokens, heads, 1, heads * LATENT_DIM, q_rotary_pitch, q_rotary_stride, splits, shared);
}

// launch: grid (rows), block min(128, ceil_div(VALUE_DIM, 32) * 32), registers 40
extern "C" __global__ void __launch_bounds__(128)
    decode_latent_combine(element* o,             // [rows, r], rows = batch * new_tokens * heads
                          const float* partial,   // [splits, rows, r]
                          const float* stats,     // [splits, rows, 2]
                          int rows, int splits) {
    combine_shares(o, partial, stats, rows, splits);
}

// What the rungs of attention's ladder share: a warp's query, the keys that it sees, and what dropout makes of them.
#pragma once

#include "philox.cuh"

// Columns of a head of q and k, and of v and o: multiples of 8.
#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef VALUE_DIM
#define VALUE_DIM HEAD_DIM
#endif
// 1: queries look back no further than their document; no query sees padding; probabilities are dropped.
#ifndef DOCUMENTS
#define DOCUMENTS 0
#endif
#ifndef PADDING
#define PADDING 0
#endif
#ifndef DROPOUT
#define DROPOUT 0
#endif

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

// WIDTH columns of a row, of which a lane holds each 32nd.
template <int WIDTH>
struct Columns {
    float at[ceil_div(WIDTH, WARP)] = {};

    template <typename Visit>
    __device__ __forceinline__ void each(Visit visit) {
#pragma unroll
        for (int c = threadIdx.x % WARP; c < WIDTH; c += WARP) visit(at[c / WARP], c);
    }
};

// The query of one head of one token. A key head's rows are those of all tokens and of the query heads of its group: row r is
// token r / group, head r % group of the group.
struct Query {
    int row, token, head, first_key;
    long long token0;  // of the sequence
    const int* mask;   // of the sequence
    Philox philox;
    unsigned dropped_below;
    float kept_scale;

    __device__ __forceinline__ Query(int row, int T, int group, const int* document_starts, const int* attention_mask,
                                     const unsigned long long* philox_key, const unsigned long long* sample_ids, unsigned dropped_below,
                                     float kept_scale)
        : row(row), token(min(row / group, T - 1)), head(blockIdx.y * group + row % group), token0((long long)blockIdx.z * T),
          mask(attention_mask + token0), philox{0}, dropped_below(dropped_below), kept_scale(kept_scale) {
        first_key = DOCUMENTS ? document_starts[token0 + token] : 0;
        if (DROPOUT) philox = philox_stream({philox_key[0]}, sample_ids[blockIdx.z]);
    }

    __device__ __forceinline__ bool sees(int key) const {
        return key >= first_key && key <= token && (!PADDING || mask[key] != 0);
    }

    // What a key's probability is multiplied by, with the numbers of the CPU (src/ops/attention/dropout.rs).
    __device__ __forceinline__ float kept(int key) const {
        if (!DROPOUT) return 1.0f;
        const Words random = philox_words(philox, key / 64 * 16 + key % 16, token, head, 0);
        const int word = key / 16 % 4;
        const u32 bits = word == 0 ? random.at[0] : word == 1 ? random.at[1] : word == 2 ? random.at[2] : random.at[3];
        return bits >= dropped_below ? kept_scale : 0.0f;
    }

    // o = sum / total and lse = max + log(total), or zeros and infinity where no key was seen.
    __device__ __forceinline__ void store(element* o, float* lse, Columns<VALUE_DIM>& sum, float max, float total, int T, int heads,
                                          int kv_heads) const {
        const float factor = total == 0.0f ? 0.0f : 1.0f / total;
        element* const to = o + ((token0 + token) * heads + head) * VALUE_DIM;
        sum.each([&](float& x, int c) { to[c] = from_float<element>(x * factor); });
        if (threadIdx.x % WARP == 0) {
            const long long rows = (long long)T * (heads / kv_heads);
            lse[((long long)blockIdx.z * kv_heads + blockIdx.y) * rows + row] = total == 0.0f ? -minus_infinity() : max + logf(total);
        }
    }
};

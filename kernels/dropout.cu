// Dropout, forward and backward, which are the same.  x, y: [B, S], B samples of S elements each   samples: [B]
//   y[b,e] = 0 where word e % 4 of Philox block [e / 4, "drop", samples[b] low, high] is below `threshold`, else x[b,e] * scale
//   threshold = p * 2^32,  scale = 1 / (1 - p).  No mask is saved: it follows from the key (of seed, step and site) and from which
//   sample of the whole run this is, so that it is the same however a batch is cut, on any device (src/ops/dropout.rs).
// Bound by memory, or nearly by the integer units: ten rounds of Philox for four elements.  A thread owns 16 bytes.  y may be x.

#include "philox.cuh"
#include "span.cuh"

constexpr int SPAN = 16 / sizeof(element);
constexpr int THREADS = 256;
constexpr u32 DOMAIN = 0x64726f70u;  // "drop": other uses of the same key draw other numbers

// launch: grid (ceil_div(S, SPAN * THREADS), B), block THREADS, registers 48
extern "C" __global__ void __launch_bounds__(THREADS) dropout(element* y,                         // [B, S]
                                                              const element* x,                   // [B, S]
                                                              const unsigned long long* key,      // one
                                                              const unsigned long long* samples,  // [B]
                                                              int B, int S, unsigned threshold, float scale) {
    const int first = (blockIdx.x * THREADS + threadIdx.x) * SPAN;
    if (first >= S) return;
    const long long begin = (long long)blockIdx.y * S + first;
    const u64 sample = samples[blockIdx.y];
    const bool aligned = rows_aligned<SPAN>(x, S) && rows_aligned<SPAN>(y, S);
    float v[SPAN];
    load_span<SPAN>(v, x + begin, S - first, aligned);
#pragma unroll
    for (int i = 0; i < SPAN; i += 4) {
        const Words words = philox_words({*key}, (first + i) / 4, DOMAIN, (u32)sample, (u32)(sample >> 32));
#pragma unroll
        for (int j = 0; j < 4; j++) v[i + j] = words.at[j] < threshold ? 0.0f : v[i + j] * scale;
    }
    store_span<SPAN>(y + begin, v, S - first, aligned);
}

// Cross-entropy of a chunk of logits, the gradient written over them.  logits: [R, V], rows a pitch apart   labels, loss: [R]
//   lse[r] = log sum_v exp(logits[r,v]),   loss[r] = lse[r] - logits[r, labels[r]]
//   dlogits[r,v] = (exp(logits[r,v] - lse[r]) - [v = labels[r]]) * scale,   scale = loss_scale / counted
// A row whose label is IGNORE has loss 0 and gradient 0, and does not count.  `counted` is how many labels count in the whole
// accumulated batch: counted on the device beforehand, as every gradient is divided by it.  Nothing is saved for backward.
// Bound by memory: reads and writes each logit once.  A block owns a row.  Where HELD is not 0, the row stays in registers, HELD
// vectors in a thread; else it is read twice, the second time from the second-level cache where the chunk is small enough.
// One pass finds maximum and sum together: a pair (m, s) stands for s * 2^m; the order of additions is fixed.  Everything is in
// powers of 2, of logits times log2(e): one fma and one exponential for each.

#include "span.cuh"

#ifndef ROW_THREADS  // a power of two from 32 to 1024
#define ROW_THREADS 256
#endif
#ifndef HELD  // 16-byte vectors of a row in each thread: ROW_THREADS * HELD of them must hold V; 0: any V
#define HELD 4
#endif

constexpr int WARPS = ROW_THREADS / WARP;
constexpr int WIDTH = 16 / sizeof(element);
constexpr int AT_ONCE = 4;           // vectors that a thread reads before it computes, where the row is read for its sum alone
constexpr int LABELS_OF_THREAD = 8;  // counted by one thread
constexpr int SUM_THREADS = 1024;
constexpr int IGNORE = -100;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;
#define NO_LOGIT __int_as_float(0xff800000)  // minus infinity

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

struct alignas(8) Partial {
    float m, s;  // s * 2^m; m is minus infinity where there was no logit above that
};

// Where every logit is minus infinity, x - m would not be a number.
__device__ __forceinline__ float finite_or_0(float m) { return m == NO_LOGIT ? 0.0f : m; }

__device__ __forceinline__ Partial combine(Partial a, Partial b) {
    const float m = fmaxf(a.m, b.m), base = finite_or_0(m);
    return {m, a.s * exp2_fast(a.m - base) + b.s * exp2_fast(b.m - base)};
}

// Over groups of LANES lanes; every lane gets the result.
template <int LANES>
__device__ __forceinline__ Partial warp_combine(Partial mine) {
    const float m = warp_max<LANES>(mine.m);
    return {m, warp_sum<LANES>(mine.s * exp2_fast(mine.m - finite_or_0(m)))};
}

// Over the block; every thread gets the result.
__device__ __forceinline__ Partial block_combine(Partial mine, Partial* scratch) {
    mine = warp_combine<WARP>(mine);
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = mine;
    __syncthreads();  // every warp's pair is there, and the logit at the label has been read before it is written over
    return warp_combine<WARPS>(scratch[threadIdx.x % WARPS]);
}

// The pair of N logits, which become 2^(logit * log2(e) - m).
template <int N>
__device__ __forceinline__ Partial exponentials(float (&v)[N]) {
    float most = v[0];
#pragma unroll
    for (int i = 1; i < N; i++) most = fmaxf(most, v[i]);
    const float m = most * LOG2_E, base = finite_or_0(m);
    float s = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) s += v[i] = exp2_fast(fmaf(v[i], LOG2_E, -base));
    return {m, s};
}

// The pair of a row that is read for this alone.
__device__ __forceinline__ Partial read_row(const element* row, int V, bool aligned) {
    Partial mine = {NO_LOGIT, 0.0f};
    for (int c = threadIdx.x * WIDTH; c < V; c += AT_ONCE * ROW_THREADS * WIDTH) {
        float v[AT_ONCE * WIDTH];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int first = c + i * ROW_THREADS * WIDTH;
            load_span<WIDTH>(v + i * WIDTH, row + first, V - first, aligned, NO_LOGIT);
        }
        mine = combine(mine, exponentials(v));
    }
    return mine;
}

__device__ __forceinline__ float loss_of(Partial sum, float label_logit) { return (sum.m + log2f(sum.s)) * LN_2 - label_logit; }

// counted += how many labels are not IGNORE. Integers: their sum does not depend on the order.
// launch: grid ceil_div(N, ROW_THREADS * LABELS_OF_THREAD), block ROW_THREADS, registers 32
extern "C" __global__ void __launch_bounds__(ROW_THREADS) cross_entropy_count(int* counted,       // one; 0 before the first batch
                                                                          const int* labels,  // [N]
                                                                          int N) {
    const int first = blockIdx.x * ROW_THREADS * LABELS_OF_THREAD + threadIdx.x;
    int count = 0;
#pragma unroll
    for (int i = 0; i < LABELS_OF_THREAD; i++) {
        const int n = first + i * ROW_THREADS;
        count += __popc(__ballot_sync(ALL_LANES, n < N && labels[n] != IGNORE));
    }
    if (threadIdx.x % WARP == 0 && count > 0) atomicAdd(counted, count);
}

// launch: grid R, block ROW_THREADS, registers 64
extern "C" __global__ void __launch_bounds__(ROW_THREADS) cross_entropy_forward(float* loss,            // [R]
                                                                            const element* logits,  // [R, V]
                                                                            const int* labels,      // [R]
                                                                            int R, int V, int pitch) {
    __shared__ Partial scratch[WARPS];
    const int row = blockIdx.x, label = labels[row];
    const element* x = logits + (long long)row * pitch;
    if (label == IGNORE) {  // the same for the whole block: no barrier is missed
        if (threadIdx.x == 0) loss[row] = 0.0f;
        return;
    }
    const Partial sum = block_combine(read_row(x, V, rows_aligned<WIDTH>(logits, pitch)), scratch);
    if (threadIdx.x == 0) loss[row] = loss_of(sum, to_float(x[label]));
}

// launch: grid R, block ROW_THREADS, registers 64
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    cross_entropy_forward_backward(element* logits,          // [R, V]; becomes dlogits
                                   float* loss,              // [R]
                                   const int* labels,        // [R]
                                   const int* counted,       // one
                                   const float* loss_scale,  // one
                                   int R, int V, int pitch) {
    __shared__ Partial scratch[WARPS];
    const int row = blockIdx.x, label = labels[row];
    const bool aligned = rows_aligned<WIDTH>(logits, pitch);
    element* x = logits + (long long)row * pitch;
    if (label == IGNORE) {  // the same for the whole block: no barrier is missed
        const float zeros[WIDTH] = {};
        for (int c = threadIdx.x * WIDTH; c < V; c += ROW_THREADS * WIDTH) store_span<WIDTH>(x + c, zeros, V - c, aligned);
        if (threadIdx.x == 0) loss[row] = 0.0f;
        return;
    }
    const float scale = *loss_scale / *counted;  // not 0: this row counts
    float label_logit = 0.0f;
    if (threadIdx.x == 0) label_logit = to_float(x[label]);

#if HELD
    float v[HELD * WIDTH];
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int c = (i * ROW_THREADS + threadIdx.x) * WIDTH;
        load_span<WIDTH>(v + i * WIDTH, x + c, V - c, aligned, NO_LOGIT);
    }
    const Partial mine = exponentials(v);
    const Partial sum = block_combine(mine, scratch);
    const float factor = exp2_fast(finite_or_0(mine.m) - sum.m) / sum.s * scale;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int c = (i * ROW_THREADS + threadIdx.x) * WIDTH;
#pragma unroll
        for (int j = 0; j < WIDTH; j++) v[i * WIDTH + j] *= factor;
        if (label / WIDTH == c / WIDTH) {
#pragma unroll
            for (int j = 0; j < WIDTH; j++) v[i * WIDTH + j] -= c + j == label ? scale : 0.0f;
        }
        store_span<WIDTH>(x + c, v + i * WIDTH, V - c, aligned);
    }
#else
    const Partial sum = block_combine(read_row(x, V, aligned), scratch);
    const float factor = scale / sum.s;
    for (int c = threadIdx.x * WIDTH; c < V; c += ROW_THREADS * WIDTH) {
        float v[WIDTH];
        load_span<WIDTH>(v, x + c, V - c, aligned, NO_LOGIT);
#pragma unroll
        for (int j = 0; j < WIDTH; j++)
            v[j] = exp2_fast(fmaf(v[j], LOG2_E, -sum.m)) * factor - (c + j == label ? scale : 0.0f);
        store_span<WIDTH>(x + c, v, V - c, aligned);
    }
#endif
    if (threadIdx.x == 0) loss[row] = loss_of(sum, label_logit);
}

// mean += (sum of the losses) / counted, 0 where nothing counts. One block: the order is fixed, and there is one loss a token.
// launch: grid 1, block SUM_THREADS, registers 32
extern "C" __global__ void __launch_bounds__(SUM_THREADS) cross_entropy_mean(float* mean,         // one; 0 before the first batch
                                                                             const float* loss,   // [N]
                                                                             const int* counted,  // one
                                                                             int N) {
    __shared__ float scratch[SUM_THREADS / WARP];
    float sum = 0.0f;
#pragma unroll 8
    for (int n = threadIdx.x; n < N; n += SUM_THREADS) sum += loss[n];
    sum = block_sum<SUM_THREADS>(sum, scratch);
    if (threadIdx.x == 0 && *counted > 0) *mean += sum / *counted;
}

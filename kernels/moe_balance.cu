// What keeps the experts of a mixture evenly loaded: an auxiliary loss, forward (its backward is part of moe_router.cu), and the
// correction of the choice.
//   loss = sum over sequences of factor * sum_e f_e * sum_t p[t, e]
//   f: [sequences, E], the share of a sequence's T k slots that each expert gets when tokens choose by their scores alone: counts
//      that no gradient flows through.  p: the scores, or their shares of their sum (see moe_router.cu)
// Every published form is this one, with factor = alpha E / N, times k where the loss is not divided by k: one sequence of all
// N tokens where it is over the batch (MiniMind-3; Switch Transformer, arXiv 2101.03961), else each by itself (MiniMind-2,
// DeepSeek-V3).
// Saved for backward: f. Bound by latency: a block adds up what the router's blocks left of a sequence, always in the same order.

#include "common.cuh"

#ifndef EXPERTS  // E, up to 256
#define EXPERTS 8
#endif
#ifndef TOP_K
#define TOP_K 2
#endif

constexpr int THREADS = 1024;
constexpr int COLUMNS = EXPERTS > 128 ? 256 : EXPERTS > 64 ? 128 : EXPERTS > 32 ? 64 : 32;  // threads of a row of partial sums
constexpr int ROWS = THREADS / COLUMNS;                                                    // that are read at once

static_assert(EXPERTS >= 1 && EXPERTS <= 256, "a row of partial sums has 256 threads at most");

// launch: grid sequences, block THREADS, registers 32
extern "C" __global__ void __launch_bounds__(THREADS) moe_balance_forward(float* loss,               // [sequences], summed the loss
                                                                          float* fractions,          // [sequences, E]: f
                                                                          const float* partial_sum,  // [sequences, chunks, E]
                                                                          const int* partial_count,  // [sequences, chunks, E]
                                                                          int sequences, int chunks, int T, float factor) {
    __shared__ float sums[ROWS][COLUMNS];
    __shared__ int counts[ROWS][COLUMNS];
    __shared__ float scratch[THREADS / WARP];
    const int e = threadIdx.x % COLUMNS, row = threadIdx.x / COLUMNS;
    float sum = 0.0f;
    int count = 0;
    if (e < EXPERTS) {
#pragma unroll 4
        for (int chunk = row; chunk < chunks; chunk += ROWS) {
            const long long at = ((long long)blockIdx.x * chunks + chunk) * EXPERTS + e;
            sum += partial_sum[at];
            count += partial_count[at];
        }
    }
    sums[row][e] = sum;
    counts[row][e] = count;
    __syncthreads();  // every row's sums are there
    float part = 0.0f;
    if (threadIdx.x < EXPERTS) {
        for (int r = 1; r < ROWS; r++) sum += sums[r][e], count += counts[r][e];
        const float fraction = (float)count / ((float)T * TOP_K);
        fractions[(long long)blockIdx.x * EXPERTS + e] = fraction;
        part = fraction * sum;
    }
    part = block_sum<THREADS>(part, scratch);
    if (threadIdx.x == 0) loss[blockIdx.x] = factor * part;
}

// A step of balancing without a loss (Wang et al. 2024, arXiv 2408.15664): experts with less than the mean load go up by `speed`.
// launch: grid 1, block EXPERTS, registers 32
extern "C" __global__ void moe_balance_correct(float* correction,  // [E]
                                               const int* load,    // [E]: slots since the last step
                                               const int* finite,  // [1]: 0 leaves all as it is
                                               float speed) {
    if (finite[0] == 0) return;
    long long total = 0;
    for (int e = 0; e < EXPERTS; e++) total += load[e];
    const long long mine = (long long)load[threadIdx.x] * EXPERTS;  // beside the total: whole numbers, no mean is rounded
    if (mine != total) correction[threadIdx.x] += mine < total ? speed : -speed;
}

// The router of a mixture of experts, forward and backward.  N = sequences * T tokens, E experts, k choices
//   logits: [N, E] = x Wg^T, from a matmul that leaves floats      weights, choices: [N, k]
//   s = softmax(l) or sigmoid(l)                                                                    (SIGMOID)
//   choices: the k best of s + correction, of equal ones the lowest, NaN last, within the TOP_GROUPS of GROUPS groups of experts
//            whose two best have the largest sum (DeepSeek-V3, arXiv 2412.19437, section 2.1.2)     (CORRECTED, GROUPS, TOP_GROUPS)
//   w_j = scale * s_j / S,  S = sum_j s_j + 1e-20 over the choices, or scale * s_j                  (NORMALISED)
//   ds_j = scale * (dw_j - sum_i dw_i s_i / S) / S, or scale * dw_j;  then dl through softmax or sigmoid
// For the auxiliary loss (moe_balance.cu) the forward leaves sums of p = s, or of s / (sum_e s + 1e-20) for a sigmoid, and counts
// of the k best of s alone; the backward adds dp_e = dloss * factor * f_e.                          (AUX)
// Saved for backward: logits, choices, f; scores are computed anew. Reads 4 E bytes a token and writes 8 k, little beside the rows
// of x that its experts read: what counts is that lanes have work. WIDTH lanes own a token, each with HELD of its logits in
// registers; the best is the largest of the lanes' largest, and its owner strikes it out. Each block leaves sums of its own, which
// moe_balance.cu adds in order: no atomics, the same bits whatever the order of blocks.

#include "common.cuh"

#ifndef EXPERTS  // E, up to 256
#define EXPERTS 8
#endif
#ifndef TOP_K
#define TOP_K 2
#endif
#ifndef GROUPS
#define GROUPS 1
#endif
#ifndef TOP_GROUPS
#define TOP_GROUPS 1
#endif
#ifndef SIGMOID
#define SIGMOID 0
#endif
#ifndef NORMALISED
#define NORMALISED 1
#endif
#ifndef CORRECTED
#define CORRECTED 0
#endif
#ifndef AUX
#define AUX 1
#endif

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
constexpr float SMALL = 1e-20f;  // keeps a sum of scores from being zero

// Neighbouring experts that a lane loads at once, lanes of a token, and experts of a lane.
constexpr int VECTOR = EXPERTS % 4 == 0 ? 4 : 1;
constexpr int VECTORS = EXPERTS / VECTOR;
constexpr int WIDTH = VECTORS > 16 ? 32 : VECTORS > 8 ? 16 : VECTORS > 4 ? 8 : VECTORS > 2 ? 4 : VECTORS;
constexpr int HELD = ceil_div(VECTORS, WIDTH) * VECTOR;
constexpr int TOKENS = THREADS / WIDTH;  // that a block works on at once

constexpr bool LIMITED = TOP_GROUPS < GROUPS;
constexpr int GROUP = EXPERTS / GROUPS;  // experts of a group

static_assert(EXPERTS >= 1 && EXPERTS <= 256 && TOP_K >= 1 && TOP_K <= TOP_GROUPS * GROUP, "as many choices as experts at most");
static_assert(EXPERTS % GROUPS == 0 && TOP_GROUPS <= GROUPS && GROUPS <= 32 && (!LIMITED || GROUP > 1), "even groups");

// Which expert a lane of a token holds in its register i, and the lane that holds expert e.
__device__ __forceinline__ int expert_of(int lane, int i) { return (i / VECTOR * WIDTH + lane) * VECTOR + i % VECTOR; }
__device__ __forceinline__ int lane_of(int e) { return e / VECTOR % WIDTH; }

template <typename T>
struct alignas(VECTOR * sizeof(T)) Neighbours {
    T at[VECTOR];
};

// This lane's part of a row [E]; `absent` where there is no such expert.
template <typename T>
__device__ __forceinline__ void load_row(T (&x)[HELD], const T* row, int lane, bool here, T absent) {
#pragma unroll
    for (int i = 0; i < HELD; i += VECTOR) {
        Neighbours<T> part;
        const bool present = here && expert_of(lane, i) < EXPERTS;
        if (present) part = *reinterpret_cast<const Neighbours<T>*>(row + expert_of(lane, i));
#pragma unroll
        for (int j = 0; j < VECTOR; j++) x[i + j] = present ? part.at[j] : absent;
    }
}

template <typename T>
__device__ __forceinline__ void store_row(T* row, const T (&x)[HELD], int lane) {
#pragma unroll
    for (int i = 0; i < HELD; i += VECTOR) {
        if (expert_of(lane, i) >= EXPERTS) continue;
        Neighbours<T> part;
#pragma unroll
        for (int j = 0; j < VECTOR; j++) part.at[j] = x[i + j];
        *reinterpret_cast<Neighbours<T>*>(row + expert_of(lane, i)) = part;
    }
}

// Of a token's experts together.
__device__ __forceinline__ float token_sum(const float (&x)[HELD]) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; i++) sum += x[i];
    return warp_sum<WIDTH>(sum);
}

template <typename T>
__device__ __forceinline__ T token_max(T x) {
    if (WIDTH == WARP) {
        x = __reduce_max_sync(ALL_LANES, x);
    } else {
#pragma unroll
        for (int distance = WIDTH / 2; distance > 0; distance /= 2) x = max(x, __shfl_xor_sync(ALL_LANES, x, distance));
    }
    return x;
}

// What a token's expert e has; every lane gets it.
__device__ __forceinline__ float value_of(const float (&x)[HELD], int e) {
    float value = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; i++)
        if (expert_of(lane_of(e), i) == e) value = x[i];
    return __shfl_sync(ALL_LANES, value, lane_of(e), WIDTH);
}

// A token's scores; 0 for experts that do not exist.
__device__ __forceinline__ void load_scores(float (&s)[HELD], const float* logits, int lane, bool here) {
    const float infinity = __int_as_float(0x7f800000);
    load_row(s, logits, lane, here, -infinity);
    if (SIGMOID) {
#pragma unroll
        for (int i = 0; i < HELD; i++) s[i] = 1.0f / (1.0f + expf(-s[i]));
    } else {
        float most = -infinity;
#pragma unroll
        for (int i = 0; i < HELD; i++) most = fmaxf(most, s[i]);
        most = warp_max<WIDTH>(most);
#pragma unroll
        for (int i = 0; i < HELD; i++) s[i] = expert_of(lane, i) < EXPERTS ? expf(s[i] - most) : 0.0f;
        const float sum = token_sum(s);
#pragma unroll
        for (int i = 0; i < HELD; i++) s[i] /= sum;
    }
}

// Scores as integers of the same order: TAKEN < NOT_A_NUMBER < -infinity < ...
constexpr u32 TAKEN = 0, NOT_A_NUMBER = 1;

__device__ __forceinline__ u32 key_of(float score) {
    const u32 bits = __float_as_uint(score);
    return isnan(score) ? NOT_A_NUMBER : bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

__device__ __forceinline__ float score_of(u32 key) {
    return __uint_as_float(key == NOT_A_NUMBER ? 0x7fffffffu : key ^ (key >> 31 ? 0x80000000u : 0xffffffffu));
}

// Takes the keys of all but the best groups.
__device__ __forceinline__ void keep_best_groups(u32 (&key)[HELD], int lane) {
    u32 groups[GROUPS];
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        u32 best = TAKEN, second = TAKEN;  // of the group, first in this lane, then in all
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const u32 mine = expert_of(lane, i) / GROUP == g ? key[i] : TAKEN;
            second = max(second, min(best, mine));
            best = max(best, mine);
        }
#pragma unroll
        for (int distance = WIDTH / 2; distance > 0; distance /= 2) {
            const u32 other_best = __shfl_xor_sync(ALL_LANES, best, distance);
            const u32 other_second = __shfl_xor_sync(ALL_LANES, second, distance);
            second = max(max(second, other_second), min(best, other_best));
            best = max(best, other_best);
        }
        groups[g] = key_of(score_of(best) + score_of(second));
    }
    u32 kept = 0;
#pragma unroll
    for (int n = 0; n < TOP_GROUPS; n++) {
        u32 best = TAKEN;
        int chosen = 0;
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
            if (!(kept >> g & 1) && groups[g] > best) best = groups[g], chosen = g;
        kept |= 1u << chosen;
    }
#pragma unroll
    for (int i = 0; i < HELD; i++)
        if (expert_of(lane, i) < EXPERTS && !(kept >> expert_of(lane, i) / GROUP & 1)) key[i] = TAKEN;
}

// The experts of a token's k largest keys, the largest first, of equal ones the first; takes these keys. Every lane gets them.
__device__ __forceinline__ void take_best(int (&choice)[TOP_K], u32 (&key)[HELD], int lane) {
#pragma unroll
    for (int j = 0; j < TOP_K; j++) {
        u32 best = key[0];
#pragma unroll
        for (int i = 1; i < HELD; i++) best = max(best, key[i]);
        best = token_max(best);
        int index = EXPERTS;  // the first expert with this key
#pragma unroll
        for (int i = HELD - 1; i >= 0; i--)
            if (key[i] == best) index = expert_of(lane, i);
        choice[j] = -token_max(-index);
#pragma unroll
        for (int i = 0; i < HELD; i++)
            if (expert_of(lane, i) == choice[j]) key[i] = TAKEN;
    }
}

// A block owns a chunk of a sequence's tokens. partial_sum and partial_count are the loss's; left alone without AUX.
// launch: grid sequences * chunks, block THREADS, registers EXPERTS > 64 || TOP_GROUPS < GROUPS ? 112 : 64
extern "C" __global__ void __launch_bounds__(THREADS) moe_router_forward(float* weights,           // [N, k]
                                                                         int* choices,             // [N, k]
                                                                         float* partial_sum,       // [sequences, chunks, E]
                                                                         int* partial_count,       // [sequences, chunks, E]
                                                                         const float* logits,      // [N, E]
                                                                         const float* correction,  // [E], read if CORRECTED
                                                                         int sequences, int chunks, int T, float scale) {
    const int lane = threadIdx.x % WIDTH, sequence = blockIdx.x / chunks;
    const int chunk = ceil_div(T, chunks), begin = blockIdx.x % chunks * chunk, end = min(begin + chunk, T);

    float corrected_by[HELD], sum[HELD] = {};
    int count[HELD] = {};
    load_row(corrected_by, correction, lane, CORRECTED, 0.0f);

    for (int first = begin; first < end; first += TOKENS) {  // as often for every thread: the lanes of a warp meet inside
        const long long token = (long long)sequence * T + first + threadIdx.x / WIDTH;
        const bool here = first + threadIdx.x / WIDTH < end;
        float s[HELD];
        load_scores(s, logits + token * EXPERTS, lane, here);

        u32 key[HELD];
        int choice[TOP_K];
#pragma unroll
        for (int i = 0; i < HELD; i++) key[i] = expert_of(lane, i) < EXPERTS ? key_of(s[i] + corrected_by[i]) : TAKEN;
        if (LIMITED) keep_best_groups(key, lane);
        take_best(choice, key, lane);

        float chosen[TOP_K], divisor = 0.0f;
#pragma unroll
        for (int j = 0; j < TOP_K; j++) divisor += chosen[j] = value_of(s, choice[j]);
        divisor = NORMALISED ? divisor + SMALL : 1.0f;
        float weight = 0.0f;
        int expert = 0;
#pragma unroll
        for (int j = 0; j < TOP_K; j++) {  // a lane writes choice j where j % WIDTH is its number
            if (j % WIDTH == lane) weight = chosen[j] / divisor * scale, expert = choice[j];
            if ((j + 1) % WIDTH != 0 && j + 1 != TOP_K) continue;
            const int mine = j / WIDTH * WIDTH + lane;
            if (here && mine <= j) {
                weights[token * TOP_K + mine] = weight;
                choices[token * TOP_K + mine] = expert;
            }
        }

        if (!AUX) continue;
        if (CORRECTED || LIMITED) {  // what the loss counts is chosen by the scores alone
#pragma unroll
            for (int i = 0; i < HELD; i++) key[i] = expert_of(lane, i) < EXPERTS ? key_of(s[i]) : TAKEN;
            take_best(choice, key, lane);
        }
        const float total = SIGMOID ? token_sum(s) + SMALL : 1.0f;
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            if (!here) continue;
            sum[i] += SIGMOID ? s[i] / total : s[i];
            count[i] += key[i] == TAKEN;
        }
    }

    if (!AUX) return;
    __shared__ __align__(16) float sums[WARPS][EXPERTS];
    __shared__ __align__(16) int counts[WARPS][EXPERTS];
#pragma unroll
    for (int i = 0; i < HELD; i++) {
#pragma unroll
        for (int distance = WARP / 2; distance >= WIDTH; distance /= 2) {
            sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], distance);
            count[i] += __shfl_xor_sync(ALL_LANES, count[i], distance);
        }
    }
    if (threadIdx.x % WARP < WIDTH) {
        store_row(sums[threadIdx.x / WARP], sum, lane);
        store_row(counts[threadIdx.x / WARP], count, lane);
    }
    __syncthreads();  // every warp's sums are there
    for (int e = threadIdx.x; e < EXPERTS; e += THREADS) {
        float block_sum = 0.0f;
        int block_count = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) block_sum += sums[w][e], block_count += counts[w][e];
        partial_sum[(long long)blockIdx.x * EXPERTS + e] = block_sum;
        partial_count[(long long)blockIdx.x * EXPERTS + e] = block_count;
    }
}

// A block owns a chunk of a sequence's tokens, as forward.
// launch: grid sequences * chunks, block THREADS, registers 64
extern "C" __global__ void __launch_bounds__(THREADS) moe_router_backward(element* d_logits,        // [N, E]
                                                                          const float* d_weights,   // [N, k]
                                                                          const float* d_loss,      // [1], read if AUX
                                                                          const float* logits,      // [N, E]
                                                                          const int* choices,       // [N, k]
                                                                          const float* fractions,   // f: [sequences, E], if AUX
                                                                          int sequences, int chunks, int T, float scale,
                                                                          float factor) {
    const int lane = threadIdx.x % WIDTH, sequence = blockIdx.x / chunks;
    const int chunk = ceil_div(T, chunks), begin = blockIdx.x % chunks * chunk, end = min(begin + chunk, T);

    float dp[HELD];
    load_row(dp, fractions + (long long)sequence * EXPERTS, lane, AUX, 0.0f);
    if (AUX) {
        const float by = d_loss[0] * factor;
#pragma unroll
        for (int i = 0; i < HELD; i++) dp[i] *= by;
    }

    for (int first = begin; first < end; first += TOKENS) {  // as often for every thread: the lanes of a warp meet inside
        const long long token = (long long)sequence * T + first + threadIdx.x / WIDTH;
        const bool here = first + threadIdx.x / WIDTH < end;
        float s[HELD], ds[HELD], product[HELD];
        load_scores(s, logits + token * EXPERTS, lane, here);
#pragma unroll
        for (int i = 0; i < HELD; i++) ds[i] = dp[i];
        if (AUX && SIGMOID) {  // through the shares p of the scores
            const float total = token_sum(s) + SMALL;
#pragma unroll
            for (int i = 0; i < HELD; i++) product[i] = dp[i] * (s[i] / total);
            const float mean = token_sum(product);
#pragma unroll
            for (int i = 0; i < HELD; i++) ds[i] = (dp[i] - mean) / total;
        }

        int choice[TOP_K], expert = 0;
        float dw[TOP_K], chosen[TOP_K], weight = 0.0f, divisor = 0.0f, mean = 0.0f;
#pragma unroll
        for (int j = 0; j < TOP_K; j++) {
            if (j % WIDTH == 0 && here && j + lane < TOP_K) {  // a lane reads one of the next WIDTH choices
                expert = choices[token * TOP_K + j + lane];
                weight = d_weights[token * TOP_K + j + lane];
            }
            choice[j] = __shfl_sync(ALL_LANES, expert, j % WIDTH, WIDTH);
            dw[j] = __shfl_sync(ALL_LANES, weight, j % WIDTH, WIDTH);
            divisor += chosen[j] = value_of(s, choice[j]);
        }
        divisor = NORMALISED ? divisor + SMALL : 1.0f;
#pragma unroll
        for (int j = 0; j < TOP_K; j++) mean += NORMALISED ? dw[j] * (chosen[j] / divisor) : 0.0f;
#pragma unroll
        for (int j = 0; j < TOP_K; j++) {
            const float gradient = (dw[j] - mean) / divisor * scale;
#pragma unroll
            for (int i = 0; i < HELD; i++)
                if (expert_of(lane, i) == choice[j]) ds[i] += gradient;
        }

        element out[HELD];
#pragma unroll
        for (int i = 0; i < HELD; i++) product[i] = s[i] * ds[i];
        mean = SIGMOID ? 0.0f : token_sum(product);
#pragma unroll
        for (int i = 0; i < HELD; i++)
            out[i] = from_float<element>(SIGMOID ? ds[i] * s[i] * (1.0f - s[i]) : s[i] * (ds[i] - mean));
        if (here) store_row(d_logits + token * EXPERTS, out, lane);
    }
}

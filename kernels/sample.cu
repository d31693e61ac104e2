// The next token of each sequence from its logits, and the state of generation after it: one block a sequence, forward only.
//   logits of tokens that were seen are divided by the penalty where positive, multiplied where negative; temperature 0 takes the
//   largest, of equals the first; else: top-k (with those equal to the k-th), softmax at the temperature, top-p, min-p, one draw.
// A few passes over V logits that stay in the caches; bound by their latency. No pass sorts. In the order of the likeliest first a
// token's place is its key, the distance (max - logit) / temperature as an integer in steps of 2^-27, and its mass e^-distance an
// integer in units of 2^-40; so sums of masses are exact in any order. top-k, top-p and the draw all ask which key a running sum
// passes a target at: select() finds it eight bits at a time, by the masses' histogram. What passes top-k, top-p and min-p is
// always a first part of that order, so that a filter is nothing but a bound on what the draw is made from. Draw n of a sequence
// depends on its random key and n alone, and is the CPU sampler's.

#include "philox.cuh"

constexpr int THREADS = 1024;
constexpr int WARPS = THREADS / WARP;
constexpr int BINS = 256;
constexpr u32 LAST_KEY = 0xffffffffu;  // too unlikely for any mass

// What `status` says of a sequence.
constexpr int GOES_ON = 0, ENDED = 1, NOT_FINITE = 2;

struct Shared {
    u64 bins[BINS];
    u64 of_warp[WARPS];
    u64 before;
    u32 bin;
    int bad;
};

// Ascends as the float does.
__device__ __forceinline__ u32 ascending(float x) {
    const u32 bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float from_ascending(u32 order) { return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order); }

__device__ __forceinline__ u64 warp_sum(u64 x) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// Over the block; every thread gets the result.
__device__ u64 block_sum(u64 x, Shared& shared) {
    x = warp_sum(x);
    __syncthreads();  // nobody still reads what an earlier call left there
    if (threadIdx.x % WARP == 0) shared.of_warp[threadIdx.x / WARP] = x;
    __syncthreads();  // every warp's sum is there
    return warp_sum(shared.of_warp[threadIdx.x % WARP]);
}

__device__ u64 block_max(u64 x, Shared& shared) {
    for (int pass = 0; pass < 2; pass++) {
#pragma unroll
        for (int distance = WARP / 2; distance > 0; distance /= 2) x = max(x, __shfl_xor_sync(ALL_LANES, x, distance));
        if (pass == 1) break;
        __syncthreads();  // nobody still reads what an earlier call left there
        if (threadIdx.x % WARP == 0) shared.of_warp[threadIdx.x / WARP] = x;
        __syncthreads();  // every warp's maximum is there
        x = shared.of_warp[threadIdx.x % WARP];
    }
    return x;
}

__device__ __forceinline__ float penalised(float logit, int token, const unsigned* seen, float penalty) {
    if (penalty == 1.0f || (seen[token / 32] >> token % 32 & 1) == 0) return logit;
    return logit > 0.0f ? logit / penalty : logit * penalty;
}

__device__ __forceinline__ u64 mass(u32 key) {
    return key == LAST_KEY ? 0 : (u64)(exp2f((float)key * (-1.44269504f / (1 << 27))) * (float)(1ull << 40));
}

// Where a running sum over ascending keys first is more than a target.
struct Selected {
    u32 key;
    u64 before;  // the sum over smaller keys
};

// Sums masses, or with COUNT tokens. The whole sum is more than `target`.
template <bool COUNT>
__device__ Selected select(const unsigned* keys, int V, u64 target, Shared& shared) {
    Selected selected = {0, 0};
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int bin = threadIdx.x; bin < BINS; bin += THREADS) shared.bins[bin] = 0;
        __syncthreads();  // the bins are empty
        for (int i = threadIdx.x; i < V; i += THREADS) {
            const u32 key = keys[i];
            if ((u64)(key ^ selected.key) >> (shift + 8) == 0)  // the bits above are those that were found
                atomicAdd(&shared.bins[key >> shift & (BINS - 1)], COUNT ? 1 : mass(key));
        }
        __syncthreads();  // the bins are full
        if (threadIdx.x < WARP) {
            // A lane adds its neighbouring bins, a scan tells what lies before them, and the one lane that passes the target looks
            // on.
            constexpr int EACH = BINS / WARP;
            u64 sum = 0;
            for (int i = 0; i < EACH; i++) sum += shared.bins[EACH * threadIdx.x + i];
            u64 end = sum;
            for (int distance = 1; distance < WARP; distance *= 2) {
                const u64 other = __shfl_up_sync(ALL_LANES, end, distance);
                if (threadIdx.x >= distance) end += other;
            }
            u64 before = selected.before + end - sum;
            if (before <= target && target < before + sum) {
                int bin = EACH * threadIdx.x;
                for (; before + shared.bins[bin] <= target; bin++) before += shared.bins[bin];
                shared.bin = bin;
                shared.before = before;
            }
        }
        __syncthreads();  // the bin is known, and the bins may be emptied
        selected.key |= shared.bin << shift;
        selected.before = shared.before;
    }
    return selected;
}

// Token number `skip` of those with this key, in the order of their numbers.
__device__ int find(const unsigned* keys, int V, u32 key, u64 skip, Shared& shared) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int share = ceil_div(ceil_div(V, WARPS), WARP) * WARP, begin = warp * share, end = min(V, begin + share);
    u64 count = 0;
    for (int i = begin + lane; i - lane < end; i += WARP) count += __popc(__ballot_sync(ALL_LANES, i < end && keys[i] == key));
    __syncthreads();  // nobody still reads what an earlier reduction left there
    if (lane == 0) shared.of_warp[warp] = count;
    __syncthreads();  // every warp's count is there
    u64 before = 0;
    for (int other = 0; other < warp; other++) before += shared.of_warp[other];
    if (before <= skip && skip < before + count)
        for (int i = begin + lane; i - lane < end; i += WARP) {
            const bool equal = i < end && keys[i] == key;
            const u32 lanes = __ballot_sync(ALL_LANES, equal);
            if (equal && before + __popc(lanes & ((1u << lane) - 1)) == skip) shared.bin = i;
            before += __popc(lanes);
        }
    __syncthreads();  // the token is known
    return shared.bin;
}

// The token that the draw with these bits takes.
__device__ int draw(const unsigned* keys, int V, int top_k, float top_p, float min_p, u64 random, Shared& shared) {
    u32 last = LAST_KEY;
    if (top_k > 0 && top_k < V) last = select<true>(keys, V, top_k - 1, shared).key;
    u64 all = 0, likely = 0;
    for (int i = threadIdx.x; i < V; i += THREADS) {
        const u64 one = keys[i] <= last ? mass(keys[i]) : 0;
        all += one;
        if ((double)one >= (double)min_p * (double)mass(0)) likely += one;
    }
    all = block_sum(all, shared);
    u64 kept = block_sum(likely, shared);
    if (top_p < 1.0f) {
        // The last token that stays is the one at which the sum reaches the share.
        const u64 share = max((u64)1, min(all, (u64)ceil((double)top_p * (double)all)));
        const Selected nucleus = select<false>(keys, V, share - 1, shared);
        const u64 each = mass(nucleus.key);
        kept = min(kept, nucleus.before + ((share - 1 - nucleus.before) / each + 1) * each);
    }
    const u64 target = __umul64hi(random >> 11 << 11, kept);  // 53 random bits, as on the CPU
    const Selected drawn = select<false>(keys, V, target, shared);
    return find(keys, V, drawn.key, (target - drawn.before) / mass(drawn.key), shared);
}

// `seen` has bit t of a sequence set for every token t in it. A sequence whose status is not 0 is left alone. One ends with an end
// token, or where its tokens reach their capacity. temperature 0: greedy; top_k 0, top_p 1, min_p 0, penalty 1: off.
// launch: grid (batch), block THREADS, registers 64
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    sample_forward(int* tokens,                // [batch, capacity]: the new one goes to place lengths[b]
                   int* lengths,               // [batch]: tokens so far
                   int* status,                // [batch]: 0 goes on, 1 has ended, 2 its logits were not finite
                   unsigned* seen,             // [batch, ceil(V / 32)]
                   long long* draws,           // [batch]: so far
                   unsigned* keys,             // [batch, V]: scratch
                   const float* logits,        // [batch, V]
                   const long long* random,    // [batch]: each sequence's key of random numbers
                   const int* end_tokens,      // [ends]
                   int batch, int V, int capacity, int ends, float penalty, float temperature, int top_k, float top_p,
                   float min_p) {
    __shared__ Shared shared;
    const int b = blockIdx.x;
    if (status[b] != GOES_ON) return;
    logits += (long long)b * V;
    keys += (long long)b * V;
    seen += (long long)b * ceil_div(V, 32);
    if (threadIdx.x == 0) shared.bad = 0;
    __syncthreads();  // the flag is down

    u64 best = 0;  // the larger logit in the upper half, the smaller token in the lower
    bool bad = false;
    for (int i = threadIdx.x; i < V; i += THREADS) {
        const float logit = logits[i];
        bad |= !(logit < __int_as_float(0x7f800000));
        best = max(best, (u64)ascending(penalised(logit, i, seen, penalty) + 0.0f) << 32 | (LAST_KEY - i));
    }
    if (bad) atomicOr(&shared.bad, 1);
    best = block_max(best, shared);  // its barriers show the flag too
    if (shared.bad) {
        if (threadIdx.x == 0) status[b] = NOT_FINITE;
        return;
    }
    int token = LAST_KEY - (u32)best;
    const float max = from_ascending(best >> 32);
    // Where no token is possible the first is taken.
    const bool draws_one = temperature > 0.0f && max > __int_as_float(0xff800000);
    if (draws_one) {
        for (int i = threadIdx.x; i < V; i += THREADS) {
            const float distance = (max - penalised(logits[i], i, seen, penalty)) / temperature;
            keys[i] = distance < 31.0f ? (u32)(distance * (float)(1 << 27)) : LAST_KEY;
        }
        __syncthreads();  // the keys are there, and nobody looks at `seen` any more
        const long long at = draws[b];
        const Words words = philox_words({(u64)random[b]}, (u32)at, (u32)(at >> 32), 0, 0);
        token = draw(keys, V, top_k, top_p, min_p, (u64)words.at[1] << 32 | words.at[0], shared);
    }
    __syncthreads();  // everybody has read what changes now
    if (threadIdx.x > 0) return;
    const int length = lengths[b];
    bool ended = length + 1 >= capacity;
    for (int i = 0; i < ends; i++) ended |= end_tokens[i] == token;
    tokens[(long long)b * capacity + length] = token;
    lengths[b] = length + 1;
    seen[token / 32] |= 1u << token % 32;
    if (draws_one) draws[b]++;
    if (ended) status[b] = ENDED;
}

// What moves rows between the tokens of a mixture of experts and their experts (moe_permute.cu, moe_combine.cu). A warp owns a
// token; a lane has up to BATCH vectors of it under way at once, to keep the memory busy.
#pragma once

#include "common.cuh"

#ifndef TOP_K  // choices of a token, k
#define TOP_K 2
#endif

constexpr int THREADS = 256;
constexpr int TOKENS = THREADS / WARP;  // of a block
constexpr int VECTOR = 16 / sizeof(element);
constexpr int BATCH = 4;                                          // of one row
constexpr int BATCH_OF_SUMS = TOP_K < BATCH ? BATCH / TOP_K : 1;  // of each of TOP_K rows

// SIZE neighbours: VECTOR of them where all rows begin at a multiple of 16 bytes, else one.
template <int SIZE>
struct alignas(SIZE * sizeof(element)) Part {
    element at[SIZE];
};

template <int SIZE>
__device__ __forceinline__ Part<SIZE> load_part(const element* from) {
    return *reinterpret_cast<const Part<SIZE>*>(from);
}

template <int SIZE>
__device__ __forceinline__ void store_part(element* to, const Part<SIZE>& part) {
    *reinterpret_cast<Part<SIZE>*>(to) = part;
}

template <int SIZE>
__device__ __forceinline__ void widen_part(const Part<SIZE>& part, float (&x)[SIZE]) {
    if constexpr (SIZE == 1) {
        x[0] = to_float(part.at[0]);
    } else {
        widen(__builtin_bit_cast(Vector<element>, part), x);
    }
}

template <int SIZE>
__device__ __forceinline__ Part<SIZE> narrow_part(const float (&x)[SIZE]) {
    if constexpr (SIZE == 1) {
        return {from_float<element>(x[0])};
    } else {
        return __builtin_bit_cast(Part<SIZE>, narrow<element>(x));
    }
}

// This warp's token.
__device__ __forceinline__ int token_of_warp() { return blockIdx.x * TOKENS + threadIdx.x / WARP; }

// The token's rows in the order of the experts.
__device__ __forceinline__ void load_rows(long long (&row)[TOP_K], const int* row_of_slot, int token) {
#pragma unroll
    for (int j = 0; j < TOP_K; j++) row[j] = row_of_slot[(long long)token * TOP_K + j];  // of all lanes the same: one request
}

// y = sum_j weight[j] * z[row[j]], j in order, or y += that, in float and rounded once.  y: [H]   z: [rows, H]
template <int SIZE>
__device__ __forceinline__ void weighted_sum(element* y, const element* z, const float (&weight)[TOP_K],
                                             const long long (&row)[TOP_K], int H, bool accumulate) {
    constexpr int STEP = WARP * SIZE;
    for (int first = threadIdx.x % WARP * SIZE; first < H; first += BATCH_OF_SUMS * STEP) {
        Part<SIZE> part[BATCH_OF_SUMS][TOP_K], old[BATCH_OF_SUMS];
#pragma unroll
        for (int b = 0; b < BATCH_OF_SUMS; b++) {
            if (first + b * STEP >= H) continue;
            if (accumulate) old[b] = load_part<SIZE>(y + first + b * STEP);
#pragma unroll
            for (int j = 0; j < TOP_K; j++) part[b][j] = load_part<SIZE>(z + row[j] * H + first + b * STEP);
        }
#pragma unroll
        for (int b = 0; b < BATCH_OF_SUMS; b++) {
            if (first + b * STEP >= H) continue;
            float sum[SIZE] = {};
            if (accumulate) widen_part(old[b], sum);
#pragma unroll
            for (int j = 0; j < TOP_K; j++) {
                float x[SIZE];
                widen_part(part[b][j], x);
#pragma unroll
                for (int i = 0; i < SIZE; i++) sum[i] = fmaf(weight[j], x[i], sum[i]);
            }
            store_part(y + first + b * STEP, narrow_part(sum));
        }
    }
}

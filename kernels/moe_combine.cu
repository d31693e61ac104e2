// Combine of a mixture of experts, forward and backward: the weighted sum of what a token's experts say.
//   y[t] = sum_j w[t, j] * z[row(t, j)], j in order, or y[t] += that      dz[row(t, j)] = w[t, j] * dy[t]
//   dw[t, j] = <dy[t], z[row(t, j)]>      y, dy: [N, H]   z, dz: [N k, H]   w, dw: [N, k]
// Adding to y joins the experts to what y holds already: the output of experts that all tokens share, or the residual stream.
// Bound by memory: forward moves (k + 1) N H elements, N H more where it adds to y, backward (2 k + 1) N H.
// By token, not by row: dy is read once, whichever experts it goes to. Sums are in float and rounded once.
// Saved for backward: z, w. dz may be z itself: what a lane overwrites it alone has read before.
// All tensors begin at a multiple of 16 bytes.

#include "moe_rows.cuh"

__device__ __forceinline__ void load_weights(float (&weight)[TOP_K], const float* weights, int token) {
#pragma unroll
    for (int j = 0; j < TOP_K; j++) weight[j] = weights[(long long)token * TOP_K + j];
}

// launch: grid ceil_div(N, TOKENS), block THREADS, registers TOP_K > 8 ? 128 : 64
extern "C" __global__ void __launch_bounds__(THREADS) moe_combine_forward(element* y,              // [N, H]
                                                                          const element* z,        // [N * k, H]
                                                                          const float* weights,    // [N, k]
                                                                          const int* row_of_slot,  // [N, k]
                                                                          int N, int H, int accumulate) {
    const int token = token_of_warp();
    if (token >= N) return;  // whole warps leave, and there is no barrier
    long long row[TOP_K];
    float weight[TOP_K];
    load_rows(row, row_of_slot, token);
    load_weights(weight, weights, token);
    if (H % VECTOR == 0)
        weighted_sum<VECTOR>(y + (long long)token * H, z, weight, row, H, accumulate);
    else
        weighted_sum<1>(y + (long long)token * H, z, weight, row, H, accumulate);
}

// Each lane's part of dw, and dz.
template <int SIZE>
__device__ __forceinline__ void spread(element* dz, float (&d_weight)[TOP_K], const element* dy, const element* z,
                                       const float (&weight)[TOP_K], const long long (&row)[TOP_K], int H) {
    constexpr int STEP = WARP * SIZE;
    for (int first = threadIdx.x % WARP * SIZE; first < H; first += BATCH_OF_SUMS * STEP) {
        Part<SIZE> gradient[BATCH_OF_SUMS], part[BATCH_OF_SUMS][TOP_K];
#pragma unroll
        for (int b = 0; b < BATCH_OF_SUMS; b++) {
            if (first + b * STEP >= H) continue;
            gradient[b] = load_part<SIZE>(dy + first + b * STEP);
#pragma unroll
            for (int j = 0; j < TOP_K; j++) part[b][j] = load_part<SIZE>(z + row[j] * H + first + b * STEP);
        }
#pragma unroll
        for (int b = 0; b < BATCH_OF_SUMS; b++) {
            if (first + b * STEP >= H) continue;
            float g[SIZE];
            widen_part(gradient[b], g);
#pragma unroll
            for (int j = 0; j < TOP_K; j++) {
                float x[SIZE];
                widen_part(part[b][j], x);
#pragma unroll
                for (int i = 0; i < SIZE; i++) {
                    d_weight[j] = fmaf(g[i], x[i], d_weight[j]);
                    x[i] = weight[j] * g[i];
                }
                store_part(dz + row[j] * H + first + b * STEP, narrow_part(x));
            }
        }
    }
}

// launch: grid ceil_div(N, TOKENS), block THREADS, registers TOP_K > 4 ? 48 + 9 * TOP_K : 64
extern "C" __global__ void __launch_bounds__(THREADS) moe_combine_backward(element* dz,             // [N * k, H]
                                                                           float* d_weights,        // [N, k]
                                                                           const element* dy,       // [N, H]
                                                                           const element* z,        // [N * k, H]
                                                                           const float* weights,    // [N, k]
                                                                           const int* row_of_slot,  // [N, k]
                                                                           int N, int H) {
    const int token = token_of_warp();
    if (token >= N) return;  // whole warps leave: only a warp's lanes meet below
    long long row[TOP_K];
    float weight[TOP_K], d_weight[TOP_K] = {};
    load_rows(row, row_of_slot, token);
    load_weights(weight, weights, token);
    if (H % VECTOR == 0)
        spread<VECTOR>(dz, d_weight, dy + (long long)token * H, z, weight, row, H);
    else
        spread<1>(dz, d_weight, dy + (long long)token * H, z, weight, row, H);
#pragma unroll
    for (int j = 0; j < TOP_K; j++) {
        const float sum = warp_sum(d_weight[j]);
        if (threadIdx.x % WARP == j % WARP) d_weights[(long long)token * TOP_K + j] = sum;
    }
}

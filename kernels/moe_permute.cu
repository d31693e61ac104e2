// Permute of a mixture of experts, forward and backward: a copy of each token's row for each of its experts, in their order.
//   y[row(t, j)] = x[t]      dx[t] = sum_j dy[row(t, j)], j in order, or dx[t] += that      x, dx: [N, H]   y, dy: [N k, H]
// Bound by memory: forward reads N H elements and writes k times as many, backward the other way round; no arithmetic to speak of.
// By token, not by row: each row of x is read once, whichever experts want it. Sums are in float and rounded once.
// Nothing is saved but row(t, j). All tensors begin at a multiple of 16 bytes.

#include "moe_rows.cuh"

template <int SIZE>
__device__ __forceinline__ void copy_row(element* y, const element* x, const long long (&row)[TOP_K], int H) {
    constexpr int STEP = WARP * SIZE;
    for (int first = threadIdx.x % WARP * SIZE; first < H; first += BATCH * STEP) {
        Part<SIZE> part[BATCH];
#pragma unroll
        for (int b = 0; b < BATCH; b++)
            if (first + b * STEP < H) part[b] = load_part<SIZE>(x + first + b * STEP);
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
#pragma unroll
            for (int j = 0; j < TOP_K; j++)
                if (first + b * STEP < H) store_part<SIZE>(y + row[j] * H + first + b * STEP, part[b]);
        }
    }
}

// launch: grid ceil_div(N, TOKENS), block THREADS, registers TOP_K > 8 ? 128 : 64
extern "C" __global__ void __launch_bounds__(THREADS) moe_permute_forward(element* y,              // [N * k, H]
                                                                          const element* x,        // [N, H], rows x_pitch apart
                                                                          const int* row_of_slot,  // [N, k]
                                                                          int N, int H, int x_pitch) {
    const int token = token_of_warp();
    if (token >= N) return;  // whole warps leave, and there is no barrier
    long long row[TOP_K];
    load_rows(row, row_of_slot, token);
    if (H % VECTOR == 0 && x_pitch % VECTOR == 0)
        copy_row<VECTOR>(y, x + (long long)token * x_pitch, row, H);
    else
        copy_row<1>(y, x + (long long)token * x_pitch, row, H);
}

// launch: grid ceil_div(N, TOKENS), block THREADS, registers TOP_K > 8 ? 128 : 64
extern "C" __global__ void __launch_bounds__(THREADS) moe_permute_backward(element* dx,             // [N, H]
                                                                           const element* dy,       // [N * k, H]
                                                                           const int* row_of_slot,  // [N, k]
                                                                           int N, int H, int accumulate) {
    const int token = token_of_warp();
    if (token >= N) return;  // whole warps leave, and there is no barrier
    long long row[TOP_K];
    float weight[TOP_K];
    load_rows(row, row_of_slot, token);
#pragma unroll
    for (int j = 0; j < TOP_K; j++) weight[j] = 1.0f;
    if (H % VECTOR == 0)
        weighted_sum<VECTOR>(dx + (long long)token * H, dy, weight, row, H, accumulate);
    else
        weighted_sum<1>(dx + (long long)token * H, dy, weight, row, H, accumulate);
}

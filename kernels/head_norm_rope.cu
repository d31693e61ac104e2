// RMSNorm of each head and rotary position embedding, in one pass, of the heads of q and then k that lie side by side in a row.
//   x, y, dx, dy: [R, H * D], rows a pitch apart, the first Q heads of a row those of q   w: [D], one for q and one for k
//   u = w * x * rstd,  rstd = rsqrt(mean(x^2) + eps)  over the D columns of a head;  without the norm u = x
//   of the last ROTARY_DIM columns of u, pair i turns by the angle of table row t = positions[r]:
//     y_a = u_a * cos - u_b * sin,  y_b = u_b * cos + u_a * sin;   a, b = i, i + ROTARY_DIM / 2, or 2i, 2i + 1 where INTERLEAVED
// Backward turns dy by the opposite angles to du; then, with xhat = x * rstd and g = du * w,
//   dx = rstd * (g - xhat * mean(g * xhat)),   dw = sum of du * xhat over all rows and heads.
// Saved for backward: x (rstd is cheaper to compute again than to read).  y may be x, and dx may be dy.
// Bound by memory: forward reads and writes each element once, backward reads two and writes one; the angles of a row are read once
// for all its heads.  A few lanes own a head: a lane holds WIDTH columns of the first half of what turns and as many of the second,
// so that both columns of a pair are in its registers.  dw: each block sums its rows into partial[block]; a second kernel adds the
// partials in the order of blocks, and the bits never depend on scheduling.

#include "span.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef ROTARY_DIM  // even
#define ROTARY_DIM HEAD_DIM
#endif
#ifndef INTERLEAVED
#define INTERLEAVED 0
#endif
#ifndef MAX_WIDTH  // 1 where a row or head does not begin at a multiple of 4 elements; 4 floats of angles are one 16-byte access
#define MAX_WIDTH 4
#endif

constexpr int THREADS = 256;
constexpr int STILL = HEAD_DIM - ROTARY_DIM;  // columns that do not turn
constexpr int HALF = ROTARY_DIM / 2;
constexpr int MULTIPLE_OF = STILL % 4 == 0 && HALF % 4 == 0 ? 4 : STILL % 2 == 0 && HALF % 2 == 0 ? 2 : 1;
constexpr int WIDTH = MAX_WIDTH < MULTIPLE_OF ? MAX_WIDTH : MULTIPLE_OF;
// Lanes of a head: one for each vector of the pairs' first columns, or more where each would hold more than 4 vectors of the head.
constexpr int PAIRS = HALF / WIDTH;
constexpr int PER_HEAD = 4 * PAIRS * WIDTH < HEAD_DIM ? ceil_div(HEAD_DIM, 4 * WIDTH) : PAIRS;
constexpr int LANES = PER_HEAD > 16 ? 32 : PER_HEAD > 8 ? 16 : PER_HEAD > 4 ? 8 : PER_HEAD > 2 ? 4 : PER_HEAD;
constexpr int WARP_GROUPS = 32 / LANES;  // groups of lanes, each at a head of its own
constexpr int GROUPS = THREADS / LANES;
constexpr int REPEAT = 4;  // rows of a group in the forward pass, for which it loads the weights once

constexpr int WARPS = THREADS / WARP;
constexpr int ROUNDS = ceil_div(PAIRS, LANES);
constexpr int STILL_ROUNDS = ceil_div(STILL / WIDTH, LANES);
constexpr int VECTORS = 2 * ROUNDS + STILL_ROUNDS;  // of a head, in one lane: pairs of vectors that turn, then those that do not
constexpr int HELD = VECTORS * WIDTH;

// The first column of a lane's vector number i, or -1 where the head has no such vector.
__device__ __forceinline__ int column(int i, int lane) {
    if (i >= 2 * ROUNDS) {
        const int c = ((i - 2 * ROUNDS) * LANES + lane) * WIDTH;
        return c < STILL ? c : -1;
    }
    const int pair = i / 2 * LANES + lane;
    if (pair * WIDTH >= HALF) return -1;
    return STILL + (INTERLEAVED && WIDTH == 1 ? 2 * pair + i % 2 : pair * WIDTH + i % 2 * HALF);
}

// What a lane holds of one head, its first `vectors` vectors; 0 where there is nothing.
__device__ __forceinline__ void load_head(float (&v)[HELD], const element* head, int lane, bool present, int vectors = VECTORS) {
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int c = column(i, lane);
#pragma unroll
        for (int j = 0; j < WIDTH; j++) v[i * WIDTH + j] = 0.0f;
        if (present && c >= 0 && i < vectors) load_span<WIDTH>(v + i * WIDTH, head + c);
    }
}

__device__ __forceinline__ void store_head(element* head, const float (&v)[HELD], int lane, bool present, int vectors = VECTORS) {
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int c = column(i, lane);
        if (present && c >= 0 && i < vectors) store_span<WIDTH>(head + c, v + i * WIDTH);
    }
}

struct Angles {
    float cosine[ROUNDS * WIDTH], sine[ROUNDS * WIDTH];  // of the pairs in a lane's vectors
};

// Those of row `row`; 0 where a lane holds no pair. A row of the table is ROTARY_DIM / 2 cosines, then as many sines.
__device__ __forceinline__ void load_angles(Angles& angles, const float* table, const int* positions, int row, int lane,
                                            bool present) {
    constexpr int PART = INTERLEAVED && WIDTH > 1 ? WIDTH / 2 : WIDTH;  // pairs whose angles are neighbours
    const float* from = present ? table + (long long)positions[row] * ROTARY_DIM : table;
#pragma unroll
    for (int i = 0; i < ROUNDS * WIDTH / PART; i++) {
        const int pair = (i * PART / WIDTH * LANES + lane) * PART + (PART < WIDTH && i % 2 ? HALF / 2 : 0);
        const bool there = present && column(2 * (i * PART / WIDTH), lane) >= 0;
#pragma unroll
        for (int j = 0; j < PART; j++) angles.cosine[i * PART + j] = angles.sine[i * PART + j] = 0.0f;
        if (there) load_span<PART>(angles.cosine + i * PART, from + pair);
        if (there) load_span<PART>(angles.sine + i * PART, from + HALF + pair);
    }
}

// Turns by the angles times `direction`, 1 or -1.
__device__ __forceinline__ void rotate(float (&v)[HELD], const Angles& angles, float direction) {
#pragma unroll
    for (int i = 0; i < ROUNDS * WIDTH; i++) {
        const int first = i / WIDTH * 2 * WIDTH, j = i % WIDTH;
        float& a = v[first + (INTERLEAVED ? 2 * j : j)];
        float& b = v[first + (INTERLEAVED ? 2 * j + 1 : WIDTH + j)];
        const float cosine = angles.cosine[i], sine = angles.sine[i] * direction;
        const float turned = a * cosine - b * sine;
        b = b * cosine + a * sine;
        a = turned;
    }
}

// sum(a * b) over a head; every lane of its group gets it.
__device__ __forceinline__ float head_dot(const float (&a)[HELD], const float (&b)[HELD]) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; i++) sum = fmaf(a[i], b[i], sum);
    return warp_sum<LANES>(sum);
}

// How many groups share the heads of a row, evenly: of 10 heads and 4 groups in a warp they have 3, 3, 2 and 2.
__device__ __forceinline__ int groups_of_row(int heads) { return ceil_div(heads, ceil_div(heads, WARP_GROUPS)); }

// The heads of one group: rows `row`, each time heads first, first + step, ...
struct Place {
    int row, head, step, passes, lane;
};

__device__ __forceinline__ Place place_of(int unit, int heads) {
    const int step = groups_of_row(heads);
    return {unit / step, unit % step, step, ceil_div(heads, step), (int)threadIdx.x % LANES};
}

__device__ __forceinline__ void rope(element* y, const element* x, const float* table, const int* positions, int R, int H,
                                     int y_pitch, int x_pitch, float direction) {
    const Place at = place_of(blockIdx.x * GROUPS + threadIdx.x / LANES, H);
    if (at.row >= R) return;
    Angles angles;
    load_angles(angles, table, positions, at.row, at.lane, true);
    const int vectors = y == x ? 2 * ROUNDS : VECTORS;  // in place, what does not turn is neither read nor written
    x += (long long)at.row * x_pitch;
    y += (long long)at.row * y_pitch;
    float next[HELD];
    load_head(next, x + at.head * HEAD_DIM, at.lane, true, vectors);
    for (int h = at.head; h < H; h += at.step) {
        float v[HELD];
#pragma unroll
        for (int i = 0; i < HELD; i++) v[i] = next[i];
        load_head(next, x + (h + at.step) * HEAD_DIM, at.lane, h + at.step < H, vectors);  // under way while this one turns
        rotate(v, angles, direction);
        store_head(y + h * HEAD_DIM, v, at.lane, true, vectors);
    }
}

// launch: grid ceil_div(R * ceil_div(H, ceil_div(H, WARP_GROUPS)), GROUPS), block THREADS, registers HELD > 8 ? 80 : 56
extern "C" __global__ void __launch_bounds__(THREADS)
    rope_forward(element* y,            // [R, H * D]; may be x
                 const element* x,      // [R, H * D]
                 const float* table,    // [positions, ROTARY_DIM]: cosines, sines
                 const int* positions,  // [R]
                 int R, int H, int y_pitch, int x_pitch) {
    rope(y, x, table, positions, R, H, y_pitch, x_pitch, 1.0f);
}

// launch: grid ceil_div(R * ceil_div(H, ceil_div(H, WARP_GROUPS)), GROUPS), block THREADS, registers HELD > 8 ? 80 : 56
extern "C" __global__ void __launch_bounds__(THREADS)
    rope_backward(element* dx,           // [R, H * D]; may be dy
                  const element* dy,     // [R, H * D]
                  const float* table,    // [positions, ROTARY_DIM]: cosines, sines
                  const int* positions,  // [R]
                  int R, int H, int dx_pitch, int dy_pitch) {
    rope(dx, dy, table, positions, R, H, dx_pitch, dy_pitch, -1.0f);
}

// launch: grid ceil_div(R * ceil_div(H, ceil_div(H, WARP_GROUPS)), GROUPS * REPEAT), block THREADS, registers HELD > 8 ? 112 : 72
extern "C" __global__ void __launch_bounds__(THREADS)
    head_norm_rope_forward(element* y,             // [R, H * D]; may be x
                           const element* x,       // [R, H * D]
                           const element* w_q,     // [D], of the first Q heads
                           const element* w_k,     // [D], of the others
                           const float* table,     // [positions, ROTARY_DIM]: cosines, sines
                           const int* positions,   // [R]
                           int R, int H, int Q, int y_pitch, int x_pitch, float eps) {
    const int lane = threadIdx.x % LANES;
    float q_weight[HELD], k_weight[HELD];
    load_head(q_weight, w_q, lane, true);
    load_head(k_weight, w_k, lane, true);
    for (int i = 0; i < REPEAT; i++) {
        const Place at = place_of((blockIdx.x * REPEAT + i) * GROUPS + threadIdx.x / LANES, H);
        const bool present = at.row < R;  // the lanes of absent rows stay: the sums are those of whole warps
        Angles angles;
        load_angles(angles, table, positions, at.row, lane, present);
        const element* from = x + (long long)at.row * x_pitch;
        element* to = y + (long long)at.row * y_pitch;
        float next[HELD];
        load_head(next, from + at.head * HEAD_DIM, lane, present);
        for (int pass = 0; pass < at.passes; pass++) {
            const int h = at.head + pass * at.step;
            float v[HELD];
#pragma unroll
            for (int j = 0; j < HELD; j++) v[j] = next[j];
            load_head(next, from + (h + at.step) * HEAD_DIM, lane, present && h + at.step < H);  // while this one is computed
            const float rstd = rsqrtf(head_dot(v, v) / HEAD_DIM + eps);
            if (!present || h >= H) continue;
#pragma unroll
            for (int j = 0; j < HELD; j++) v[j] = (h < Q ? q_weight[j] : k_weight[j]) * (v[j] * rstd);
            rotate(v, angles, 1.0f);
            store_head(to + h * HEAD_DIM, v, lane, true);
        }
    }
}

// launch: grid P, block THREADS, registers HELD > 8 ? 160 : 96
extern "C" __global__ void __launch_bounds__(THREADS, 1)  // one block is enough: else the assembler spills for the sake of a third
    head_norm_rope_backward(element* dx,            // [R, H * D]; may be dy
                            float* partial,         // [P, 2, D]: of w_q and w_k
                            const element* dy,      // [R, H * D]
                            const element* x,       // [R, H * D]
                            const element* w_q,     // [D], of the first Q heads
                            const element* w_k,     // [D], of the others
                            const float* table,     // [positions, ROTARY_DIM]: cosines, sines
                            const int* positions,   // [R]
                            int R, int H, int Q, int dx_pitch, int dy_pitch, int x_pitch, float eps, int P) {
    struct alignas(WIDTH * sizeof(float)) Run {
        float at[WIDTH];
    };
    __shared__ alignas(Run) float sums[WARPS][2 * HEAD_DIM];
    const int lane = threadIdx.x % LANES, step = groups_of_row(H);
    float weight[2][HELD], dw[2][HELD] = {};
    load_head(weight[0], w_q, lane, true);
    load_head(weight[1], w_k, lane, true);
    const int units = ceil_div(R * step, GROUPS) * GROUPS;  // all groups of a block make as many turns: they meet in the sums
    for (int unit = blockIdx.x * GROUPS + threadIdx.x / LANES; unit < units; unit += P * GROUPS) {
        const Place at = place_of(unit, H);
        const bool row_present = at.row < R;
        Angles angles;
        load_angles(angles, table, positions, at.row, lane, row_present);
        for (int pass = 0; pass < at.passes; pass++) {
            const int h = at.head + pass * step;
            const bool present = row_present && h < H;
            float v[HELD], g[HELD];
            load_head(v, x + (long long)at.row * x_pitch + h * HEAD_DIM, lane, present);
            load_head(g, dy + (long long)at.row * dy_pitch + h * HEAD_DIM, lane, present);
            rotate(g, angles, -1.0f);
            const float mean_square = head_dot(v, v) / HEAD_DIM;
            const float rstd = present ? rsqrtf(mean_square + eps) : 0.0f;
            const float to_q = h < Q ? 1.0f : 0.0f, to_k = 1.0f - to_q;  // not a branch, in which a warp's heads would part
#pragma unroll
            for (int j = 0; j < HELD; j++) {
                v[j] *= rstd;
                dw[0][j] = fmaf(g[j] * v[j], to_q, dw[0][j]);
                dw[1][j] = fmaf(g[j] * v[j], to_k, dw[1][j]);
                g[j] *= h < Q ? weight[0][j] : weight[1][j];
            }
            const float mean = head_dot(g, v) / HEAD_DIM;
#pragma unroll
            for (int j = 0; j < HELD; j++) g[j] = rstd * (g[j] - v[j] * mean);
            store_head(dx + (long long)at.row * dx_pitch + h * HEAD_DIM, g, lane, present);
        }
    }

#pragma unroll
    for (int side = 0; side < 2; side++) {
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            Run sum;
#pragma unroll
            for (int j = 0; j < WIDTH; j++) {
                sum.at[j] = dw[side][i * WIDTH + j];
#pragma unroll
                for (int step = LANES; step < WARP; step *= 2) sum.at[j] += __shfl_xor_sync(ALL_LANES, sum.at[j], step);
            }
            const int c = column(i, lane);
            if (threadIdx.x % WARP < LANES && c >= 0) *(Run*)&sums[threadIdx.x / WARP][side * HEAD_DIM + c] = sum;
        }
    }
    __syncthreads();  // every warp's sums are there
    for (int c = threadIdx.x; c < 2 * HEAD_DIM; c += THREADS) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) sum += sums[w][c];
        partial[(long long)blockIdx.x * 2 * HEAD_DIM + c] = sum;
    }
}

// dw = (accumulate ? dw : 0) + the sum of the partials: each warp adds every WARPS-th one in 32 places, the first then their sums.
// launch: grid ceil_div(2 * HEAD_DIM, WARP), block THREADS, registers 40
extern "C" __global__ void __launch_bounds__(THREADS)
    head_norm_rope_weight_gradient(float* dw_q,           // [D]
                                   float* dw_k,           // [D]
                                   const float* partial,  // [P, 2, D]
                                   int P, int accumulate) {
    __shared__ float sums[WARPS][WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, c = blockIdx.x * WARP + lane;
    float sum = 0.0f;
    if (c < 2 * HEAD_DIM)
        for (int p = warp; p < P; p += WARPS) sum += partial[(long long)p * 2 * HEAD_DIM + c];
    sums[warp][lane] = sum;
    __syncthreads();  // every warp's share of the blocks is added
    if (warp > 0 || c >= 2 * HEAD_DIM) return;
#pragma unroll
    for (int w = 1; w < WARPS; w++) sum += sums[w][lane];
    float* dw = c < HEAD_DIM ? dw_q + c : dw_k + (c - HEAD_DIM);
    *dw = accumulate ? *dw + sum : sum;
}

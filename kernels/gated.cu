// Gated activation of a fused projection, forward and backward.
//   x = g | u, dx = dg | du: [R, 2 * I], rows a pitch apart   y, dy: [R, I]
//   y = act(g) * u,   act(g) = g * p(g), where the share p rises from 0 to 1 (Shazeer 2020, arXiv 2002.05202):
//     silu  p = 1 / (1 + e^-g)      gelu  p = (1 + erf(g / sqrt 2)) / 2      relu  p = 1 where g > 0, else 0
//     gelu by tanh  p = (1 + tanh z) / 2 = 1 / (1 + e^-2z),  z = sqrt(2 / pi) * (g + 0.044715 g^3)
//   dg = dy * u * (p + g * p'),   du = dy * g * p
// Saved for backward: x.  dx may be x.
// Bound by memory: forward reads 2 and writes 1 of R * I elements, backward reads 3 and writes 2.
// A warp owns 32 vectors of 16 bytes of a row's gate, and those of the same columns beside it.

#include "span.cuh"

#ifndef ACTIVATION  // 0 silu, 1 gelu, 2 gelu by tanh, 3 relu
#define ACTIVATION 0
#endif

constexpr int SPAN = 16 / sizeof(element);  // elements of a thread
constexpr int ROWS = 8;                     // of a block, one for each warp
constexpr int THREADS = ROWS * 32;
constexpr int COLUMNS = SPAN * 32;          // of a block

struct Share {
    float p, slope;  // p(g) and its derivative
};

__device__ __forceinline__ float sigmoid(float z) { return __fdividef(1.0f, 1.0f + __expf(-z)); }

__device__ __forceinline__ Share share(float g) {
    if constexpr (ACTIVATION == 0) {
        const float p = sigmoid(g);
        return {p, p * (1.0f - p)};
    } else if constexpr (ACTIVATION == 1) {
        return {0.5f + 0.5f * erff(g * 0.70710678f), 0.39894228f * __expf(-0.5f * g * g)};
    } else if constexpr (ACTIVATION == 2) {
        constexpr float SCALE = 1.5957691216f, CUBIC = 0.044715f;  // 2 * sqrt(2 / pi)
        const float p = sigmoid(SCALE * g * (1.0f + CUBIC * g * g));
        return {p, p * (1.0f - p) * SCALE * (1.0f + 3.0f * CUBIC * g * g)};
    } else {
        return {g > 0.0f ? 1.0f : 0.0f, 0.0f};
    }
}

// Where a thread works: blocks that follow each other go along the rows.
struct Place {
    int row, column;
};

__device__ __forceinline__ Place place_of(int I) {
    const int tiles = ceil_div(I, COLUMNS);
    const int block = blockIdx.x, thread = threadIdx.x;
    return {block / tiles * ROWS + thread / WARP, block % tiles * COLUMNS + thread % WARP * SPAN};
}

// launch: grid ceil_div(R, ROWS) * ceil_div(I, COLUMNS), block THREADS, registers 64
extern "C" __global__ void __launch_bounds__(THREADS) gated_forward(element* y,        // [R, I]
                                                                    const element* x,  // [R, 2 * I]
                                                                    int R, int I, int x_pitch) {
    const Place at = place_of(I);
    if (at.row >= R || at.column >= I) return;
    const element* gate = x + (long long)at.row * x_pitch + at.column;
    const int count = I - at.column;
    float g[SPAN], u[SPAN];
    load_span<SPAN>(g, gate, count, rows_aligned<SPAN>(x, x_pitch));
    load_span<SPAN>(u, gate + I, count, rows_aligned<SPAN>(x + I, x_pitch));
#pragma unroll
    for (int i = 0; i < SPAN; i++) g[i] = g[i] * share(g[i]).p * u[i];
    store_span<SPAN>(y + (long long)at.row * I + at.column, g, count, rows_aligned<SPAN>(y, I));
}

// launch: grid ceil_div(R, ROWS) * ceil_div(I, COLUMNS), block THREADS, registers 64
extern "C" __global__ void __launch_bounds__(THREADS) gated_backward(element* dx,        // [R, 2 * I]; may be x
                                                                     const element* dy,  // [R, I]
                                                                     const element* x,   // [R, 2 * I]
                                                                     int R, int I, int dx_pitch, int x_pitch) {
    const Place at = place_of(I);
    if (at.row >= R || at.column >= I) return;
    const element* gate = x + (long long)at.row * x_pitch + at.column;
    element* dgate = dx + (long long)at.row * dx_pitch + at.column;
    const int count = I - at.column;
    float g[SPAN], u[SPAN], d[SPAN];
    load_span<SPAN>(g, gate, count, rows_aligned<SPAN>(x, x_pitch));
    load_span<SPAN>(u, gate + I, count, rows_aligned<SPAN>(x + I, x_pitch));
    load_span<SPAN>(d, dy + (long long)at.row * I + at.column, count, rows_aligned<SPAN>(dy, I));
#pragma unroll
    for (int i = 0; i < SPAN; i++) {
        const Share s = share(g[i]);
        const float du = d[i] * g[i] * s.p;
        g[i] = d[i] * u[i] * (s.p + g[i] * s.slope);
        u[i] = du;
    }
    store_span<SPAN>(dgate, g, count, rows_aligned<SPAN>(dx, dx_pitch));
    store_span<SPAN>(dgate + I, u, count, rows_aligned<SPAN>(dx + I, dx_pitch));
}

// RMSNorm forward, rung 5: 16 bytes an access, and no more threads than a row has of them.
//   x, y: [R, WIDTH]   w: [WIDTH]   rstd: [R]      rstd = 1 / sqrt(mean(x^2) + eps)      y = w * x * rstd
// The bytes are the same, but one instruction moves 8 elements in bf16: 7 times fewer accesses to global memory (8 for the rows, none
// for rstd), and with them go addresses, comparisons, and the sums of warps whose threads had two elements each.
#include "common.cuh"

#ifndef WIDTH
#define WIDTH 512
#endif

constexpr int VECTOR = WIDTH * sizeof(element) % 16 == 0 ? 16 / sizeof(element) : 1;  // elements of one access
constexpr int VECTORS = WIDTH / VECTOR;                                               // accesses of a row
constexpr int THREADS = VECTORS > 128 ? 256 : VECTORS > 64 ? 128 : VECTORS > 32 ? 64 : 32;
constexpr int HELD = ceil_div(VECTORS, THREADS);                                      // accesses of a thread

// Its alignment, that of one access, lets the compiler move it by one instruction.
struct alignas(VECTOR * sizeof(element)) Part {
    element at[VECTOR];
};

// launch: grid max(1, R), block THREADS, registers 96
extern "C" __global__ void __launch_bounds__(THREADS) rmsnorm_forward(element* y,          // [R, WIDTH]
                                                                      float* rstd,         // [R]
                                                                      const element* x,    // [R, WIDTH]
                                                                      const element* w,    // [WIDTH]
                                                                      int R, float eps) {
    __shared__ float scratch[THREADS / WARP];
    const int row = blockIdx.x;
    if (row >= R) return;
    const Part* from = reinterpret_cast<const Part*>(x + (size_t)row * WIDTH);
    const Part* weight = reinterpret_cast<const Part*>(w);
    Part* to = reinterpret_cast<Part*>(y + (size_t)row * WIDTH);
    Part held[HELD];
    float squares = 0.0f;
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int v = h * THREADS + threadIdx.x;
        if (v >= VECTORS) break;
        held[h] = from[v];
#pragma unroll
        for (int i = 0; i < VECTOR; i++) squares = fmaf(to_float(held[h].at[i]), to_float(held[h].at[i]), squares);
    }
    squares = block_sum<THREADS>(squares, scratch);
    const float scale = 1.0f / sqrtf(squares * (1.0f / WIDTH) + eps);
    if (threadIdx.x == 0) rstd[row] = scale;
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int v = h * THREADS + threadIdx.x;
        if (v >= VECTORS) break;
        const Part factor = weight[v];
        Part out;
#pragma unroll
        for (int i = 0; i < VECTOR; i++) out.at[i] = from_float<element>(to_float(factor.at[i]) * (to_float(held[h].at[i]) * scale));
        to[v] = out;
    }
}

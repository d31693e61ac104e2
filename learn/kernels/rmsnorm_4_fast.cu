// RMSNorm forward, faster: learn/04-your-own-kernel.md. A block takes ROWS rows, one after the other, by accesses of 16 bytes; the row
// stays in registers between the sum and the writing, the weight for all of the block's rows.
#include "common.cuh"

#ifndef WIDTH
#define WIDTH 512
#endif

constexpr int VECTOR = WIDTH * sizeof(element) % 16 == 0 ? 16 / sizeof(element) : 1;  // elements of an access
constexpr int VECTORS = WIDTH / VECTOR;                                               // accesses of a row
constexpr int THREADS = VECTORS > 64 ? 256 : 64;
constexpr int HELD = ceil_div(VECTORS, THREADS);                                      // accesses of a thread
constexpr int ROWS = 8;

struct alignas(VECTOR * sizeof(element)) Access {
    element at[VECTOR];
};

// launch: grid max(1, ceil_div(R, ROWS)), block THREADS
extern "C" __global__ void __launch_bounds__(THREADS) rmsnorm_forward(element* y,        // [R, WIDTH]
                                                                      float* rstd,       // [R]
                                                                      const element* x,  // [R, WIDTH]
                                                                      const element* w,  // [WIDTH]
                                                                      int R, float eps) {
    __shared__ float scratch[THREADS / WARP];
    Access weight[HELD], row[HELD];
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int v = h * THREADS + threadIdx.x;
        if (v < VECTORS) weight[h] = reinterpret_cast<const Access*>(w)[v];
    }
    for (int r = blockIdx.x * ROWS; r < min(R, (int)(blockIdx.x + 1) * ROWS); r++) {
        const Access* from = reinterpret_cast<const Access*>(x + (size_t)r * WIDTH);
        Access* to = reinterpret_cast<Access*>(y + (size_t)r * WIDTH);
        float mine = 0.0f;
#pragma unroll
        for (int h = 0; h < HELD; h++) {
            const int v = h * THREADS + threadIdx.x;
            if (v >= VECTORS) break;
            row[h] = from[v];
#pragma unroll
            for (int i = 0; i < VECTOR; i++) mine += to_float(row[h].at[i]) * to_float(row[h].at[i]);
        }
        const float squares = block_sum<THREADS>(mine, scratch);
        const float scale = 1.0f / sqrtf(squares / WIDTH + eps);
        if (threadIdx.x == 0) rstd[r] = scale;
#pragma unroll
        for (int h = 0; h < HELD; h++) {
            const int v = h * THREADS + threadIdx.x;
            if (v >= VECTORS) break;
#pragma unroll
            for (int i = 0; i < VECTOR; i++) row[h].at[i] = from_float<element>(to_float(weight[h].at[i]) * to_float(row[h].at[i]) * scale);
            to[v] = row[h];
        }
    }
}

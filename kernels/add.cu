// Addition.  y, a, b: [n]
//   y = a + b * scale.  Its gradients are dy and dy * scale; nothing is saved.  y may be a or b.
// Bound by memory: reads a and b and writes y once.  A thread owns VECTORS vectors of 16 bytes, which are under way together.

#include "span.cuh"

constexpr int SPAN = 16 / sizeof(element);
constexpr int VECTORS = 2;
constexpr int THREADS = 256;
constexpr int TILE = THREADS * VECTORS * SPAN;  // elements of a block

__device__ __forceinline__ void add_tile(element* y, const element* a, const element* b, long long n, float scale) {
    const bool aligned = rows_aligned<SPAN>(y, 0) && rows_aligned<SPAN>(a, 0) && rows_aligned<SPAN>(b, 0);
    const long long begin = (long long)blockIdx.x * TILE;
    const int count = min(n - begin, (long long)TILE);
    float left[VECTORS][SPAN], right[VECTORS][SPAN];
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int at = (i * THREADS + threadIdx.x) * SPAN;
        load_span<SPAN>(left[i], a + begin + at, count - at, aligned);
        load_span<SPAN>(right[i], b + begin + at, count - at, aligned);
    }
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int at = (i * THREADS + threadIdx.x) * SPAN;
#pragma unroll
        for (int j = 0; j < SPAN; j++) left[i][j] = fmaf(right[i][j], scale, left[i][j]);
        store_span<SPAN>(y + begin + at, left[i], count - at, aligned);
    }
}

// launch: grid ceil_div(n, TILE), block THREADS, registers 64
extern "C" __global__ void __launch_bounds__(THREADS) add(element* y,        // [n]
                                                          const element* a,  // [n]
                                                          const element* b,  // [n]
                                                          long long n) {
    add_tile(y, a, b, n, 1.0f);
}

// launch: grid ceil_div(n, TILE), block THREADS, registers 64
extern "C" __global__ void __launch_bounds__(THREADS) add_scaled(element* y,        // [n]
                                                                 const element* a,  // [n]
                                                                 const element* b,  // [n]
                                                                 float scale, long long n) {
    add_tile(y, a, b, n, scale);
}

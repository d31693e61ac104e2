// Conversions between float and the type of activations.  x, y: [n]
//   to float: exact;  from float: to the nearest, ties to even.
// Bound by memory: reads x and writes y once.  A thread owns VECTORS runs of 4 elements, 16 bytes of float each: neighbours use
// neighbouring memory on both sides.

#include "span.cuh"

constexpr int SPAN = 4;
constexpr int VECTORS = 4;
constexpr int THREADS = 256;
constexpr int TILE = THREADS * VECTORS * SPAN;  // elements of a block

template <typename To, typename From>
__device__ __forceinline__ void convert_tile(To* y, const From* x, long long n) {
    const bool aligned = rows_aligned<SPAN>(y, 0) && rows_aligned<SPAN>(x, 0);
    const long long begin = (long long)blockIdx.x * TILE;
    const int count = min(n - begin, (long long)TILE);
    float v[VECTORS][SPAN];
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int at = (i * THREADS + threadIdx.x) * SPAN;
        load_span<SPAN>(v[i], x + begin + at, count - at, aligned);
    }
#pragma unroll
    for (int i = 0; i < VECTORS; i++) {
        const int at = (i * THREADS + threadIdx.x) * SPAN;
        store_span<SPAN>(y + begin + at, v[i], count - at, aligned);
    }
}

// launch: grid ceil_div(n, TILE), block THREADS, registers 48
extern "C" __global__ void __launch_bounds__(THREADS) convert_to_float(float* y,          // [n]
                                                                       const element* x,  // [n]
                                                                       long long n) {
    convert_tile(y, x, n);
}

// launch: grid ceil_div(n, TILE), block THREADS, registers 48
extern "C" __global__ void __launch_bounds__(THREADS) convert_from_float(element* y,      // [n]
                                                                         const float* x,  // [n]
                                                                         long long n) {
    convert_tile(y, x, n);
}

// y += a x, forward only.  x, y: [n]
//   y[i] = fma(a, x[i], y[i])
// Bound by memory: reads x and y and writes y once. A thread owns one element; a warp reads and writes whole sectors.
// bf16: computed in float, rounded once.

#include "common.cuh"

extern "C" __global__ void axpy(float* y,              // [n]
                                const float* x,        // [n]
                                float a, long long n) {
    const long long i = thread_index();
    if (i < n) y[i] = fmaf(a, x[i], y[i]);
}

extern "C" __global__ void axpy_bf16(bf16* y,          // [n]
                                     const bf16* x,    // [n]
                                     float a, long long n) {
    const long long i = thread_index();
    if (i < n) y[i] = from_float<bf16>(fmaf(a, to_float(x[i]), to_float(y[i])));
}

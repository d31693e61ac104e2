// y += a x, forward only.  x, y: [n]
//   y[i] = fma(a, x[i], y[i])
// Bound by memory: reads x and y and writes y once. A thread owns one element; a warp reads and writes whole sectors.
// Computed in float, rounded once.

#include "common.cuh"

constexpr int THREADS = 256;

// launch: grid max(1, ceil_div(n, THREADS)), block THREADS, registers 16
extern "C" __global__ void axpy(element* y,             // [n]
                                const element* x,       // [n]
                                float a, long long n) {
    const long long i = thread_index();
    if (i < n) y[i] = from_float<element>(fmaf(a, to_float(x[i]), to_float(y[i])));
}

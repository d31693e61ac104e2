// Fill.  x: [n]
//   x[i] = value
// Bound by memory: writes every element once. A thread owns one element; a warp writes whole sectors.

#include "common.cuh"

constexpr int THREADS = 256;

// launch: grid max(1, ceil_div(n, THREADS)), block THREADS, registers 16
extern "C" __global__ void fill(element* x,             // [n]
                                float value, long long n) {
    const long long i = thread_index();
    if (i < n) x[i] = from_float<element>(value);
}

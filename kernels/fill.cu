// Fill.  x: [n]
//   x[i] = value
// Bound by memory: writes every element once. A thread owns one element; a warp writes whole sectors.

#include "common.cuh"

extern "C" __global__ void fill(float* x,       // [n]
                                float value, long long n) {
    const long long i = thread_index();
    if (i < n) x[i] = value;
}

extern "C" __global__ void fill_bf16(bf16* x,   // [n]
                                     float value, long long n) {
    const long long i = thread_index();
    if (i < n) x[i] = from_float<bf16>(value);
}

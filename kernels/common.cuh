// Types and small functions that the kernels share. Nothing of the toolkit's headers is needed.
#pragma once

// Brain float: the upper half of a float.
struct bf16 {
    unsigned short bits;
};

// Exact.
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }

// To the nearest, ties to even.
__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// This thread among all of a one-dimensional grid.
__device__ __forceinline__ long long thread_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

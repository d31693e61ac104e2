// Types and small functions that the kernels share. Nothing of the toolkit's headers is needed.
#pragma once

// The type of activations and weights is chosen when a kernel is compiled: -D element=bf16, half or float.
#ifndef element
#define element float
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned u32;
typedef unsigned long long u64;

constexpr int WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

// Brain float: the upper half of a float.
struct bf16 {
    u16 bits;
};

// IEEE half precision.
struct half {
    u16 bits;
};

// To float: exact.
__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float to_float(half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

// From float: to the nearest, ties to even.
template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <>
__device__ __forceinline__ half from_float<half>(float x) {
    half y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// As many elements as one 16-byte access moves. Whoever loads or stores one sees to it that its address is a multiple of 16.
template <typename T>
struct alignas(16) Vector {
    static constexpr int SIZE = 16 / sizeof(T);
    T at[SIZE];
};

template <typename T>
__device__ __forceinline__ Vector<T> load_vector(const T* from) {
    return *reinterpret_cast<const Vector<T>*>(from);
}

template <typename T>
__device__ __forceinline__ void store_vector(T* to, const Vector<T>& value) {
    *reinterpret_cast<Vector<T>*>(to) = value;
}

// Two floats as neighbours in one register, `low` first, each to the nearest.
template <typename T>
__device__ __forceinline__ u32 pack(float low, float high);

template <>
__device__ __forceinline__ u32 pack<bf16>(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

template <>
__device__ __forceinline__ u32 pack<half>(float low, float high) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// All elements of a vector to and from float, two at a time where one instruction does so.
template <typename T>
__device__ __forceinline__ void widen(const Vector<T>& vector, float (&x)[Vector<T>::SIZE]) {
#pragma unroll
    for (int i = 0; i < Vector<T>::SIZE; i++) x[i] = to_float(vector.at[i]);
}
template <>
__device__ __forceinline__ void widen<bf16>(const Vector<bf16>& vector, float (&x)[8]) {
    const uint4 pairs = __builtin_bit_cast(uint4, vector);
    const u32 pair[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(pair[i] << 16);
        x[2 * i + 1] = __uint_as_float(pair[i] & 0xffff0000u);
    }
}

template <typename T>
__device__ __forceinline__ Vector<T> narrow(const float (&x)[Vector<T>::SIZE]) {
    return __builtin_bit_cast(Vector<T>, make_uint4(pack<T>(x[0], x[1]), pack<T>(x[2], x[3]), pack<T>(x[4], x[5]), pack<T>(x[6], x[7])));
}
template <>
__device__ __forceinline__ Vector<float> narrow<float>(const float (&x)[4]) {
    return {x[0], x[1], x[2], x[3]};
}

// This thread among all of a one-dimensional grid.
__device__ __forceinline__ long long thread_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Over groups of GROUP neighbouring lanes (a power of two up to 32): every lane gets the result. The pairs are the same whatever else
// happens, and so are the bits.
template <int GROUP = WARP>
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int distance = GROUP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

template <int GROUP = WARP>
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int distance = GROUP / 2; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// Over a block of THREADS threads, all of which call it; every thread gets the result. `scratch` has THREADS / 32 floats of shared memory.
template <int THREADS>
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    constexpr int WARPS = THREADS / WARP;
    x = warp_sum(x);
    if (WARPS == 1) return x;
    __syncthreads();  // nobody still reads what an earlier call left there
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads();  // every warp's sum is there
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += scratch[w];
    return sum;
}

template <int THREADS>
__device__ __forceinline__ float block_max(float x, float* scratch) {
    constexpr int WARPS = THREADS / WARP;
    x = warp_max(x);
    if (WARPS == 1) return x;
    __syncthreads();  // nobody still reads what an earlier call left there
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads();  // every warp's maximum is there
    float most = scratch[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) most = fmaxf(most, scratch[w]);
    return most;
}

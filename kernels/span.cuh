// Runs of neighbouring elements as floats in registers, by accesses of up to 16 bytes where the address allows it, else singly.
#pragma once

#include "common.cuh"

// WORDS = 1, 2 or a multiple of 4, by as few accesses as there can be.
template <int WORDS>
__device__ __forceinline__ void load_words(u32 (&words)[WORDS], const void* from) {
    if constexpr (WORDS == 1) {
        words[0] = *(const u32*)from;
    } else if constexpr (WORDS == 2) {
        const uint2 two = *(const uint2*)from;
        words[0] = two.x, words[1] = two.y;
    } else {
#pragma unroll
        for (int i = 0; i < WORDS; i += 4) {
            const uint4 four = ((const uint4*)from)[i / 4];
            words[i] = four.x, words[i + 1] = four.y, words[i + 2] = four.z, words[i + 3] = four.w;
        }
    }
}

// In PTX, for the compiler may split the store of a uint2 or uint4 into words, each of which would be a request of its own.
template <int WORDS>
__device__ __forceinline__ void store_words(void* to, const u32 (&words)[WORDS]) {
    const u64 address = (u64)__cvta_generic_to_global(to);
    if constexpr (WORDS == 1) {
        *(u32*)to = words[0];
    } else if constexpr (WORDS == 2) {
        asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(words[0]), "r"(words[1]) : "memory");
    } else {
#pragma unroll
        for (int i = 0; i < WORDS; i += 4)
            asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address + 4 * i), "r"(words[i]), "r"(words[i + 1]),
                         "r"(words[i + 2]), "r"(words[i + 3])
                         : "memory");
    }
}

// The elements in a word, the first in its lower half.
template <typename T>
__device__ __forceinline__ void unpack(float* v, u32 word);

template <>
__device__ __forceinline__ void unpack<float>(float* v, u32 word) {
    v[0] = __uint_as_float(word);
}
template <>
__device__ __forceinline__ void unpack<bf16>(float* v, u32 word) {
    v[0] = __uint_as_float(word << 16);
    v[1] = __uint_as_float(word & 0xffff0000u);
}
template <>
__device__ __forceinline__ void unpack<half>(float* v, u32 word) {
    v[0] = to_float(half{(u16)word});
    v[1] = to_float(half{(u16)(word >> 16)});
}

// N elements; their address is a multiple of N * sizeof(T), or of 16 where that is larger.
template <int N, typename T>
__device__ __forceinline__ void load_span(float* v, const T* from) {
    constexpr int PER_WORD = 4 / sizeof(T);
    if constexpr (N < PER_WORD) {
        v[0] = to_float(*from);
    } else {
        u32 words[N / PER_WORD];
        load_words(words, from);
#pragma unroll
        for (int i = 0; i < N / PER_WORD; i++) unpack<T>(v + i * PER_WORD, words[i]);
    }
}

template <int N, typename T>
__device__ __forceinline__ void store_span(T* to, const float* v) {
    constexpr int PER_WORD = 4 / sizeof(T);
    if constexpr (N < PER_WORD) {
        *to = from_float<T>(v[0]);
    } else {
        u32 words[N / PER_WORD];
#pragma unroll
        for (int i = 0; i < N / PER_WORD; i++) {
            if constexpr (PER_WORD == 1) words[i] = __float_as_uint(v[i]);
            else words[i] = pack<T>(v[2 * i], v[2 * i + 1]);
        }
        store_words(to, words);
    }
}

// Whether spans of N elements may be accessed whole in rows that begin at `first` and are `pitch` elements apart.
template <int N, typename T>
__device__ __forceinline__ bool rows_aligned(const T* first, int pitch) {
    return (u64)first % min(16, N * (int)sizeof(T)) == 0 && pitch % N == 0;
}

// The first `count` of N (any number, also below 0 or above N); the others become `rest`.
template <int N, typename T>
__device__ __forceinline__ void load_span(float* v, const T* from, int count, bool aligned, float rest = 0.0f) {
    if (aligned && count >= N) return load_span<N>(v, from);
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = i < count ? to_float(from[i]) : rest;
}

template <int N, typename T>
__device__ __forceinline__ void store_span(T* to, const float* v, int count, bool aligned) {
    if (aligned && count >= N) return store_span<N>(to, v);
#pragma unroll
    for (int i = 0; i < N; i++)
        if (i < count) to[i] = from_float<T>(v[i]);
}

// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011), to the bit as the engine's on the CPU (src/rng.rs).
// A number is a pure function of a key and a counter, and so never depends on the order in which threads ask for it.
#pragma once

#include "common.cuh"

// The generator under one 64-bit key.
struct Philox {
    u64 key;
};

// The four words at one counter.
struct Words {
    u32 at[4];
};

__device__ __forceinline__ Words philox_words(Philox philox, u32 c0, u32 c1, u32 c2, u32 c3) {
    u32 k0 = (u32)philox.key, k1 = (u32)(philox.key >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 p0 = (u64)0xd2511f53u * c0, p1 = (u64)0xcd9e8d57u * c2;
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c1 = (u32)p1;
        c3 = (u32)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return {{c0, c1, c2, c3}};
}

// The generator for another purpose under the same seed: `stream` names the purpose.
__device__ __forceinline__ Philox philox_stream(Philox philox, u64 stream) {
    const Words w = philox_words(philox, (u32)stream, (u32)(stream >> 32), 0x73747265u, 0x616d0000u);
    return {(u64)(w.at[1] ^ w.at[3]) << 32 | (w.at[0] ^ w.at[2])};
}

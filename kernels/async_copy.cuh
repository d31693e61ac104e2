// Copies from global to shared memory that the thread does not wait for: cp.async (PTX ISA, "Data movement"). Compute capability 8.0.
#pragma once

#include "mma.cuh"

// 16 bytes, past the first-level cache; both addresses are multiples of 16. Only the first `bytes` (0 to 16) are read, the rest becomes 0.
__device__ __forceinline__ void copy_async_16(u32 to_shared, const void* from, int bytes = 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to_shared), "l"(from), "r"(bytes) : "memory");
}

// The same where `present`, and 16 bytes of zeros where not.
__device__ __forceinline__ void copy_async_16_if(bool present, u32 to_shared, const void* from) {
    asm volatile("{ .reg .pred none; setp.eq.u32 none, %2, 0; cp.async.cg.shared.global [%0], [%1], 16, none; }" ::"r"(to_shared),
                 "l"(from), "r"((u32)present)
                 : "memory");
}

// 4 bytes, for what is too short or too crooked for 16; both addresses are multiples of 4. 0 bytes: becomes 0.
__device__ __forceinline__ void copy_async_4(u32 to_shared, const void* from, int bytes = 4) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to_shared), "l"(from), "r"(bytes) : "memory");
}

// Ends a group: all of this thread's copies since the last one.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most PENDING of this thread's latest groups are under way. Others see what has come after a barrier.
template <int PENDING>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

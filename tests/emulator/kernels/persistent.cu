// A persistent kernel: blocks draw tiles from a counter until none is left; a barrier of the whole grid; a second phase that
// reads what other blocks wrote.  squares[i] = x[i]^2, then y[i] = squares[n-1-i] + x[i].  x, squares, y: [n].
// tickets, arrived: one word each, zero before.  All blocks must be resident at once (a cooperative launch).
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
persistent(float* y, float* squares, u32* tickets, u32* arrived, const float* x, int n) {
    __shared__ u32 ticket;
    const u32 tiles = (n + THREADS - 1) / THREADS;
    for (;;) {
        if (threadIdx.x == 0) ticket = atomicAdd(tickets, 1);
        __syncthreads();  // the ticket is known to all
        const u32 tile = ticket;
        __syncthreads();  // and read by all: the next one may overwrite it
        if (tile >= tiles) break;
        const int i = tile * THREADS + threadIdx.x;
        if (i < n) squares[i] = x[i] * x[i];
    }

    if (threadIdx.x == 0) {  // the barrier above has gathered the block's writes
        __threadfence();
        atomicAdd(arrived, 1);
        while (load_acquire(arrived) != gridDim.x) {}
    }
    __syncthreads();  // all blocks have written their squares

    for (int i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) y[i] = __ldcg(&squares[n - 1 - i]) + x[i];
}

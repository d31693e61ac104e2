// loss[r] = log sum_c exp(x[r,c]) - x[r, target[r]]   and   dx[r,c] = (softmax(x[r])[c] - [c = target[r]]) * scale.
// x, dx: [R, C]   target: [R], negative = ignored: loss and gradient are 0   loss: [R].
// One block per row.  One pass finds maximum and sum together: (m, s) pairs combine as in an online softmax.
#include "ptx.cuh"

constexpr int WARPS = THREADS / 32;

struct Partial { float m, s; };  // the sum is s * exp(m)

__device__ __forceinline__ Partial combine(Partial a, Partial b) {
    const float m = fmaxf(a.m, b.m);
    if (m == minus_infinity()) return a;  // both empty
    return {m, a.s * expf(a.m - m) + b.s * expf(b.m - m)};
}

extern "C" __global__ void __launch_bounds__(THREADS)
cross_entropy(float* loss, float* dx, const float* x, const int* target, int C, float scale) {
    __shared__ Partial partial[WARPS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wanted = target[blockIdx.x];
    x += (size_t)blockIdx.x * C;
    dx += (size_t)blockIdx.x * C;
    if (wanted < 0) {  // the same for the whole block: no barrier is missed
        if (threadIdx.x == 0) loss[blockIdx.x] = 0.0f;
        for (int c = threadIdx.x; c < C; c += THREADS) dx[c] = 0.0f;
        return;
    }

    Partial mine = {minus_infinity(), 0.0f};
    for (int c = threadIdx.x; c < C; c += THREADS) mine = combine(mine, {x[c], 1.0f});
    for (int step = 16; step > 0; step /= 2) {
        const Partial other = {__shfl_xor_sync(FULL_WARP, mine.m, step), __shfl_xor_sync(FULL_WARP, mine.s, step)};
        mine = combine(mine, other);
    }
    if (lane == 0) partial[warp] = mine;
    __syncthreads();  // every warp's pair is written
    mine = partial[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) mine = combine(mine, partial[w]);

    if (threadIdx.x == 0) loss[blockIdx.x] = mine.m + logf(mine.s) - x[wanted];
    const float inverse = 1.0f / mine.s;
    for (int c = threadIdx.x; c < C; c += THREADS) dx[c] = (expf(x[c] - mine.m) * inverse - (c == wanted ? 1.0f : 0.0f)) * scale;
}

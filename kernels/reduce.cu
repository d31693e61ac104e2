// Sum, largest magnitude, and how many values are not finite, in one pass.  x: [n]
//   sum = sum of x;  most = max |x| over the values that are numbers;  not_finite = how many are infinite or not a number
// Bound by memory: reads x once.  Each of P blocks takes every P-th tile and leaves its result in a workspace; one more block adds
// these up: the order of additions depends on n and P alone.

#include "span.cuh"

constexpr int SPAN = 16 / sizeof(element);
constexpr int VECTORS = 4;  // of a thread that are under way together
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int TILE = THREADS * VECTORS * SPAN;

struct Result {
    float sum, most;
    int not_finite;
};

__device__ __forceinline__ Result combine(Result a, Result b) {
    return {a.sum + b.sum, fmaxf(a.most, b.most), a.not_finite + b.not_finite};
}

// Over the block; the first thread's is right.
__device__ __forceinline__ Result block_combine(Result mine, Result* scratch) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        const Result other = {__shfl_xor_sync(ALL_LANES, mine.sum, distance), __shfl_xor_sync(ALL_LANES, mine.most, distance),
                              __shfl_xor_sync(ALL_LANES, mine.not_finite, distance)};
        mine = combine(mine, other);
    }
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = mine;
    __syncthreads();  // every warp's result is there
    if (threadIdx.x == 0)
        for (int w = 1; w < WARPS; w++) mine = combine(mine, scratch[w]);
    return mine;
}

// launch: grid P, block THREADS, registers 64
extern "C" __global__ void __launch_bounds__(THREADS) reduce_partial(float* sums,        // [P]
                                                                     float* most,        // [P]
                                                                     int* not_finite,    // [P]
                                                                     const element* x,   // [n]
                                                                     long long n, int P) {
    __shared__ Result scratch[WARPS];
    const bool aligned = rows_aligned<SPAN>(x, 0);
    Result mine = {0.0f, 0.0f, 0};
    for (long long begin = (long long)blockIdx.x * TILE; begin < n; begin += (long long)P * TILE) {
        const int count = min(n - begin, (long long)TILE);
        float v[VECTORS][SPAN];
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
            const int at = (i * THREADS + threadIdx.x) * SPAN;
            load_span<SPAN>(v[i], x + begin + at, count - at, aligned);
        }
#pragma unroll
        for (int i = 0; i < VECTORS; i++) {
#pragma unroll
            for (int j = 0; j < SPAN; j++) {
                const float magnitude = fabsf(v[i][j]);
                mine = combine(mine, {v[i][j], magnitude, !(magnitude < __int_as_float(0x7f800000))});  // also of what is no number
            }
        }
    }
    mine = block_combine(mine, scratch);
    if (threadIdx.x > 0) return;
    sums[blockIdx.x] = mine.sum;
    most[blockIdx.x] = mine.most;
    not_finite[blockIdx.x] = mine.not_finite;
}

// launch: grid 1, block THREADS, registers 32
extern "C" __global__ void __launch_bounds__(THREADS) reduce_last(float* sum,                // one
                                                                  float* most,               // one
                                                                  int* not_finite,           // one
                                                                  const float* sums,         // [P]
                                                                  const float* mosts,        // [P]
                                                                  const int* not_finites,    // [P]
                                                                  int P) {
    __shared__ Result scratch[WARPS];
    Result mine = {0.0f, 0.0f, 0};
    for (int p = threadIdx.x; p < P; p += THREADS) mine = combine(mine, {sums[p], mosts[p], not_finites[p]});
    mine = block_combine(mine, scratch);
    if (threadIdx.x > 0) return;
    *sum = mine.sum;
    *most = mine.most;
    *not_finite = mine.not_finite;
}

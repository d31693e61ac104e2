// The K largest of each row in descending order, of equal ones the first.  x: [R, 64]   value, index: [R, K].
// A warp owns a row, a lane two elements; a butterfly of (value, index) pairs finds the largest, whose owner strikes it out.
#include "ptx.cuh"

extern "C" __global__ void top_k(float* value, int* index, const float* x, int R) {
    const int lane = threadIdx.x % 32;
    const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= R) return;  // whole warps leave
    float held[2] = {x[row * 64 + lane], x[row * 64 + 32 + lane]};
    for (int k = 0; k < K; k++) {
        int best = held[1] > held[0] ? lane + 32 : lane;
        float largest = fmaxf(held[0], held[1]);
        for (int step = 16; step > 0; step /= 2) {
            const float other = __shfl_xor_sync(FULL_WARP, largest, step);
            const int from = __shfl_xor_sync(FULL_WARP, best, step);
            if (other > largest || (other == largest && from < best)) largest = other, best = from;
        }
        if (lane == 0) {
            value[row * K + k] = largest;
            index[row * K + k] = best;
        }
        if (best % 32 == lane) held[best / 32] = minus_infinity();
    }
}

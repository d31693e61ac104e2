// Warps whose lanes take different ways and meet again.  x, y: [n]   steps: [n].
// steps[i] = length of the Collatz sequence from x[i]: lanes leave the loop at different times.  Then even lanes publish the sum
// of their pair's numbers and odd lanes the difference, in code of their own, and each lane reads what its neighbour wrote.
#include "ptx.cuh"

extern "C" __global__ void divergent(int* y, int* steps, const int* x, int n) {
    extern __shared__ int exchange[];  // 2 words per thread
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const int lane = threadIdx.x % 32;
    int* mine = exchange + threadIdx.x / 32 * 64;

    int value = i < n ? x[i] : 1, length = 0;
    while (value != 1) {
        if (value % 2 == 0) value /= 2;
        else value = 3 * value + 1;
        length++;
        if (length >= 200) break;
    }
    if (i < n) steps[i] = length;
    mine[lane] = length;
    __syncwarp();  // every length of the warp is written

    if (lane % 2 == 0) {
        int sum = mine[lane] + mine[lane + 1];
        mine[32 + lane] = sum;
    } else {
        int difference = mine[lane] - mine[lane - 1];
        if (difference < 0) difference = -3 * difference;
        mine[32 + lane] = difference;
    }
    __syncwarp();  // both ways are done
    if (i < n) y[i] = mine[32 + (lane ^ 1)] * 100 + mine[(lane + 5) % 32];
}

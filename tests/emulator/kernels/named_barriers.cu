// Producer and consumer warps with named barriers: y[b][i] = sum_t (t + 1) x[b][t][63 - i].
// x: [blocks, tiles, 64]   y: [blocks, 64].
// Warp 0 fills two buffers in turn, warps 1 and 2 use them.  Who waits says bar.sync, who only reports says bar.arrive.
//   barrier 1 + s: buffer s is full      barrier 3 + s: buffer s is empty
#include "ptx.cuh"

constexpr int TILE = 64, THREADS = 96;

extern "C" __global__ void __launch_bounds__(THREADS) named_barriers(float* y, const float* x, int tiles) {
    __shared__ float buffer[2][TILE];
    x += (size_t)blockIdx.x * tiles * TILE;
    if (threadIdx.x < 32) {
        for (int t = 0; t < tiles; t++) {
            const int s = t % 2;
            if (t >= 2) bar_sync(3 + s, THREADS);  // the consumers have left the buffer
            for (int j = threadIdx.x; j < TILE; j += 32) buffer[s][j] = x[t * TILE + j];
            bar_arrive(1 + s, THREADS);
        }
    } else {
        const int i = threadIdx.x - 32;
        float sum = 0.0f;
        for (int t = 0; t < tiles; t++) {
            const int s = t % 2;
            bar_sync(1 + s, THREADS);
            sum = fmaf((float)(t + 1), buffer[s][TILE - 1 - i], sum);
            if (t + 2 < tiles) bar_arrive(3 + s, THREADS);  // nobody waits for the last two
        }
        y[blockIdx.x * TILE + i] = sum;
    }
}

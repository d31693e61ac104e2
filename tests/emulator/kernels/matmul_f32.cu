// C = A B in f32.  A: [M, K]   B: [K, N]   C: [M, N].  Tiles of 32 x 32 by 16 x 16 threads, 2 x 2 elements each.
// Double buffering: the next tiles of A and B travel from global memory to registers while the present ones are multiplied;
// with two buffers one barrier per step is enough.
#include "ptx.cuh"

constexpr int TILE = 32, STEP = 8, THREADS = 256;

extern "C" __global__ void __launch_bounds__(THREADS) matmul_f32(float* c, const float* a, const float* b, int M, int N, int K) {
    __shared__ float as[2][STEP][TILE + 1];  // A transposed; padded against conflicts of the stores
    __shared__ float bs[2][STEP][TILE];
    const int t = threadIdx.y * 16 + threadIdx.x;
    const int row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE;
    const int ar = t / STEP, ak = t % STEP;  // this thread's element of the tile of A
    const int bk = t / TILE, bc = t % TILE;  // and of B

    auto load_a = [&](int k) { return row0 + ar < M && k + ak < K ? a[(size_t)(row0 + ar) * K + k + ak] : 0.0f; };
    auto load_b = [&](int k) { return k + bk < K && col0 + bc < N ? b[(size_t)(k + bk) * N + col0 + bc] : 0.0f; };

    as[0][ak][ar] = load_a(0);
    bs[0][bk][bc] = load_b(0);
    __syncthreads();  // the first tiles are written

    float sum[2][2] = {};
    int now = 0;
    for (int k = 0; k < K; k += STEP) {
        const bool more = k + STEP < K;
        float next_a = 0.0f, next_b = 0.0f;
        if (more) {
            next_a = load_a(k + STEP);
            next_b = load_b(k + STEP);
        }
#pragma unroll
        for (int j = 0; j < STEP; j++) {
            const float a0 = as[now][j][threadIdx.y], a1 = as[now][j][threadIdx.y + 16];
            const float b0 = bs[now][j][threadIdx.x], b1 = bs[now][j][threadIdx.x + 16];
            sum[0][0] = fmaf(a0, b0, sum[0][0]);
            sum[0][1] = fmaf(a0, b1, sum[0][1]);
            sum[1][0] = fmaf(a1, b0, sum[1][0]);
            sum[1][1] = fmaf(a1, b1, sum[1][1]);
        }
        if (more) {
            as[now ^ 1][ak][ar] = next_a;
            bs[now ^ 1][bk][bc] = next_b;
            __syncthreads();  // the next tiles are written, and all have left the buffer that the step after fills
            now ^= 1;
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int r = row0 + threadIdx.y + i * 16, col = col0 + threadIdx.x + j * 16;
            if (r < M && col < N) c[(size_t)r * N + col] = sum[i][j];
        }
}

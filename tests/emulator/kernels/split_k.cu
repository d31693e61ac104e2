// C = alpha A B with the sum over k split between gridDim.z blocks, added in the order of the splits whatever runs first.
// A: [M, K]   B: [K, N]   C: [M, N]   workspace: [M, N]   semaphore: [tiles], zero before and after: whose turn it is.
// Tiles of 16 x 16, one thread per element.
#include "ptx.cuh"

constexpr int TILE = 16;

extern "C" __global__ void split_k(float* c, float* workspace, u32* semaphore, const float* a, const float* b, int M, int N, int K,
                                   float alpha) {
    __shared__ float as[TILE][TILE + 1], bs[TILE][TILE + 1];
    const int tx = threadIdx.x, ty = threadIdx.y;
    const int row = blockIdx.y * TILE + ty, col = blockIdx.x * TILE + tx;
    const u32 split = blockIdx.z, splits = gridDim.z;
    const int length = (K + splits - 1) / splits;
    const int begin = split * length, end = min(begin + length, K);

    float sum = 0.0f;
    for (int k = begin; k < end; k += TILE) {
        as[ty][tx] = row < M && k + tx < end ? a[(size_t)row * K + k + tx] : 0.0f;
        bs[ty][tx] = k + ty < end && col < N ? b[(size_t)(k + ty) * N + col] : 0.0f;
        __syncthreads();  // both tiles are written
        for (int j = 0; j < TILE; j++) sum = fmaf(as[ty][j], bs[j][tx], sum);
        __syncthreads();  // both tiles are read
    }

    u32* turn = semaphore + blockIdx.y * gridDim.x + blockIdx.x;
    if (tx == 0 && ty == 0)
        while (load_acquire(turn) != split) {}
    __syncthreads();  // the splits before this one have left their sum in the workspace
    if (row < M && col < N) {
        const size_t i = (size_t)row * N + col;
        if (split > 0) sum += __ldcg(&workspace[i]);
        if (split + 1 < splits) workspace[i] = sum;
        else c[i] = alpha * sum;
    }
    __syncthreads();  // all of this block's part is written before one thread passes the turn on
    if (tx == 0 && ty == 0) store_release(turn, split + 1 < splits ? split + 1 : 0);
}

// y[c,r] = x[r,c].  x: [R, C]   y: [C, R].  Tiles of 32 x 32 by blocks of 32 x 8 threads, so that both sides are coalesced;
// one column of padding keeps the column reads of the tile free of bank conflicts.
#include "ptx.cuh"

constexpr int TILE = 32, ROWS = 8;

extern "C" __global__ void transpose(float* y, const float* x, int R, int C) {
    __shared__ float tile[TILE][TILE + 1];
    int c = blockIdx.x * TILE + threadIdx.x;
    int r = blockIdx.y * TILE + threadIdx.y;
    for (int i = 0; i < TILE; i += ROWS)
        if (r + i < R && c < C) tile[threadIdx.y + i][threadIdx.x] = x[(size_t)(r + i) * C + c];
    __syncthreads();  // the tile is read by columns that other warps wrote
    r = blockIdx.y * TILE + threadIdx.x;
    c = blockIdx.x * TILE + threadIdx.y;
    for (int i = 0; i < TILE; i += ROWS)
        if (r < R && c + i < C) y[(size_t)(c + i) * R + r] = tile[threadIdx.x][threadIdx.y + i];
}

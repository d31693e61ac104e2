// Causal attention, backward to keys and values.  q, k, v, dout: [H, T, D] bf16   lse, delta: [H, T]   dk, dv: [H, T, D] f32.
//   p = exp(scale q k^T - lse)   dv = p^T dout   ds = p (dout v^T - delta)   dk = scale ds^T q   delta = sum_d o dout
// A block owns 32 keys of one head, a warp 16 of them, and walks over the queries in tiles of 16, two stages by cp.async.
// All products are made transposed (keys x queries), so that p^T and ds^T pass from sums to left operands in registers.
#include "ptx.cuh"

constexpr int D = HEAD_DIM, KEYS = 32, QUERIES = 16, THREADS = 64;
constexpr int PITCH = D + 8;

template <int ROWS> __device__ __forceinline__ void load_tile(bf16 (&tile)[ROWS][PITCH], const bf16* rows, int first, int T) {
    for (int i = threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        const int r = i / (D / 8), c = i % (D / 8) * 8;
        const bool inside = first + r < T;
        cp_async_16(shared_address(&tile[r][c]), inside ? rows + (size_t)(first + r) * D + c : rows, inside ? 16 : 0);
    }
}

__device__ __forceinline__ void load_row(float (&row)[QUERIES], const float* values, int first, int T) {
    const int i = threadIdx.x % QUERIES;
    const bool inside = first + i < T;
    cp_async_4(shared_address(&row[i]), inside ? values + first + i : values, inside ? 4 : 0);
}

// acc[16, D] += left[16, 16] right[16, D], the rows of `right` in shared memory
__device__ __forceinline__ void accumulate(float (&acc)[D / 8][4], const float (&left)[2][4], const bf16 (&right)[QUERIES][PITCH]) {
    const int lane = threadIdx.x % 32;
    const u32 fl[4] = {pack_bf16(left[0][0], left[0][1]), pack_bf16(left[0][2], left[0][3]), pack_bf16(left[1][0], left[1][1]),
                       pack_bf16(left[1][2], left[1][3])};
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
        u32 fr[4];
        ldmatrix_x4_trans(fr, shared_address(&right[lane % 16][n * 16 + lane / 16 * 8]));
        mma_bf16(acc[n * 2], fl, fr[0], fr[1]);
        mma_bf16(acc[n * 2 + 1], fl, fr[2], fr[3]);
    }
}

// out[16, 16] = left[16, D] right[16, D]^T
__device__ __forceinline__ void multiply(float (&out)[2][4], const u32 (&left)[D / 16][4], const bf16 (&right)[QUERIES][PITCH]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        u32 fr[4];
        ldmatrix_x4(fr, shared_address(&right[lane / 16 * 8 + lane % 8][i * 16 + lane / 8 % 2 * 8]));
        mma_bf16(out[0], left[i], fr[0], fr[1]);
        mma_bf16(out[1], left[i], fr[2], fr[3]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
flash_backward(float* dk, float* dv, const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* lse,
               const float* delta, int T, float scale) {
    __shared__ __align__(16) bf16 ks[KEYS][PITCH], vs[KEYS][PITCH], qs[2][QUERIES][PITCH], ds[2][QUERIES][PITCH];
    __shared__ float lses[2][QUERIES], deltas[2][QUERIES];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int key0 = blockIdx.x * KEYS;
    const size_t head = (size_t)blockIdx.y * T;
    q += head * D, k += head * D, v += head * D, dout += head * D, dk += head * D, dv += head * D, lse += head, delta += head;
    const float log2e = 1.4426950408889634f;
    const int first = key0 / QUERIES, tiles = (T + QUERIES - 1) / QUERIES;  // earlier queries see none of these keys

    auto load = [&](int tile) {
        const int stage = tile % 2;
        load_tile(qs[stage], q, tile * QUERIES, T);
        load_tile(ds[stage], dout, tile * QUERIES, T);
        if (threadIdx.x < QUERIES) load_row(lses[stage], lse, tile * QUERIES, T);
        else if (threadIdx.x < 2 * QUERIES) load_row(deltas[stage], delta, tile * QUERIES, T);
    };

    load_tile(ks, k, key0, T);
    load_tile(vs, v, key0, T);
    load(first);
    cp_async_commit();

    u32 fk[D / 16][4], fv[D / 16][4];
    float sum_k[D / 8][4] = {}, sum_v[D / 8][4] = {};
    for (int tile = first; tile < tiles; tile++) {
        const int stage = tile % 2;
        if (tile + 1 < tiles) load(tile + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();  // everyone's part of this tile has come
        if (tile == first)
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                ldmatrix_x4(fk[i], shared_address(&ks[warp * 16 + lane % 16][i * 16 + lane / 16 * 8]));
                ldmatrix_x4(fv[i], shared_address(&vs[warp * 16 + lane % 16][i * 16 + lane / 16 * 8]));
            }

        float p[2][4] = {}, dp[2][4] = {};  // 16 keys x 16 queries
        multiply(p, fk, qs[stage]);
        multiply(dp, fv, ds[stage]);
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int key = key0 + warp * 16 + e / 2 * 8 + lane / 4, i = n * 8 + lane % 4 * 2 + e % 2;
                const int query = tile * QUERIES + i;  // behind T its q and dout are zeros: it adds nothing
                p[n][e] = key <= query ? exp2f((p[n][e] * scale - lses[stage][i]) * log2e) : 0.0f;
                dp[n][e] = p[n][e] * (dp[n][e] - deltas[stage][i]);
            }
        accumulate(sum_v, p, ds[stage]);
        accumulate(sum_k, dp, qs[stage]);
        __syncthreads();  // all have left this stage: the next iteration fills it
    }

#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int key = key0 + warp * 16 + half * 8 + lane / 4;
            const size_t i = (size_t)key * D + n * 8 + lane % 4 * 2;
            if (key >= T) continue;
            *reinterpret_cast<float2*>(dk + i) = make_float2(sum_k[n][half * 2] * scale, sum_k[n][half * 2 + 1] * scale);
            *reinterpret_cast<float2*>(dv + i) = make_float2(sum_v[n][half * 2], sum_v[n][half * 2 + 1]);
        }
}

// Causal attention, forward: o = softmax(scale q k^T) v, FlashAttention-2 (Dao 2023).  q, k, v, o: [H, T, D] bf16   lse: [H, T].
// A block owns 32 queries of one head, a warp 16 of them; keys and values come in tiles of 16, two stages by cp.async.
// Scores, probabilities and sums stay in registers: the sums of one mma are laid out as the left operand of the next.
// scale_log2 = log2(e) / sqrt(D), so that exp2 serves.  lse[t] = log sum_s exp(scale q_t k_s), for the backward.
#include "ptx.cuh"

constexpr int D = HEAD_DIM, QUERIES = 32, KEYS = 16, THREADS = 64;
constexpr int PITCH = D + 8;  // an odd number of 16-byte units: ldmatrix without bank conflicts

template <int ROWS> __device__ __forceinline__ void load_tile(bf16 (&tile)[ROWS][PITCH], const bf16* rows, int first, int T) {
    for (int i = threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        const int r = i / (D / 8), c = i % (D / 8) * 8;
        const bool inside = first + r < T;
        cp_async_16(shared_address(&tile[r][c]), inside ? rows + (size_t)(first + r) * D + c : rows, inside ? 16 : 0);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
flash_forward(bf16* o, float* lse, const bf16* q, const bf16* k, const bf16* v, int T, float scale_log2) {
    __shared__ __align__(16) bf16 qs[QUERIES][PITCH], ks[2][KEYS][PITCH], vs[2][KEYS][PITCH];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int query0 = blockIdx.x * QUERIES;
    const size_t head = (size_t)blockIdx.y * T;
    q += head * D, k += head * D, v += head * D, o += head * D, lse += head;
    const int tiles = (min(query0 + QUERIES, T) + KEYS - 1) / KEYS;  // later keys are masked for all queries of the block

    load_tile(qs, q, query0, T);
    load_tile(ks[0], k, 0, T);
    load_tile(vs[0], v, 0, T);
    cp_async_commit();

    u32 fq[D / 16][4];
    float sum[D / 8][4] = {}, m[2] = {minus_infinity(), minus_infinity()}, l[2] = {};
    for (int tile = 0; tile < tiles; tile++) {
        const int stage = tile % 2;
        if (tile + 1 < tiles) {
            load_tile(ks[stage ^ 1], k, (tile + 1) * KEYS, T);
            load_tile(vs[stage ^ 1], v, (tile + 1) * KEYS, T);
        }
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();  // everyone's part of this tile has come
        if (tile == 0)
#pragma unroll
            for (int i = 0; i < D / 16; i++) ldmatrix_x4(fq[i], shared_address(&qs[warp * 16 + lane % 16][i * 16 + lane / 16 * 8]));

        float s[2][4] = {};  // 16 queries x 16 keys
#pragma unroll
        for (int i = 0; i < D / 16; i++) {
            u32 fk[4];
            ldmatrix_x4(fk, shared_address(&ks[stage][lane / 16 * 8 + lane % 8][i * 16 + lane / 8 % 2 * 8]));
            mma_bf16(s[0], fq[i], fk[0], fk[1]);
            mma_bf16(s[1], fq[i], fk[2], fk[3]);
        }

#pragma unroll
        for (int half = 0; half < 2; half++) {  // rows lane / 4 and lane / 4 + 8
            const int query = query0 + warp * 16 + half * 8 + lane / 4;
            float largest = m[half];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float& x = s[j / 2][half * 2 + j % 2];
                const int key = tile * KEYS + j / 2 * 8 + lane % 4 * 2 + j % 2;
                x = key <= query ? x * scale_log2 : minus_infinity();  // no query that is kept sees a key behind T
                largest = fmaxf(largest, x);
            }
            largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, 1));  // a row lies in 4 lanes
            largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, 2));
            const float correction = exp2f(m[half] - largest);  // key 0 is never masked: largest is finite
            m[half] = largest;
            l[half] *= correction;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float& x = s[j / 2][half * 2 + j % 2];
                x = exp2f(x - largest);
                l[half] += x;
            }
#pragma unroll
            for (int n = 0; n < D / 8; n++) sum[n][half * 2] *= correction, sum[n][half * 2 + 1] *= correction;
        }

        const u32 fp[4] = {pack_bf16(s[0][0], s[0][1]), pack_bf16(s[0][2], s[0][3]), pack_bf16(s[1][0], s[1][1]),
                           pack_bf16(s[1][2], s[1][3])};
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            u32 fv[4];
            ldmatrix_x4_trans(fv, shared_address(&vs[stage][lane % 16][n * 16 + lane / 16 * 8]));
            mma_bf16(sum[n * 2], fp, fv[0], fv[1]);
            mma_bf16(sum[n * 2 + 1], fp, fv[2], fv[3]);
        }
        __syncthreads();  // all have left this stage: the next iteration fills it
    }

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int query = query0 + warp * 16 + half * 8 + lane / 4;
        l[half] += __shfl_xor_sync(FULL_WARP, l[half], 1);
        l[half] += __shfl_xor_sync(FULL_WARP, l[half], 2);
        if (query >= T) continue;
        const float scale = 1.0f / l[half];
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            *reinterpret_cast<u32*>(o + (size_t)query * D + n * 8 + lane % 4 * 2) =
                pack_bf16(sum[n][half * 2] * scale, sum[n][half * 2 + 1] * scale);
        if (lane % 4 == 0) lse[query] = (m[half] + log2f(l[half])) * 0.6931471805599453f;
    }
}

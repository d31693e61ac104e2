// Causal attention, forward, on Hopper: o = softmax(scale q k^T) v for one head.  q, k, v, o: [T, 64] bf16   lse: [T].
// A block owns 64 queries. Warp 4 brings the queries once and tiles of 32 keys and values through two stages by tensor copies;
// warps 0 to 3 are the warpgroup that computes.  q k^T: both operands from shared memory.  p v: p straight from the registers
// that the scores came in, v with its columns innermost.  scale_log2 = log2(e) / sqrt(64), so that exp2 serves.
#include "ptx_sm90.cuh"

constexpr int D = 64, QUERIES = 64, KEYS = 32, STAGES = 2;
constexpr u32 Q_BYTES = QUERIES * D * 2, KEY_BYTES = KEYS * D * 2;

extern "C" __global__ void __launch_bounds__(160)
wgmma_attention(bf16* o, float* lse, const __grid_constant__ TensorMap q_map, const __grid_constant__ TensorMap k_map,
                const __grid_constant__ TensorMap v_map, int T, float scale_log2) {
    __shared__ __align__(1024) u8 qs[Q_BYTES], ks[STAGES][KEY_BYTES], vs[STAGES][KEY_BYTES];
    __shared__ __align__(8) u64 query_full, full[STAGES], empty[STAGES];
    const int query0 = blockIdx.x * QUERIES;
    const int tiles = (min(query0 + QUERIES, T) + KEYS - 1) / KEYS;  // later keys are masked for all queries of the block
    if (threadIdx.x == 0) {
        mbarrier_init(shared_address(&query_full), 1);
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(shared_address(&full[s]), 1);
            mbarrier_init(shared_address(&empty[s]), 128);
        }
        fence_mbarrier_init();
    }
    __syncthreads();  // the barriers are ready

    if (threadIdx.x >= 128) {
        if (elect_one()) {
            mbarrier_arrive_expect_tx(shared_address(&query_full), Q_BYTES);
            tensor_load_2d(shared_address(qs), q_map, 0, query0, shared_address(&query_full));
            for (int tile = 0; tile < tiles; tile++) {
                const int s = tile % STAGES;
                mbarrier_wait(shared_address(&empty[s]), (tile / STAGES + 1) % 2);
                mbarrier_arrive_expect_tx(shared_address(&full[s]), 2 * KEY_BYTES);
                tensor_load_2d(shared_address(ks[s]), k_map, 0, tile * KEYS, shared_address(&full[s]));
                tensor_load_2d(shared_address(vs[s]), v_map, 0, tile * KEYS, shared_address(&full[s]));
            }
        }
        return;
    }

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sum[32] = {}, m[2] = {minus_infinity(), minus_infinity()}, l[2] = {};
    mbarrier_wait(shared_address(&query_full), 0);
    for (int tile = 0; tile < tiles; tile++) {
        const int stage = tile % STAGES;
        mbarrier_wait(shared_address(&full[stage]), tile / STAGES % 2);

        float s[16];  // 64 queries x 32 keys
        hold(s);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < D / 16; i++)
            wgmma_m64n32k16(s, wgmma_descriptor(shared_address(qs) + i * 32, 1024),
                            wgmma_descriptor(shared_address(ks[stage]) + i * 32, 1024), i > 0);
        wgmma_commit();
        wgmma_wait<0>();
        hold(s);

#pragma unroll
        for (int half = 0; half < 2; half++) {  // rows lane / 4 and lane / 4 + 8 of the warp's 16
            const int query = query0 + warp * 16 + half * 8 + lane / 4;
            float largest = m[half];
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float& x = s[j / 2 * 4 + half * 2 + j % 2];
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
            for (int j = 0; j < 8; j++) {
                float& x = s[j / 2 * 4 + half * 2 + j % 2];
                x = exp2f(x - largest);
                l[half] += x;
            }
#pragma unroll
            for (int n = 0; n < 8; n++) sum[n * 4 + half * 2] *= correction, sum[n * 4 + half * 2 + 1] *= correction;
        }

        u32 fp[KEYS / 16][4];
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) fp[i][e] = pack_bf16(s[i * 8 + e * 2], s[i * 8 + e * 2 + 1]);
        hold(sum);
        wgmma_fence();  // the sums and the probabilities were written by ordinary instructions
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++)
            wgmma_m64n64k16(sum, fp[i], wgmma_descriptor(shared_address(vs[stage]) + i * 16 * 128, 1024), true);
        wgmma_commit();
        wgmma_wait<0>();
        hold(sum);
        mbarrier_arrive(shared_address(&empty[stage]));
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
                pack_bf16(sum[n * 4 + half * 2] * scale, sum[n * 4 + half * 2 + 1] * scale);
        if (lane % 4 == 0) lse[query] = (m[half] + log2f(l[half])) * 0.6931471805599453f;
    }
}

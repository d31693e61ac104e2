// Causal attention with grouped queries, forward.
//   q: [B T, heads D]   k: [B T, kv_heads D]   v: [B T, kv_heads DV]   o: [B T, heads DV]   lse: [B, kv_heads, T heads / kv_heads]
//   o = softmax(scale q k^T) v over the keys at or before each query, in its document, that are not padding
//   lse = log sum_j exp(scale q k_j)
// A query without keys gives o = 0 and lse = +infinity. Dropout: each probability times 0 or 1 / (1 - p), after the softmax.
// Saved for backward: q, k, v, o and lse.
// Bound by arithmetic: 2 (D + DV) operations for a pair of query and key; at small D by the exponentials, one a pair.
//
// FlashAttention-2 (Dao 2023): a block owns ROWS rows (attention.cuh) and walks over tiles of KEY_STEP keys up to the diagonal,
// under a running maximum. K and V come by cp.async, one tile ahead. A warp owns 16 or 32 rows: of 32, each operand that it reads
// from shared memory serves two products. Scores, probabilities and sums never leave registers. Only tiles on the diagonal, at the
// beginning of a document or with padding are masked; those wholly outside are never read.
// The tensor cores take half precision; attention_f32.cu has the same kernels for float.
#ifndef element
#define element bf16
#endif

#include "attention.cuh"

// Tiles of 16 rows that a warp owns. Two keep the products from waiting for shared memory, as long as the sums fit in registers;
// dropout waits for its random numbers anyway.
#ifndef ROW_TILES
#define ROW_TILES (VALUE_DIM <= 128 && DROPOUT == 0 ? 2 : 1)
#endif
#ifndef ROW_WARPS
#define ROW_WARPS (DROPOUT ? 8 : 4)
#endif
// Keys of a step.
#ifndef KEY_STEP
#define KEY_STEP (HEAD_DIM + VALUE_DIM <= 192 - 64 * PADDING || DROPOUT && HEAD_DIM <= 128 ? 64 : 32)
#endif

constexpr int ROWS = ROW_WARPS * ROW_TILES * 16;
constexpr int THREADS = ROW_WARPS * 32;
constexpr int Q_BYTES = ROWS * (HEAD_DIM > VALUE_DIM ? D : DV) * 2;
constexpr int KV_BYTES = KEY_STEP * (D + DV) * 2;
constexpr int STAGE_BYTES = KV_BYTES + DROPOUT * ROWS * KEY_STEP / 8 + PADDING * 128;
#define SHARED_BYTES (Q_BYTES + 2 * STAGE_BYTES + DOCUMENTS * ROWS * 4)
constexpr int BLOCKS = ROW_WARPS == 4 ? 2 : 1;

// The scores of a warp and what the softmax of its rows knows so far. A lane holds rows lane / 4 and lane / 4 + 8 of each tile, and
// of 8 keys 2 (lane % 4) and the next.
struct Softmax {
    float sum[ROW_TILES][DV / 8][4];  // of values
    float max[ROW_TILES][2];          // of scores
    float total[ROW_TILES][2];        // of exponentials: this lane's share
};

// Scores to probabilities under the new maximum; what was summed before is scaled to it.
__device__ __forceinline__ void advance(Softmax& softmax, float (&s)[ROW_TILES][KEY_STEP / 8][4], float scale_log2) {
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float max = softmax.max[m][h];
#pragma unroll
            for (int n = 0; n < KEY_STEP / 8; n++) max = fmaxf(max, fmaxf(s[m][n][h * 2], s[m][n][h * 2 + 1]));
            max = warp_max<4>(max);  // a row lies in 4 lanes
            // A row that has seen no key yet: infinity minus infinity would be no number.
            const float shift = max == minus_infinity() ? 0.0f : max * scale_log2;
            const float rescale = exp2_fast(fmaf(softmax.max[m][h], scale_log2, -shift));
            softmax.max[m][h] = max;
            float total = softmax.total[m][h] * rescale;
#pragma unroll
            for (int n = 0; n < KEY_STEP / 8; n++)
#pragma unroll
                for (int e = h * 2; e < h * 2 + 2; e++) {
                    s[m][n][e] = exp2_fast(fmaf(s[m][n][e], scale_log2, -shift));
                    total += s[m][n][e];
                }
            softmax.total[m][h] = total;
            if (__any_sync(ALL_LANES, rescale != 1.0f))  // after the first tiles the maximum seldom moves
#pragma unroll
                for (int n = 0; n < DV / 8; n++) softmax.sum[m][n][h * 2] *= rescale, softmax.sum[m][n][h * 2 + 1] *= rescale;
        }
}

// launch: grid (ceil_div(T * (heads / kv_heads), ROWS), kv_heads, B), block THREADS, shared SHARED_BYTES, registers 255
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
attention_forward(element* o,                             // [B T, heads VALUE_DIM]
                  float* lse,                             // [B, kv_heads, T heads / kv_heads]
                  const element* q,                       // [B T, q_pitch], heads HEAD_DIM of each row
                  const element* k,                       // [B T, k_pitch], kv_heads HEAD_DIM of each row
                  const element* v,                       // [B T, v_pitch], kv_heads VALUE_DIM of each row
                  const int* document_starts,             // [B, T] first token of each token's document, if DOCUMENTS
                  const int* attention_mask,              // [B, T] 0 where a token is padding; if PADDING
                  const unsigned long long* philox_key,   // [1] if DROPOUT
                  const unsigned long long* sample_ids,   // [B] if DROPOUT
                  int B, int T, int heads, int kv_heads, int q_pitch, int k_pitch, int v_pitch,  // pitches: multiples of 8
                  float scale,                            // above 0
                  unsigned dropped_below,                 // p 2^32
                  float kept_scale) {                     // 1 / (1 - p)
    extern __shared__ __align__(128) unsigned char shared[];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const Rows& rows = block_rows(T, heads, kv_heads);
    const int row0 = (gridDim.x - 1 - blockIdx.x) * ROWS;  // the longest walks first
    if (DOCUMENTS) document_starts += rows.first_token;
    Dropout dropout = {{0}, dropped_below};
    if (DROPOUT) dropout.philox = philox_stream({philox_key[0]}, sample_ids[blockIdx.z]);

    const u32 q_tile = shared_address(shared);
    auto k_tile = [&](int stage) { return q_tile + Q_BYTES + stage * STAGE_BYTES; };
    auto v_tile = [&](int stage) { return k_tile(stage) + KEY_STEP * D * 2; };
    // Beside them: whether the keys are real, the pairs that dropout keeps, and for all tiles where the rows' documents begin.
    auto real = [&](int stage) { return reinterpret_cast<u32*>(shared + Q_BYTES + stage * STAGE_BYTES + KV_BYTES); };
    auto keep = [&](int stage) { return real(stage) + PADDING * 32; };
    int* from = reinterpret_cast<int*>(shared + Q_BYTES + 2 * STAGE_BYTES);
    auto load = [&](int stage, int tile) {
        const int key0 = opaque(tile * KEY_STEP);
        const long long first = (long long)opaque(blockIdx.z) * T + key0;
        load_tile<KEY_STEP, HEAD_DIM, THREADS>(
            k_tile(stage), k, [&](int r) { return key0 + r < T ? k + (first + r) * k_pitch + blockIdx.y * HEAD_DIM : nullptr; });
        load_tile<KEY_STEP, VALUE_DIM, THREADS>(
            v_tile(stage), v, [&](int r) { return key0 + r < T ? v + (first + r) * v_pitch + blockIdx.y * VALUE_DIM : nullptr; });
        if (PADDING) find_real<KEY_STEP>(real(stage), attention_mask + first, T - key0);
        if (DROPOUT) draw_kept<ROWS, KEY_STEP, ROW_WARPS>(keep(stage), dropout, rows, row0, key0);
    };

    const int warp_row = warp * ROW_TILES * 16;
    auto token_of = [&](int row) { return rows.token(min(row0 + row, rows.count - 1)); };
    auto first_key = [&](int token) { return DOCUMENTS ? document_starts[token] : 0; };
    if (DOCUMENTS)
        for (int r = threadIdx.x; r < ROWS; r += THREADS) from[r] = first_key(token_of(r));
    const int first_tile = first_key(token_of(0)) / KEY_STEP, last_tile = token_of(ROWS - 1) / KEY_STEP;

    load_tile<ROWS, HEAD_DIM, THREADS>(
        q_tile, q, [&](int r) { return row0 + r < rows.count ? q + rows.at(row0 + r, q_pitch, HEAD_DIM) : nullptr; });
    load(0, first_tile);
    copy_async_commit();

    Softmax softmax = {};
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++) softmax.max[m][0] = softmax.max[m][1] = minus_infinity();
    for (int tile = first_tile; tile <= last_tile; tile++) {
        const int stage = (tile - first_tile) % 2, key0 = tile * KEY_STEP;
        copy_async_wait<0>();
        __syncthreads();  // everyone's part of this tile has come, and everyone has left the other stage, which is filled now
        if (tile < last_tile) load(stage ^ 1, tile + 1);
        copy_async_commit();
        const int own_row = opaque(warp_row), last_row = own_row + ROW_TILES * 16 - 1;
        if (key0 > token_of(last_row) || DOCUMENTS && key0 + KEY_STEP <= from[own_row]) continue;  // nothing that this warp sees

        float s[ROW_TILES][KEY_STEP / 8][4] = {};
        multiply<D>(s, q_tile, own_row, k_tile(stage));
        if (key0 + KEY_STEP - 1 > token_of(own_row) || DOCUMENTS && key0 < from[last_row] || has_padding<KEY_STEP>(real(stage)))
            mask_unseen(s, row0 + own_row, key0, rows.group, from + own_row, real(stage));
        advance(softmax, s, scale * LOG2_E);
        if (DROPOUT) drop(s, keep(stage) + own_row * (KEY_STEP / 32));
        u32 p[ROW_TILES][KEY_STEP / 16][4];
        pack_left(p, s);
        accumulate<DV>(softmax.sum, p, v_tile(stage));
    }

#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float total = warp_sum<4>(softmax.total[m][h]);
            const float factor = total == 0.0f ? 0.0f : (DROPOUT ? kept_scale : 1.0f) / total;
            const int row = row0 + warp_row + m * 16 + h * 8 + lane / 4;
            const float own_lse = total == 0.0f ? -minus_infinity() : fmaf(softmax.max[m][h], scale, log2f(total) / LOG2_E);
            if (row < rows.count && lane % 4 == 0) lse[rows.first_row + row] = own_lse;
#pragma unroll
            for (int n = 0; n < DV / 8; n++) softmax.sum[m][n][h * 2] *= factor, softmax.sum[m][n][h * 2 + 1] *= factor;
        }
    __syncthreads();  // no warp reads q any more: its place takes o
    store_rows<VALUE_DIM>(shared + warp_row * DV * 2, softmax.sum, 1.0f, [&](int r) {
        const int row = row0 + warp_row + r;
        return row < rows.count ? o + rows.at(row, heads * VALUE_DIM, VALUE_DIM) : nullptr;
    });
}

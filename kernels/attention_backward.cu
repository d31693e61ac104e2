// Causal attention with grouped queries, backward. q, k, v, o, lse: what attention_forward.cu read and left; d_o has the shape of
// o.
//   p = exp(scale q k^T - lse)    delta = sum over columns of o d_o, for each row    ds = p (d_o v^T - delta)
//   dq = scale ds k    dk = scale ds^T q    dv = p^T d_o
// Dropout: p times 0 or 1 / (1 - p) in dv, and d_o v^T times the same in ds. A query without keys (lse = +infinity) has p = 0.
// Bound by arithmetic: 2 (3 D + 2 DV) operations for a pair of query and key, and 2 (D + DV) for the products that are made twice.
//
// Two kernels without atomics, so that the bits never depend on the order of blocks. The first owns query rows and walks over keys:
// dq, and delta on the way, so that o is read once. The second owns keys and walks over the rows of all query heads of their group:
// dk, dv. Each makes q k^T and d_o v^T for itself: 7 products where one kernel would make 5. But that one would leave a dq in float
// for every block of keys, to be added up in order: written and read again, this takes as long as the products, and memory that
// grows with T^2. The second kernel's products are transposed, keys x rows, so that p^T and ds^T pass from sums to left operands in
// registers.
// The tensor cores take half precision; attention_f32.cu has the same kernels for float.
#ifndef element
#define element bf16
#endif

#include "attention.cuh"

// Tiles of 16 rows that a warp owns, and the keys of a step. Two tiles keep the products from waiting for shared memory, as long as
// the sums fit in registers; dropout waits for its random numbers anyway.
#ifndef ROW_TILES
#define ROW_TILES (HEAD_DIM <= 128 && DROPOUT == 0 ? 2 : 1)
#endif
#ifndef ROW_WARPS
#define ROW_WARPS (DROPOUT && HEAD_DIM + VALUE_DIM <= 320 ? 8 : 4)
#endif
#ifndef KEY_STEP
#define KEY_STEP (DROPOUT && HEAD_DIM <= 64 ? 64 : 32)
#endif
// The same of the kernel that owns keys, and the rows of a step.
#ifndef KEY_TILES
#define KEY_TILES (HEAD_DIM + VALUE_DIM <= 128 && DROPOUT == 0 ? 2 : 1)
#endif
#ifndef KEY_WARPS
#define KEY_WARPS (KEY_TILES == 2 || HEAD_DIM + VALUE_DIM > 320 ? 4 : 8)
#endif
#ifndef ROW_STEP
#define ROW_STEP (KEY_TILES == 2 || HEAD_DIM + VALUE_DIM > 256 || DROPOUT && HEAD_DIM + VALUE_DIM > 192 ? 32 : 64)
#endif
// What the kernel that owns keys gives: with wide heads one launch for each, as the sums of both do not fit in registers.
#ifndef WITH_DK
#define WITH_DK 1
#endif
#ifndef WITH_DV
#define WITH_DV 1
#endif

constexpr int ROWS = ROW_WARPS * ROW_TILES * 16;
constexpr int ROW_THREADS = ROW_WARPS * 32;
constexpr int ROW_BYTES = ROWS * (D + DV) * 2;
constexpr int KV_BYTES = KEY_STEP * (D + DV) * 2;
constexpr int KEY_STAGE_BYTES = KV_BYTES + DROPOUT * ROWS * KEY_STEP / 8 + PADDING * 128;
#define ROW_SHARED_BYTES (ROW_BYTES + 2 * KEY_STAGE_BYTES + (2 + DOCUMENTS) * ROWS * 4)

constexpr int OWN_KEYS = KEY_WARPS * KEY_TILES * 16;
constexpr int KEY_THREADS = KEY_WARPS * 32;
constexpr int KEY_BYTES = OWN_KEYS * (D + DV) * 2;
constexpr int ROW_STAGE_BYTES = ROW_STEP * ((D + DV) * 2 + 8) + DROPOUT * ROW_STEP * OWN_KEYS / 8;
#define KEY_SHARED_BYTES (KEY_BYTES + 2 * ROW_STAGE_BYTES + (DOCUMENTS || PADDING) * OWN_KEYS * 4)

// The dots of a warp's rows of o, which come from memory, and d_o, which lies in a tile: to `delta`, 0 where there is no row. A row
// is read by SPREAD lanes, as load_tile writes it.
template <int COUNT, typename Row>
__device__ __forceinline__ void row_dots(float* delta, const unsigned char* d_o_tile, int tile_row, Row row) {
    using T = Tile<DV>;
    const int lane = threadIdx.x % WARP, unit = lane % T::SPREAD;
    for (int r = lane / T::SPREAD; r < COUNT; r += WARP / T::SPREAD) {
        const element* o = row(r);
        float sum = 0.0f;
#pragma unroll
        for (int u = 0; u < T::UNITS; u += T::SPREAD)
            if (o != nullptr && (unit + u) * 8 < VALUE_DIM) {
                const auto a = load_vector(o + (unit + u) * 8);
                const auto b = *reinterpret_cast<const Vector<element>*>(d_o_tile + T::step(T::offset(tile_row + r, unit), 0, u));
#pragma unroll
                for (int i = 0; i < 8; i++) sum = fmaf(to_float(a.at[i]), to_float(b.at[i]), sum);
            }
        sum = warp_sum<T::SPREAD>(sum);
        if (unit == 0) delta[r] = sum;
    }
}

// launch: grid (ceil_div(T * (heads / kv_heads), ROWS), kv_heads, B), block ROW_THREADS, shared ROW_SHARED_BYTES, registers 255
extern "C" __global__ void __launch_bounds__(ROW_THREADS, ROW_WARPS == 4 && HEAD_DIM + VALUE_DIM <= 320 ? 2 : 1)
attention_backward_queries(element* dq,                            // [B T, dq_pitch], heads HEAD_DIM of each row
                           float* delta,                           // [B, kv_heads, T heads / kv_heads]
                           const element* q,                       // [B T, q_pitch], heads HEAD_DIM of each row
                           const element* k,                       // [B T, k_pitch], kv_heads HEAD_DIM of each row
                           const element* v,                       // [B T, v_pitch], kv_heads VALUE_DIM of each row
                           const element* o,                       // [B T, heads VALUE_DIM]
                           const element* d_o,                     // [B T, heads VALUE_DIM]
                           const float* lse,                       // [B, kv_heads, T heads / kv_heads]
                           const int* document_starts,             // [B, T] first token of each token's document, if DOCUMENTS
                           const int* attention_mask,              // [B, T] 0 where a token is padding, if PADDING
                           const unsigned long long* philox_key,   // [1] if DROPOUT
                           const unsigned long long* sample_ids,   // [B] if DROPOUT
                           int B, int T, int heads, int kv_heads, int dq_pitch, int q_pitch, int k_pitch, int v_pitch,
                           float scale, unsigned dropped_below,    // p 2^32
                           float kept_scale) {                     // 1 / (1 - p)
    extern __shared__ __align__(128) unsigned char shared[];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const Rows& rows = block_rows(T, heads, kv_heads);
    const int row0 = (gridDim.x - 1 - blockIdx.x) * ROWS;  // the longest walks first
    if (DOCUMENTS) document_starts += rows.first_token;
    Dropout dropout = {{0}, dropped_below};
    if (DROPOUT) dropout.philox = philox_stream({philox_key[0]}, sample_ids[blockIdx.z]);

    const u32 q_tile = shared_address(shared), d_o_tile = q_tile + ROWS * D * 2;
    auto k_tile = [&](int stage) { return q_tile + ROW_BYTES + stage * KEY_STAGE_BYTES; };
    auto v_tile = [&](int stage) { return k_tile(stage) + KEY_STEP * D * 2; };
    // Beside them: whether the keys are real, the pairs that dropout keeps, and for all tiles what the rows are known by.
    auto real = [&](int stage) { return reinterpret_cast<u32*>(shared + ROW_BYTES + stage * KEY_STAGE_BYTES + KV_BYTES); };
    auto keep = [&](int stage) { return real(stage) + PADDING * 32; };
    float* row_lse = reinterpret_cast<float*>(shared + ROW_BYTES + 2 * KEY_STAGE_BYTES);  // in units of log 2
    float* row_delta = row_lse + ROWS;
    int* from = reinterpret_cast<int*>(row_delta + ROWS);
    auto load = [&](int stage, int tile) {
        const int key0 = opaque(tile * KEY_STEP);
        const long long first = (long long)opaque(blockIdx.z) * T + key0;
        load_tile<KEY_STEP, HEAD_DIM, ROW_THREADS>(
            k_tile(stage), k, [&](int r) { return key0 + r < T ? k + (first + r) * k_pitch + blockIdx.y * HEAD_DIM : nullptr; });
        load_tile<KEY_STEP, VALUE_DIM, ROW_THREADS>(
            v_tile(stage), v, [&](int r) { return key0 + r < T ? v + (first + r) * v_pitch + blockIdx.y * VALUE_DIM : nullptr; });
        if (PADDING) find_real<KEY_STEP>(real(stage), attention_mask + first, T - key0);
        if (DROPOUT) draw_kept<ROWS, KEY_STEP, ROW_WARPS>(keep(stage), dropout, rows, row0, key0);
    };

    const int warp_row = warp * ROW_TILES * 16;
    auto token_of = [&](int row) { return rows.token(min(row0 + row, rows.count - 1)); };
    auto first_key = [&](int token) { return DOCUMENTS ? document_starts[token] : 0; };
    const int first_tile = first_key(token_of(0)) / KEY_STEP, last_tile = token_of(ROWS - 1) / KEY_STEP;

    load_tile<ROWS, HEAD_DIM, ROW_THREADS>(
        q_tile, q, [&](int r) { return row0 + r < rows.count ? q + rows.at(row0 + r, q_pitch, HEAD_DIM) : nullptr; });
    load_tile<ROWS, VALUE_DIM, ROW_THREADS>(d_o_tile, d_o, [&](int r) {
        return row0 + r < rows.count ? d_o + rows.at(row0 + r, heads * VALUE_DIM, VALUE_DIM) : nullptr;
    });
    load(0, first_tile);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();  // everyone's part of d_o has come
    row_dots<ROW_TILES * 16>(row_delta + warp_row, shared + ROWS * D * 2, warp_row, [&](int r) {
        const int row = row0 + warp_row + r;
        return row < rows.count ? o + rows.at(row, heads * VALUE_DIM, VALUE_DIM) : nullptr;
    });
    __syncthreads();  // everyone's deltas are there; of what follows, the barrier before the first product
    for (int r = threadIdx.x; r < ROWS; r += ROW_THREADS) {
        const bool inside = row0 + r < rows.count;
        row_lse[r] = inside ? lse[rows.first_row + row0 + r] * LOG2_E : 0.0f;
        if (inside) delta[rows.first_row + row0 + r] = row_delta[r];
        if (DOCUMENTS) from[r] = first_key(token_of(r));
    }

    float sum[ROW_TILES][D / 8][4] = {};
    for (int tile = first_tile; tile <= last_tile; tile++) {
        const int stage = (tile - first_tile) % 2, key0 = tile * KEY_STEP;
        copy_async_wait<0>();
        __syncthreads();  // everyone's part of this tile has come, and everyone has left the other stage, which is filled now
        if (tile < last_tile) load(stage ^ 1, tile + 1);
        copy_async_commit();
        const int own_row = opaque(warp_row), last_row = own_row + ROW_TILES * 16 - 1;
        if (key0 > token_of(last_row) || DOCUMENTS && key0 + KEY_STEP <= from[own_row]) continue;  // nothing that this warp sees

        float s[ROW_TILES][KEY_STEP / 8][4] = {}, ds[ROW_TILES][KEY_STEP / 8][4] = {};
        multiply<D>(s, q_tile, own_row, k_tile(stage));
        if (key0 + KEY_STEP - 1 > token_of(own_row) || DOCUMENTS && key0 < from[last_row] || has_padding<KEY_STEP>(real(stage)))
            mask_unseen(s, row0 + own_row, key0, rows.group, from + own_row, real(stage));
        multiply<DV>(ds, d_o_tile, own_row, v_tile(stage));
        if (DROPOUT) drop(ds, keep(stage) + own_row * (KEY_STEP / 32));
#pragma unroll
        for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = own_row + m * 16 + h * 8 + lane / 4;
                const float own_lse = row_lse[row], own_delta = row_delta[row];
#pragma unroll
                for (int n = 0; n < KEY_STEP / 8; n++)
#pragma unroll
                    for (int e = h * 2; e < h * 2 + 2; e++) {
                        const float p = exp2_fast(fmaf(s[m][n][e], scale * LOG2_E, -own_lse));
                        ds[m][n][e] = p * (DROPOUT ? fmaf(ds[m][n][e], kept_scale, -own_delta) : ds[m][n][e] - own_delta);
                    }
            }
        u32 left[ROW_TILES][KEY_STEP / 16][4];
        pack_left(left, ds);
        accumulate<D>(sum, left, k_tile(stage));
    }

    __syncwarp();  // nobody reads this warp's rows of q any more: their place takes dq
    store_rows<HEAD_DIM>(shared + warp_row * D * 2, sum, scale, [&](int r) {
        const int row = row0 + warp_row + r;
        return row < rows.count ? dq + rows.at(row, dq_pitch, HEAD_DIM) : nullptr;
    });
}

// launch: grid (ceil_div(T, OWN_KEYS), kv_heads, B), block KEY_THREADS, shared KEY_SHARED_BYTES, registers 255
extern "C" __global__ void __launch_bounds__(KEY_THREADS, KEY_TILES == 2 ? 2 : 1)
attention_backward_keys(element* dk,                            // [B T, dk_pitch], kv_heads HEAD_DIM of each row, if WITH_DK
                        element* dv,                            // [B T, dv_pitch], kv_heads VALUE_DIM of each row, if WITH_DV
                        const element* q,                       // [B T, q_pitch], heads HEAD_DIM of each row
                        const element* k,                       // [B T, k_pitch], kv_heads HEAD_DIM of each row
                        const element* v,                       // [B T, v_pitch], kv_heads VALUE_DIM of each row
                        const element* d_o,                     // [B T, heads VALUE_DIM]
                        const float* lse,                       // [B, kv_heads, T heads / kv_heads]
                        const float* delta,                     // [B, kv_heads, T heads / kv_heads]
                        const int* document_ends,               // [B, T] one past each token's document, if DOCUMENTS
                        const int* attention_mask,              // [B, T] 0 where a token is padding, if PADDING
                        const unsigned long long* philox_key,   // [1] if DROPOUT
                        const unsigned long long* sample_ids,   // [B] if DROPOUT
                        int B, int T, int heads, int kv_heads, int dk_pitch, int dv_pitch, int q_pitch, int k_pitch, int v_pitch,
                        float scale, unsigned dropped_below,    // p 2^32
                        float kept_scale) {                     // 1 / (1 - p)
    extern __shared__ __align__(128) unsigned char shared[];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const Rows& rows = block_rows(T, heads, kv_heads);
    const int key0 = blockIdx.x * OWN_KEYS, warp_key = warp * KEY_TILES * 16;  // the longest walks, those of the first keys, first
    const long long first_key = rows.first_token + key0;
    if (DOCUMENTS) document_ends += rows.first_token;
    if (PADDING) attention_mask += rows.first_token;
    Dropout dropout = {{0}, dropped_below};
    if (DROPOUT) dropout.philox = philox_stream({philox_key[0]}, sample_ids[blockIdx.z]);

    const u32 k_tile = shared_address(shared), v_tile = k_tile + OWN_KEYS * D * 2;
    auto q_tile = [&](int stage) { return k_tile + KEY_BYTES + stage * ROW_STAGE_BYTES; };
    auto d_o_tile = [&](int stage) { return q_tile(stage) + ROW_STEP * D * 2; };
    auto lses = [&](int stage) {  // of the stage's rows; their deltas lie behind, then what they keep
        return reinterpret_cast<float*>(shared + KEY_BYTES + stage * ROW_STAGE_BYTES + ROW_STEP * (D + DV) * 2);
    };
    auto keep = [&](int stage) { return reinterpret_cast<u32*>(lses(stage) + 2 * ROW_STEP); };
    auto load = [&](int stage, int tile) {
        const int row0 = opaque(tile * ROW_STEP);
        load_tile<ROW_STEP, HEAD_DIM, KEY_THREADS>(
            q_tile(stage), q, [&](int r) { return row0 + r < rows.count ? q + rows.at(row0 + r, q_pitch, HEAD_DIM) : nullptr; });
        load_tile<ROW_STEP, VALUE_DIM, KEY_THREADS>(d_o_tile(stage), d_o, [&](int r) {
            return row0 + r < rows.count ? d_o + rows.at(row0 + r, heads * VALUE_DIM, VALUE_DIM) : nullptr;
        });
        if (threadIdx.x < ROW_STEP) {
            // Rows behind the last are masked: it stands in for them.
            const long long row = rows.first_row + min(row0 + (int)threadIdx.x, rows.count - 1);
            copy_async_4(shared_address(lses(stage) + threadIdx.x), lse + row);
            copy_async_4(shared_address(lses(stage) + ROW_STEP + threadIdx.x), delta + row);
        }
        if (DROPOUT) draw_kept<ROW_STEP, OWN_KEYS, KEY_WARPS>(keep(stage), dropout, rows, row0, key0);
    };

    // The rows that see the warp's keys: from the first token's that comes to a key, up to its document's end; none sees padding.
    auto end_row = [&](int key) { return (DOCUMENTS ? document_ends[min(key, T - 1)] : T) * rows.group; };
    const int lane_key = key0 + warp_key + lane % (KEY_TILES * 16);
    const bool padded = PADDING && __any_sync(ALL_LANES, lane_key < T && attention_mask[lane_key] == 0);
    int* ends = reinterpret_cast<int*>(shared + KEY_BYTES + 2 * ROW_STAGE_BYTES);  // of each key; that of padding with a minus
    if (DOCUMENTS || PADDING)
        for (int i = threadIdx.x; i < OWN_KEYS; i += KEY_THREADS) {
            const bool is_padding = PADDING && key0 + i < T && attention_mask[key0 + i] == 0;
            ends[i] = is_padding ? -end_row(key0 + i) : end_row(key0 + i);
        }
    auto end = [&](int key) { return DOCUMENTS || PADDING ? ends[key] : rows.count; };
    const int first_tile = key0 * rows.group / ROW_STEP, last_tile = (end_row(key0 + OWN_KEYS - 1) - 1) / ROW_STEP;

    load_tile<OWN_KEYS, HEAD_DIM, KEY_THREADS>(
        k_tile, k, [&](int r) { return key0 + r < T ? k + (first_key + r) * k_pitch + blockIdx.y * HEAD_DIM : nullptr; });
    load_tile<OWN_KEYS, VALUE_DIM, KEY_THREADS>(
        v_tile, v, [&](int r) { return key0 + r < T ? v + (first_key + r) * v_pitch + blockIdx.y * VALUE_DIM : nullptr; });
    load(0, first_tile);
    copy_async_commit();

    float sum_k[KEY_TILES][D / 8][4] = {}, sum_v[KEY_TILES][DV / 8][4] = {};
    for (int tile = first_tile; tile <= last_tile; tile++) {
        const int stage = opaque((tile - first_tile) % 2), row0 = opaque(tile * ROW_STEP);
        copy_async_wait<0>();
        __syncthreads();  // everyone's part of this tile has come, and everyone has left the other stage, which is filled now
        if (tile < last_tile) load(stage ^ 1, tile + 1);
        copy_async_commit();
        const int own_key = opaque(warp_key), last_key = own_key + KEY_TILES * 16 - 1;
        if (row0 + ROW_STEP <= (key0 + own_key) * rows.group || row0 >= abs(end(last_key))) continue;  // none sees this warp's keys

        float p[KEY_TILES][ROW_STEP / 8][4] = {};
        u32 left[KEY_TILES][ROW_STEP / 16][4];
        multiply<D>(p, k_tile, own_key, q_tile(stage));
        if (padded || row0 < (key0 + last_key) * rows.group || row0 + ROW_STEP > end(own_key))
#pragma unroll
            for (int m = 0; m < KEY_TILES; m++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const int key = own_key + m * 16 + h * 8 + lane / 4, from = (key0 + key) * rows.group, to = end(key);
#pragma unroll
                    for (int n = 0; n < ROW_STEP / 8; n++)
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            const int row = row0 + n * 8 + lane % 4 * 2 + e;
                            if (row < from || row >= to) p[m][n][h * 2 + e] = minus_infinity();
                        }
                }
#pragma unroll
        for (int n = 0; n < ROW_STEP / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float row_lse = lses(stage)[n * 8 + lane % 4 * 2 + e % 2] * LOG2_E;
#pragma unroll
                for (int m = 0; m < KEY_TILES; m++) p[m][n][e] = exp2_fast(fmaf(p[m][n][e], scale * LOG2_E, -row_lse));
            }
        // Whether row i of the tile keeps this lane's key of tile m, half h.
        auto kept = [&](int i, int m, int h) {
            const int key = warp_key + m * 16 + h * 8 + lane / 4;
            return keep(stage)[i * (OWN_KEYS / 32) + key / 32] >> key % 32 & 1;
        };
        if (WITH_DV) {
            float dropped[KEY_TILES][ROW_STEP / 8][4];
#pragma unroll
            for (int m = 0; m < KEY_TILES; m++)
#pragma unroll
                for (int n = 0; n < ROW_STEP / 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        dropped[m][n][e] = !DROPOUT || kept(n * 8 + lane % 4 * 2 + e % 2, m, e / 2) ? p[m][n][e] : 0.0f;
            pack_left(left, dropped);
            accumulate<DV>(sum_v, left, d_o_tile(stage));
        }
        if (WITH_DK) {
            float ds[KEY_TILES][ROW_STEP / 8][4] = {};
            multiply<DV>(ds, v_tile, own_key, d_o_tile(stage));
#pragma unroll
            for (int n = 0; n < ROW_STEP / 8; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int i = n * 8 + lane % 4 * 2 + e % 2;
                    const float row_delta = lses(stage)[ROW_STEP + i];
#pragma unroll
                    for (int m = 0; m < KEY_TILES; m++) {
                        float& x = ds[m][n][e];
                        if (DROPOUT) x = kept(i, m, e / 2) ? x * kept_scale : 0.0f;
                        x = p[m][n][e] * (x - row_delta);
                    }
                }
            pack_left(left, ds);
            accumulate<D>(sum_k, left, q_tile(stage));
        }
    }

    __syncwarp();  // nobody reads this warp's rows of k and v any more: their places take dk and dv
    const int keys = T - key0 - warp_key;
    const long long first_out = (long long)opaque(blockIdx.z) * T + key0 + warp_key;
    if (WITH_DK)
        store_rows<HEAD_DIM>(shared + warp_key * D * 2, sum_k, scale,
                             [&](int r) { return r < keys ? dk + (first_out + r) * dk_pitch + blockIdx.y * HEAD_DIM : nullptr; });
    if (WITH_DV)
        store_rows<VALUE_DIM>(shared + (OWN_KEYS * D + warp_key * DV) * 2, sum_v, DROPOUT ? kept_scale : 1.0f,
                              [&](int r) { return r < keys ? dv + (first_out + r) * dv_pitch + blockIdx.y * VALUE_DIM : nullptr; });
}

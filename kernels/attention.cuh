// What the passes of attention share: their rows, tiles in shared memory, the products of a warp, masks.
//
// The queries of all heads that read one key head are rows of one matrix: row r is token r / group, head r % group of the group.
// A tile of rows then needs each tile of keys and values once for the whole group, and ends at the diagonal after few tokens.
#pragma once

#include "async_copy.cuh"
#include "philox.cuh"

// Columns of a head of q and k, and of v and o: multiples of 8 up to 256.
#ifndef HEAD_DIM
#define HEAD_DIM 64
#endif
#ifndef VALUE_DIM
#define VALUE_DIM HEAD_DIM
#endif
// 1: queries look back no further than their document; no query sees padding; probabilities are dropped.
#ifndef DOCUMENTS
#define DOCUMENTS 0
#endif
#ifndef PADDING
#define PADDING 0
#endif
#ifndef DROPOUT
#define DROPOUT 0
#endif

// The same in tiles: mma takes 16 columns at a time, those behind the head are zeros.
constexpr int D = ceil_div(HEAD_DIM, 16) * 16;
constexpr int DV = ceil_div(VALUE_DIM, 16) * 16;

constexpr float LOG2_E = 1.4426950408889634f;

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

// 2^x, 2 units in the last place; results below the normal range become 0.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The same number, of which the compiler knows nothing: what follows from it is computed where it is used, and takes no registers
// across a loop.
__device__ __forceinline__ int opaque(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

// The rows of one sequence and key head. A block keeps it in shared memory: in the loops over tiles registers are short.
struct Rows {
    int group, first_head;  // query heads of the group, the first of them
    u32 inverse;            // 2^32 / group, rounded up: the upper half of its product with r is r / group while r group < 2^32
    int count;              // T group
    long long first_token;  // of the sequence among all, [B T]
    long long first_row;    // of the sequence and key head among all, [B, kv_heads, T group]

    __device__ __forceinline__ int token(int row) const { return group == 1 ? row : __umulhi(row, inverse); }
    __device__ __forceinline__ int head(int row) const { return first_head + row - token(row) * group; }
    // Where a row begins in a matrix with `pitch` elements to a token and `width` to a head.
    __device__ __forceinline__ long long at(int row, int pitch, int width) const {
        return (first_token + token(row)) * pitch + head(row) * width;
    }
};

// Those of the block. Everyone calls it.
__device__ __forceinline__ const Rows& block_rows(int T, int heads, int kv_heads) {
    __shared__ Rows rows;
    if (threadIdx.x == 0) {
        const int group = heads / kv_heads;
        rows = {group, (int)blockIdx.y * group, 0xffffffffu / group + 1, T * group, (long long)blockIdx.z * T,
                ((long long)blockIdx.z * kv_heads + blockIdx.y) * T * group};
    }
    __syncthreads();  // there for everyone
    return rows;
}

// A tile of WIDTH columns in shared memory, at a multiple of 128: rows of 16-byte units. The units of each run of SPREAD are
// permuted so that one unit of 8 neighbouring rows, which is what ldmatrix reads at once, lies in 8 different groups of banks.
template <int WIDTH>
struct Tile {
    static constexpr int UNITS = WIDTH / 8, SPREAD = UNITS % 8 == 0 ? 8 : UNITS % 4 == 0 ? 4 : 2, PITCH = WIDTH * 2;

    // Offset of one of the first SPREAD units of a row.
    static __device__ __forceinline__ u32 offset(int row, int unit) {
        return row * PITCH + (unit ^ row / (8 / SPREAD) % SPREAD) * 16;
    }
    // From there, `rows` (a multiple of 8) further down, `units` (which share no bit with the first one) further on.
    static __device__ __forceinline__ u32 step(u32 offset, int rows, int units) {
        return (offset ^ units % SPREAD * 16) + rows * PITCH + units / SPREAD * SPREAD * 16;
    }
};

// Begins to fill a tile of ROWS rows: row r with the COLUMNS elements at `row(r)`, zeros where that is null and behind COLUMNS.
template <int ROWS, int COLUMNS, int THREADS, typename Row>
__device__ __forceinline__ void load_tile(u32 tile, const element* readable, Row row) {
    using T = Tile<ceil_div(COLUMNS, 16) * 16>;
    constexpr int STEP = THREADS / T::SPREAD;
    const int first = threadIdx.x / T::SPREAD, unit = threadIdx.x % T::SPREAD;
    const u32 to = tile + T::offset(first, unit);
#pragma unroll
    for (int r = 0; r < ROWS; r += STEP) {
        if (ROWS % STEP != 0 && r + first >= ROWS) break;
        const element* from = row(r + first);
#pragma unroll
        for (int u = 0; u < T::UNITS; u += T::SPREAD) {
            const bool inside = from != nullptr && (unit + u) * 8 < COLUMNS;
            copy_async_16(T::step(to, r, u), inside ? from + (unit + u) * 8 : readable, inside ? 16 : 0);
        }
    }
}

// s += A B^T over the tiles' WIDTH columns, A the 16 M rows from `a_row`, B the first 8 N rows of its tile.
template <int WIDTH, int M, int N>
__device__ __forceinline__ void multiply(float (&s)[M][N][4], u32 a_tile, int a_row, u32 b_tile) {
    using T = Tile<WIDTH>;
    const int lane = threadIdx.x % WARP;
    const u32 a_at = a_tile + T::offset(a_row + lane % 16, lane / 16);
    const u32 b_at = b_tile + T::offset(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < WIDTH / 16; k++) {
        u32 a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) ldmatrix_x4(a[m], T::step(a_at, m * 16, k * 2));
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            u32 b[4];
            ldmatrix_x4(b, T::step(b_at, n * 8, k * 2));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_m16n8k16<element>(s[m][n], a[m], b[0], b[1]);
                mma_m16n8k16<element>(s[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// Sums as the left operands of the next product: in both, a lane holds the same places.
template <int M, int N>
__device__ __forceinline__ void pack_left(u32 (&a)[M][N / 2][4], const float (&s)[M][N][4]) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int h = 0; h < 2; h++) a[m][n / 2][n % 2 * 2 + h] = pack<element>(s[m][n][h * 2], s[m][n][h * 2 + 1]);
}

// sum += A B, A [16 M, 16 K] in registers, B the 16 K rows of a tile.
template <int WIDTH, int M, int K>
__device__ __forceinline__ void accumulate(float (&sum)[M][WIDTH / 8][4], const u32 (&a)[M][K][4], u32 b_tile) {
    using T = Tile<WIDTH>;
    const int lane = threadIdx.x % WARP;
    const u32 b_at = b_tile + T::offset(lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n += 2) {
            u32 b[4];
            ldmatrix_x4_trans(b, T::step(b_at, k * 16, n));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_m16n8k16<element>(sum[m][n], a[m][k], b[0], b[1]);
                mma_m16n8k16<element>(sum[m][n + 1], a[m][k], b[2], b[3]);
            }
        }
}

// Writes sums times a factor through a tile that this warp alone uses, so that whole sectors leave: the COLUMNS elements of row r
// to `row(r)`, up to the first row for which that is null.
template <int COLUMNS, int M, int N, typename Row>
__device__ __forceinline__ void store_rows(unsigned char* tile, const float (&sum)[M][N][4], float factor, Row row) {
    using T = Tile<N * 8>;
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int n = 0; n < N; n++)
                *reinterpret_cast<u32*>(tile + T::step(T::offset(lane / 4, 0), m * 16 + h * 8, n) + lane % 4 * 4) =
                    pack<element>(sum[m][n][h * 2] * factor, sum[m][n][h * 2 + 1] * factor);
    __syncwarp();  // the other lanes' parts of the rows are there
    const int first = lane / T::SPREAD, unit = lane % T::SPREAD;
#pragma unroll
    for (int r = first; r < M * 16; r += WARP / T::SPREAD) {
        element* to = row(r);
        if (to == nullptr) break;
#pragma unroll
        for (int u = 0; u < T::UNITS; u += T::SPREAD) {
            const unsigned char* from = tile + T::step(T::offset(r, unit), 0, u);
            if ((unit + u) * 8 < COLUMNS) store_vector(to + (unit + u) * 8, *reinterpret_cast<const Vector<element>*>(from));
        }
    }
}

// real[w], bit i: whether key 32 w + i of a tile is real, given the mask from its first one on, up to the last of the sequence;
// later ones count as padding. A warp makes a word.
template <int KEYS>
__device__ __forceinline__ void find_real(u32* real, const int* mask, int count) {
    const int w = threadIdx.x / WARP, key = threadIdx.x;
    if (w >= KEYS / 32) return;
    const u32 word = __ballot_sync(ALL_LANES, key < count && mask[key] != 0);
    if (threadIdx.x % WARP == 0) real[w] = word;
}

// Whether any of them is not.
template <int KEYS>
__device__ __forceinline__ bool has_padding(const u32* real) {
    bool all = true;
    for (int w = 0; PADDING && w < KEYS / 32; w++) all &= real[w] == ALL_LANES;
    return !all;
}

// Sets to minus infinity the scores of a warp's rows, of which `row0` is the first, with the keys from key0 that the rows do not
// see: those after their token, before their document (`from`, of each row), and padding (`real`, as of find_real).
template <int M, int N>
__device__ __forceinline__ void mask_unseen(float (&s)[M][N][4], int row0, int key0, int group, const int* from, const u32* real) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int i = n * 8 + lane % 4 * 2 + e, key = key0 + i;
            const int first_row = key * group - row0 - lane / 4;  // of the token at the key's place
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const bool seen = m * 16 + h * 8 >= first_row && (!DOCUMENTS || key >= from[m * 16 + h * 8 + lane / 4]) &&
                                      (!PADDING || real[n / 4] >> (i % 32) & 1);
                    if (!seen) s[m][n][h * 2 + e] = minus_infinity();
                }
        }
}

// Dropout of the probabilities of a sequence, with the numbers of the CPU (src/ops/attention/dropout.rs): a key is kept where its
// word, number key / 16 % 4 at counter (16 (key / 64) + key % 16, token, head, 0), is not below the threshold.
struct Dropout {
    Philox philox;  // of the sequence's sample
    u32 threshold;
};

// keep[r, w] for ROWS rows of KEYS keys: bit i of word w says whether row row0 + r keeps key key0 + 32 w + i. A lane draws the four
// words of one counter; the lanes of a half-warp make up 64 keys of a row. key0 is a multiple of KEYS, that of 32.
template <int ROWS, int KEYS, int WARPS>
__device__ __forceinline__ void draw_kept(u32* keep, const Dropout& dropout, const Rows& rows, int row0, int key0) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll 1  // a draw is long enough, and many at once would take the registers of the sums
    for (int r = warp * 2; r < ROWS; r += WARPS * 2) {
        // The keys of its ten rounds are made again each time.
        const Philox philox = {(u64)(u32)opaque(dropout.philox.key >> 32) << 32 | (u32)opaque((u32)dropout.philox.key)};
        const int row = row0 + r + lane / 16;
#pragma unroll 1
        for (int span = key0 / 64; span * 64 < key0 + KEYS; span++) {
            const Words random = philox_words(philox, span * 16 + lane % 16, rows.token(row), rows.head(row), 0);
            u32 kept[4];  // of 16 keys: of the first row in the lower half, of the second in the upper
#pragma unroll
            for (int i = 0; i < 4; i++) kept[i] = __ballot_sync(ALL_LANES, random.at[i] >= dropout.threshold);
            const int second = lane / 2 % 2, word = lane % 2, w = span * 2 + word - key0 / 32;
            const u32 low = word ? kept[2] : kept[0], high = word ? kept[3] : kept[1];
            if (lane < 4 && w >= 0 && w < KEYS / 32)
                keep[(r + second) * (KEYS / 32) + w] = second ? high & 0xffff0000u | low >> 16 : high << 16 | low & 0xffffu;
        }
    }
}

// Sets to 0 what a warp's rows do not keep; `keep` begins at its first row.
template <int M, int N>
__device__ __forceinline__ void drop(float (&p)[M][N][4], const u32* keep) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int w = 0; w < N / 4; w++) {
                const u32 kept = keep[(m * 16 + h * 8 + lane / 4) * (N / 4) + w] >> lane % 4 * 2;
#pragma unroll
                for (int i = 0; i < 8; i++)
                    if (!(kept >> (i / 2 * 8 + i % 2) & 1)) p[m][w * 4 + i / 2][h * 2 + i % 2] = 0.0f;
            }
}

// The tile loop of every matrix product: one block's tile of  C [m, n] = sum over k of A [m, k] B [k, n],  summed in float.
//
// An operand lies in memory as rows with a pitch, along k (x and W of the forward pass) or across it (W for dx, dy and x for dW);
// the tile loop takes either for A and for B, so that the three layouts share it.  A block owns TILE_M x TILE_N of C, a warp
// WARP_M x WARP_N of that.  Slices of 128 bytes along k travel through a ring of STAGES stages in shared memory, filled by cp.async
// STAGES - 1 slices ahead; what lies outside of the matrix arrives as zeros, so that any size works.
//
// Shared memory is handled in units of 16 bytes.  Unit u of a row r lies at u ^ (r % 8) of that row: the 8 rows that ldmatrix reads
// at once then lie in different banks, and so do the 8 units that cp.async writes at once.
//
// 16-bit elements: ldmatrix and mma.sync.  float: each thread computes by fused multiply-adds the very elements of C that mma.sync
// would give it, so that what comes after the loop (matmul_rows.cuh) is the same for all types.
//
// Rows begin at multiples of 16 bytes, whatever their widths; other matrices need -D ALIGNED=0, which copies element by element.
// 64 x 64 a warp: half as many bytes through ldmatrix for each mma as 32 x 64, and with 128 threads a block, two blocks share a
// multiprocessor, so that one computes while the other begins or stores.
#pragma once

#include "async_copy.cuh"

#ifndef TILE_M
#define TILE_M 128
#endif
#ifndef TILE_N
#define TILE_N 128
#endif
#ifndef WARP_M
#define WARP_M (sizeof(element) == 4 ? 32 : 64)
#endif
#ifndef WARP_N
#define WARP_N 64
#endif
#ifndef STAGES
#define STAGES 3
#endif
#ifndef ALIGNED
#define ALIGNED 1
#endif

constexpr int UNIT = 16 / sizeof(element);   // elements of a unit
constexpr int STEP = 128 / sizeof(element);  // of k in a stage
constexpr int WARPS_N = TILE_N / WARP_N;
constexpr int THREADS = TILE_M / WARP_M * WARPS_N * 32;
constexpr int STAGE_BYTES = (TILE_M + TILE_N) * 128;
constexpr int TILE_BYTES = STAGES * STAGE_BYTES;
constexpr int BLOCKS_PER_SM = THREADS < 256 ? 256 / THREADS : 1;
constexpr int REGISTERS = sizeof(element) == 4 || ALIGNED == 0 ? 255 : WARP_M * WARP_N > 2048 ? 232 : 176;  // a thread's, at most

extern __shared__ __align__(1024) u8 tile_memory[];

// A matrix as it lies in memory: `pitch` elements from one row to the next.
struct Matrix {
    const element* at;
    int rows, columns, pitch;
};

// What a thread holds of C: of each 16 x 8 fragment of its warp's tile four elements, by lane as in mma.cuh.
typedef float Accumulators[WARP_M / 16][WARP_N / 8][4];

__device__ __forceinline__ int warp_row() { return threadIdx.x / 32 / WARPS_N * WARP_M; }
__device__ __forceinline__ int warp_column() { return threadIdx.x / 32 % WARPS_N * WARP_N; }

// The first `count` elements of a unit to byte `to` of shared memory, zeros after them.
__device__ __forceinline__ void copy_part(u32 to, const element* from, int count) {
    if (ALIGNED) {
        copy_async_16(shared_address(tile_memory) + to, from, count * (int)sizeof(element));
    } else {
        Vector<element> unit;
#pragma unroll
        for (int i = 0; i < UNIT; i++) unit.at[i] = i < count ? from[i] : from_float<element>(0.0f);
        store_vector(reinterpret_cast<element*>(tile_memory + to), unit);
    }
}

// One operand's way through shared memory.  TILE of its rows (ALONG_K) or columns belong to the block's tile, WIDTH of them to a
// warp.  PAIRED: the tile's upper half comes from further down the matrix (gate and up projections).  The four registers of a
// fragment are the quarters of 16 x 16 in the order that lets mma take neighbours: of A m before k, of B k before n.
template <bool IS_A, int TILE, int WIDTH, bool ALONG_K, bool PAIRED = false>
struct Operand {
    static constexpr int ROWS = ALONG_K ? TILE : STEP;
    static constexpr int ROW_BYTES = ALONG_K ? 128 : TILE * (int)sizeof(element);
    static constexpr int UNITS = ROW_BYTES / 16;
    static constexpr int PASS = THREADS / UNITS;  // rows that the block copies at once
    static constexpr int HALF = PAIRED ? ROWS / 2 : ROWS;
    static_assert(THREADS % UNITS == 0 && ROWS % PASS == 0 && HALF % PASS == 0 && ROW_BYTES % 128 == 0, "threads divide the tile");
    static_assert(ALONG_K || !PAIRED, "pairs are of rows");

    const element* from;  // this thread's unit of the next slice
    int pitch;
    int rows, columns;  // left from there to the end of the matrix
    long long jump;     // PAIRED: from the lower half to the upper, in elements
    u32 to;             // this thread's unit of stage 0, in bytes
    int first;          // of the rows or columns of the tile: where the warp's begin
    u32 fragments;      // the unit that this lane points to for the first ldmatrix, in bytes
    u32 base;           // of this operand in a stage

    // From row (ALONG_K) or column `start` of `matrix` on.
    __device__ __forceinline__ Operand(const Matrix& matrix, int start, int warp_first, u32 base, long long jump = 0)
        : pitch(matrix.pitch), jump(jump), first(PAIRED ? warp_first / 2 : warp_first), base(base) {
        const int row = threadIdx.x / UNITS, unit = threadIdx.x % UNITS;
        const int r = (ALONG_K ? start : 0) + row, c = (ALONG_K ? 0 : start) + unit * UNIT;
        from = matrix.at + (long long)r * pitch + c;
        rows = matrix.rows - r;
        columns = matrix.columns - c;
        to = base + row * ROW_BYTES + ((unit ^ row % 8) * 16);
        // Lanes 8 q to 8 q + 7 point to the rows of quarter q: its upper half across k, or along it?
        const int lane = threadIdx.x % 32, q = lane / 8, upper = IS_A ? q % 2 : q / 2, upper_k = IS_A ? q / 2 : q % 2;
        const int fragment_row = (ALONG_K ? first + upper * 8 : upper_k * 8) + lane % 8;
        const int fragment_unit = ALONG_K ? upper_k : first / 8 + upper;
        fragments = base + fragment_row * ROW_BYTES + ((fragment_unit ^ lane % 8) * 16);
    }

    // Starts copying the next slice to the stage that begins at byte `stage`.
    __device__ __forceinline__ void copy(u32 stage) {
        if (ALIGNED && (columns <= 0 || columns >= UNIT)) {
            const int present = columns > 0 ? rows : 0;
            each_unit([&](int r, u32 at, const element* unit) {
                copy_async_16_if(r < present, shared_address(tile_memory) + stage + at, unit);
            });
        } else {
            const int inside = min(max(columns, 0), UNIT);
            each_unit([&](int r, u32 at, const element* unit) { copy_part(stage + at, unit, r < rows ? inside : 0); });
        }
        from += ALONG_K ? STEP : (long long)STEP * pitch;
        if (ALONG_K) columns -= STEP;
        else rows -= STEP;
    }

    // Calls `visit(row from this thread's first, byte of the stage, unit)` for each unit of the slice that this thread copies.
    template <typename Visit>
    __device__ __forceinline__ void each_unit(Visit visit) const {
        const element* unit = from;
#pragma unroll
        for (int r = 0; r < ROWS; r += PASS) {
            if (PAIRED && r == HALF) unit = from + jump;
            visit(r % HALF, (to ^ r % 8 * 16) + r * ROW_BYTES, unit);
            unit += (long long)PASS * pitch;
        }
    }

    // Rows or columns `i` on of the warp's, counted in the tile from `first`.
    static __device__ __forceinline__ constexpr int place(int i) { return PAIRED && i >= WIDTH / 2 ? TILE / 2 + i - WIDTH / 2 : i; }

    // The 16 x 16 fragment whose rows in m or n begin at `i` of the warp's and that lies `k` deep in the stage: as A in mma.cuh.
    __device__ __forceinline__ void load_fragment(u32 (&r)[4], u32 stage, int i, int k) const {
        const u32 address = shared_address(tile_memory) + stage;
        if (ALONG_K) ldmatrix_x4(r, address + (fragments ^ k * 2) + place(i) * ROW_BYTES);
        else ldmatrix_x4_trans(r, address + (fragments ^ i * 2) + k * ROW_BYTES);
    }

    // In float: the four elements of unit `u` of k, at `i + lane` of the warp's rows or columns.
    __device__ __forceinline__ void load_unit(float (&v)[4], u32 stage, int i, int lane, int u) const {
        const u8* const here = tile_memory + stage + base;
        if (ALONG_K) {
            const float4 four = *reinterpret_cast<const float4*>(here + (first + place(i) + lane) * 128 + (u ^ lane) * 16);
            v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
        } else {
            const int column = first + i + lane;
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int row = u * 4 + k;
                v[k] = *reinterpret_cast<const float*>(here + row * ROW_BYTES + (column / 4 ^ row % 8) * 16 + column % 4 * 4);
            }
        }
    }
};

// acc += A B over the stage that begins at byte `stage`.  `copy()` starts the next copies while the first fragments are on their
// way.
template <typename T>
struct Multiply {
    template <typename A, typename B, typename Copy>
    static __device__ __forceinline__ void add(Accumulators& acc, const A& a, const B& b, u32 stage, Copy copy) {
        u32 fa[2][WARP_M / 16][4], fb[2][WARP_N / 16][4];
        auto load = [&](int k) {
#pragma unroll
            for (int i = 0; i < WARP_M; i += 16) a.load_fragment(fa[k / 16 % 2][i / 16], stage, i, k);
#pragma unroll
            for (int j = 0; j < WARP_N; j += 16) b.load_fragment(fb[k / 16 % 2][j / 16], stage, j, k);
        };
        load(0);
        copy();
#pragma unroll
        for (int k = 0; k < STEP; k += 16) {
            if (k + 16 < STEP) load(k + 16);  // on their way while the tensor cores work on the ones before
#pragma unroll
            for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
                for (int j = 0; j < WARP_N / 8; j++) {
                    const u32(&pair)[4] = fb[k / 16 % 2][j / 2];
                    mma_m16n8k16<T>(acc[i][j], fa[k / 16 % 2][i], pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
                }
        }
    }
};

template <>
struct Multiply<float> {
    template <typename A, typename B, typename Copy>
    static __device__ __forceinline__ void add(Accumulators& acc, const A& a, const B& b, u32 stage, Copy copy) {
        copy();
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll 1
        for (int u = 0; u < STEP / 4; u++) {
            float x[WARP_M / 8][4], y[4];
#pragma unroll
            for (int i = 0; i < WARP_M / 8; i++) a.load_unit(x[i], stage, i * 8, g, u);
#pragma unroll
            for (int j = 0; j < WARP_N / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    b.load_unit(y, stage, j * 8, t * 2 + e, u);
#pragma unroll
                    for (int i = 0; i < WARP_M / 8; i++) {
                        float& sum = acc[i / 2][j][i % 2 * 2 + e];
#pragma unroll
                        for (int k = 0; k < 4; k++) sum = fmaf(x[i][k], y[k], sum);
                    }
                }
        }
    }
};

// Where a block's tile of C begins.
struct Tile {
    int row, column;
};

// Tiles are taken in groups of so many rows, column by column, so that the blocks that run together share their operands in L2.
constexpr int GROUP = 8;

// The `index`-th tile of [rows, columns] in tiles of TILE_M x `width`.
__device__ __forceinline__ Tile tile_at(int index, int rows, int columns, int width) {
    const int down = ceil_div(rows, TILE_M), across = ceil_div(columns, width);
    const int group = index / (GROUP * across), within = index % (GROUP * across);
    const int height = min(down - group * GROUP, GROUP);  // the last group may be lower
    return {(group * GROUP + within % height) * TILE_M, within / height * width};
}

// acc += A B for the block's tile, over all of k.  A_ALONG_K: a is [m, k] in memory, else [k, m];  B_ALONG_K: b is [n, k], else
// [k, n].
// PAIRED: the upper half of the tile's columns are rows of b that lie `jump` elements further on; tile.column counts in one half.
template <bool A_ALONG_K, bool B_ALONG_K, bool PAIRED = false>
__device__ __forceinline__ void tile_product(Accumulators& acc, const Matrix& a, const Matrix& b, Tile tile, long long jump = 0) {
    Operand<true, TILE_M, WARP_M, A_ALONG_K> left(a, tile.row, warp_row(), 0);
    Operand<false, TILE_N, WARP_N, B_ALONG_K, PAIRED> right(b, tile.column, warp_column(), TILE_M * 128, jump);
    const int slices = ceil_div(A_ALONG_K ? a.columns : a.rows, STEP);
    u32 filled = 0, stage = 0;
    auto copy = [&](int slice) {
        if (slice < slices) left.copy(filled), right.copy(filled);
        copy_async_commit();  // an empty group at the end keeps the count of the pending ones right
        filled = filled + STAGE_BYTES < TILE_BYTES ? filled + STAGE_BYTES : 0;
    };
    for (int slice = 0; slice < STAGES - 1; slice++) copy(slice);
    for (int slice = 0; slice < slices; slice++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();  // everyone's part of this slice has come, and everyone has left the stage that is filled next
        Multiply<element>::add(acc, left, right, stage, [&] { copy(slice + STAGES - 1); });
        stage = stage + STAGE_BYTES < TILE_BYTES ? stage + STAGE_BYTES : 0;
    }
}

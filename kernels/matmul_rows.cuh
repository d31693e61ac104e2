// What follows the tile loop: a block's tile of C by runs of 32 columns, to and from memory.
//
// The four lanes of a quad hold a run of a row between them, lane t the pairs at columns 8 j + 2 t, j = 0 to 3.  16-bit elements
// travel in units of 16 bytes: the lanes exchange their pairs, so that lane t has the 8 columns from 8 t on, and every sector moves
// once.  The exchange transposes 4 x 4 pairs and is its own inverse, so that what is loaded becomes pairs in the same way.  In
// float four pairs fill a sector as they are.
#pragma once

#include "matmul_tile.cuh"

static_assert(WARP_N % 32 == 0, "a warp's columns are runs of 32");

// A lane's part of a run: [2 j] and [2 j + 1] are columns 8 j + 2 t and the next.
struct Run {
    float at[8];
};

// The same columns of the lower and the upper half of a tile of pairs.
struct RunPair {
    Run lower, upper;
};

// Transposes the 4 x 4 registers of each quad. Every lane of the warp calls it.
__device__ __forceinline__ void exchange_in_quad(u32 (&r)[4]) {
#pragma unroll
    for (int distance = 1; distance <= 2; distance *= 2) {
        const bool upper = threadIdx.x & distance;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & distance) continue;
            const u32 received = __shfl_xor_sync(ALL_LANES, upper ? r[i] : r[i | distance], distance);
            r[i] = upper ? received : r[i];
            r[i | distance] = upper ? r[i | distance] : received;
        }
    }
}

// The run at `to`, of which the first `columns` exist (none where columns <= 0). Every lane of the warp calls it.
template <typename T>
__device__ __forceinline__ void store_run(T* to, int columns, const Run& run) {
    const int t = threadIdx.x % 4;
    if constexpr (ALIGNED && sizeof(T) == 2) {
        u32 unit[4];
#pragma unroll
        for (int j = 0; j < 4; j++) unit[j] = pack<T>(run.at[2 * j], run.at[2 * j + 1]);
        exchange_in_quad(unit);
        if (t * 8 + 8 <= columns) {
            __stcg(reinterpret_cast<uint4*>(to + t * 8), make_uint4(unit[0], unit[1], unit[2], unit[3]));
        } else if (t * 8 < columns) {
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (t * 8 + i < columns) to[t * 8 + i] = T{(u16)(unit[i / 2] >> i % 2 * 16)};
        }
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int column = j * 8 + t * 2;
            if (ALIGNED && column + 2 <= columns) {
                __stcg(reinterpret_cast<float2*>(to + column), make_float2(run.at[2 * j], run.at[2 * j + 1]));
            } else {
                if (column < columns) to[column] = from_float<T>(run.at[2 * j]);
                if (column + 1 < columns) to[column + 1] = from_float<T>(run.at[2 * j + 1]);
            }
        }
    }
}

// 16-bit elements as they were read, before the exchange.
template <typename T>
struct Unit {
    u32 at[4];
};

// Reads the run at `from`, with zeros for the columns that do not exist: a Unit where 16 bytes can be read at once, else a Run.
template <typename T>
__device__ __forceinline__ auto load_run(const T* from, int columns) {
    const int t = threadIdx.x % 4;
    if constexpr (ALIGNED && sizeof(T) == 2) {
        Unit<T> unit = {};
        if (t * 8 + 8 <= columns) {
            const uint4 four = *reinterpret_cast<const uint4*>(from + t * 8);
            unit.at[0] = four.x, unit.at[1] = four.y, unit.at[2] = four.z, unit.at[3] = four.w;
        } else if (t * 8 < columns) {
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (t * 8 + i < columns) unit.at[i / 2] |= (u32)from[t * 8 + i].bits << i % 2 * 16;
        }
        return unit;
    } else {
        Run run = {};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int column = j * 8 + t * 2;
            if (ALIGNED && column + 2 <= columns) {
                const float2 pair = *reinterpret_cast<const float2*>(from + column);
                run.at[2 * j] = pair.x, run.at[2 * j + 1] = pair.y;
            } else {
                if (column < columns) run.at[2 * j] = to_float(from[column]);
                if (column + 1 < columns) run.at[2 * j + 1] = to_float(from[column + 1]);
            }
        }
        return run;
    }
}

template <typename T>
using Loaded = decltype(load_run((const T*)nullptr, 0));

// What was read as the lane's pairs. Every lane of the warp calls it.
__device__ __forceinline__ Run to_run(const Run& run) { return run; }
template <typename T>
__device__ __forceinline__ Run to_run(Unit<T> unit) {
    exchange_in_quad(unit.at);
    Run run;
#pragma unroll
    for (int i = 0; i < 8; i++) run.at[i] = to_float(T{(u16)(unit.at[i / 2] >> i % 2 * 16)});
    return run;
}

// For every run that this warp holds of the tile, calls `load(row, column)`, then `store(row, column, run, what was loaded)`, both
// for the runs of 16 rows together, so that their loads are under way at the same time. In a tile of PAIRS (see Operand) `run` is a
// pair of runs, of the same columns of both halves. Every lane takes part.
template <bool PAIRS = false, typename Load, typename Store>
__device__ __forceinline__ void for_each_run(const Accumulators& acc, Tile tile, Load load, Store store) {
    constexpr int COLUMNS = PAIRS ? WARP_N / 2 : WARP_N, RUNS = COLUMNS / 32;
    static_assert(COLUMNS % 32 == 0, "whole runs");
    const int lane_row = tile.row + warp_row() + threadIdx.x % 32 / 4;
    const int first_column = tile.column + (PAIRS ? warp_column() / 2 : warp_column());
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++) {
        decltype(load(0, 0)) loaded[2 * RUNS];
#pragma unroll
        for (int r = 0; r < 2 * RUNS; r++) loaded[r] = load(lane_row + i * 16 + r / RUNS * 8, first_column + r % RUNS * 32);
#pragma unroll
        for (int r = 0; r < 2 * RUNS; r++) {
            auto take = [&](int half) {
                Run run;
#pragma unroll
                for (int e = 0; e < 8; e++) run.at[e] = acc[i][half * COLUMNS / 8 + r % RUNS * 4 + e / 2][r / RUNS * 2 + e % 2];
                return run;
            };
            const int row = lane_row + i * 16 + r / RUNS * 8, column = first_column + r % RUNS * 32;
            if constexpr (PAIRS) store(row, column, RunPair{take(0), take(1)}, loaded[r]);
            else store(row, column, take(0), loaded[r]);
        }
    }
}

// Where nothing is to be loaded.
struct Nothing {};
__device__ __forceinline__ Nothing load_nothing(int, int) { return {}; }

// y = acc for the tile's rows before `rows` and columns before `columns`, or y = residual + acc where `add`. The residual may be y.
template <typename T>
__device__ __forceinline__ void store_tile(const Accumulators& acc, Tile tile, T* y, const T* residual, int rows, int columns,
                                           int y_pitch, int residual_pitch, bool add) {
    auto inside = [&](int row, int column) { return row < rows ? columns - column : 0; };
    auto store = [&](int row, int column, const Run& run) {
        store_run(y + (long long)row * y_pitch + column, inside(row, column), run);
    };
    auto load = [&](int row, int column) {
        return load_run(residual + (long long)row * residual_pitch + column, inside(row, column));
    };
    if (!add) {
        for_each_run(acc, tile, load_nothing, [&](int row, int column, const Run& run, Nothing) { store(row, column, run); });
        return;
    }
    for_each_run(acc, tile, load, [&](int row, int column, Run run, const Loaded<T>& loaded) {
        const Run more = to_run(loaded);
#pragma unroll
        for (int e = 0; e < 8; e++) run.at[e] += more.at[e];
        store(row, column, run);
    });
}

// The share that the gate g lets through: 1 / (1 + e^-g).
__device__ __forceinline__ float sigmoid(float g) { return __fdividef(1.0f, 1.0f + expf(-g)); }

// Of a tile of PAIRS, gates and ups: h = g sigmoid(g) u to h [rows, width], and g, u to gate_up [rows, 2 width].
__device__ __forceinline__ void store_swiglu(const Accumulators& acc, Tile tile, element* h, element* gate_up, int rows,
                                             int width) {
    for_each_run<true>(acc, tile, load_nothing, [&](int row, int column, const RunPair& pair, Nothing) {
        const Run &g = pair.lower, &u = pair.upper;
        const int inside = row < rows ? width - column : 0;
        element* const saved = gate_up + (long long)row * 2 * width + column;
        store_run(saved, inside, g);
        store_run(saved + width, inside, u);
        Run product;
#pragma unroll
        for (int e = 0; e < 8; e++) product.at[e] = g.at[e] * sigmoid(g.at[e]) * u.at[e];
        store_run(h + (long long)row * width + column, inside, product);
    });
}

// acc is dh: with the saved g and u of gate_up [rows, 2 width],  dg = dh u (p + g p (1 - p))  and  du = dh g p  to d_gate_up, laid
// out alike.
__device__ __forceinline__ void store_swiglu_gradient(const Accumulators& acc, Tile tile, element* d_gate_up,
                                                      const element* gate_up, int rows, int width) {
    auto inside = [&](int row, int column) { return row < rows ? width - column : 0; };
    auto offset = [&](int row, int column) { return (long long)row * 2 * width + column; };
    struct Saved {
        Loaded<element> g, u;
    };
    auto load = [&](int row, int column) {
        const element* const g = gate_up + offset(row, column);
        return Saved{load_run(g, inside(row, column)), load_run(g + width, inside(row, column))};
    };
    for_each_run(acc, tile, load, [&](int row, int column, const Run& dh, const Saved& loaded) {
        const Run g = to_run(loaded.g), u = to_run(loaded.u);
        Run dg, du;
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const float p = sigmoid(g.at[e]);
            dg.at[e] = dh.at[e] * u.at[e] * (p + g.at[e] * p * (1.0f - p));
            du.at[e] = dh.at[e] * g.at[e] * p;
        }
        element* const to = d_gate_up + offset(row, column);
        store_run(to, inside(row, column), dg);
        store_run(to + width, inside(row, column), du);
    });
}

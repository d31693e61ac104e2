// What follows the tile loop: a block's tile of C by runs of 32 columns, to and from memory.
//
// The four lanes of a quad hold a run of a row between them, lane t the pairs at columns 8 j + 2 t, j = 0 to 3.  16-bit elements travel
// in units of 16 bytes: the lanes exchange their pairs, so that lane t has the 8 columns from 8 t on, and every sector moves once.
// The exchange transposes 4 x 4 pairs and is its own inverse, so that what is loaded becomes pairs in the same way.  In float four
// pairs fill a sector as they are.
#pragma once

#include "matmul_tile.cuh"

static_assert(WARP_N % 32 == 0, "a warp's columns are runs of 32");

// A lane's part of a run: [2 j] and [2 j + 1] are columns 8 j + 2 t and the next.
struct Run {
    float at[8];
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
        } else {
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

// The run at `from`, with zeros for the columns that do not exist. Every lane of the warp calls it.
template <typename T>
__device__ __forceinline__ Run load_run(const T* from, int columns) {
    const int t = threadIdx.x % 4;
    Run run = {};
    if constexpr (ALIGNED && sizeof(T) == 2) {
        u32 unit[4] = {};
        if (t * 8 + 8 <= columns) {
            const uint4 four = *reinterpret_cast<const uint4*>(from + t * 8);
            unit[0] = four.x, unit[1] = four.y, unit[2] = four.z, unit[3] = four.w;
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (t * 8 + i < columns) unit[i / 2] |= (u32)from[t * 8 + i].bits << i % 2 * 16;
        }
        exchange_in_quad(unit);
#pragma unroll
        for (int i = 0; i < 8; i++) run.at[i] = to_float(T{(u16)(unit[i / 2] >> i % 2 * 16)});
    } else {
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
    }
    return run;
}

// Calls `visit(row, column, run)` for every run that this warp holds of the tile; in a tile of PAIRS (see Operand)
// `visit(row, column, lower, upper)` with the same columns of both halves. Every lane takes part.
template <bool PAIRS = false, typename Visit>
__device__ __forceinline__ void for_each_run(const Accumulators& acc, Tile tile, Visit visit) {
    constexpr int COLUMNS = PAIRS ? WARP_N / 2 : WARP_N;
    auto take = [&](int i, int below, int j) {
        Run run;
#pragma unroll
        for (int e = 0; e < 8; e++) run.at[e] = acc[i][j + e / 2][below * 2 + e % 2];
        return run;
    };
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
        for (int below = 0; below < 2; below++)
#pragma unroll
            for (int j = 0; j < COLUMNS / 8; j += 4) {
                const int row = tile.row + warp_row() + i * 16 + below * 8 + threadIdx.x % 32 / 4;
                const int column = tile.column + (PAIRS ? warp_column() / 2 : warp_column()) + j * 8;
                if constexpr (PAIRS) {
                    static_assert(COLUMNS % 32 == 0, "whole runs");
                    visit(row, column, take(i, below, j), take(i, below, j + COLUMNS / 8));
                } else {
                    visit(row, column, take(i, below, j));
                }
            }
}

// y = acc, or y = residual + acc where there is a residual (which may be y itself), for the tile's rows before `rows` and columns
// before `columns`.
template <typename T>
__device__ __forceinline__ void store_tile(const Accumulators& acc, Tile tile, T* y, const T* residual, int rows, int columns,
                                           int y_pitch, int residual_pitch) {
    for_each_run(acc, tile, [&](int row, int column, Run run) {
        const int left = row < rows ? columns - column : 0;
        if (residual) {
            const Run more = load_run(residual + (long long)row * residual_pitch + column, left);
#pragma unroll
            for (int e = 0; e < 8; e++) run.at[e] += more.at[e];
        }
        store_run(y + (long long)row * y_pitch + column, left, run);
    });
}

// The share that the gate g lets through: 1 / (1 + e^-g).
__device__ __forceinline__ float sigmoid(float g) { return __fdividef(1.0f, 1.0f + expf(-g)); }

// Of a tile of PAIRS, gates below and ups above: h = g sigmoid(g) u to h [rows, width], and g, u to gate_up [rows, 2 width].
__device__ __forceinline__ void store_swiglu(const Accumulators& acc, Tile tile, element* h, element* gate_up, int rows, int width) {
    for_each_run<true>(acc, tile, [&](int row, int column, Run g, Run u) {
        const int left = row < rows ? width - column : 0;
        element* const saved = gate_up + (long long)row * 2 * width + column;
        store_run(saved, left, g);
        store_run(saved + width, left, u);
#pragma unroll
        for (int e = 0; e < 8; e++) g.at[e] *= sigmoid(g.at[e]) * u.at[e];
        store_run(h + (long long)row * width + column, left, g);
    });
}

// acc is dh: with the saved g and u of gate_up [rows, 2 width],  dg = dh u (p + g p (1 - p)),  du = dh g p  to d_gate_up, laid out alike.
__device__ __forceinline__ void store_swiglu_gradient(const Accumulators& acc, Tile tile, element* d_gate_up, const element* gate_up,
                                                      int rows, int width) {
    for_each_run(acc, tile, [&](int row, int column, const Run& dh) {
        const int left = row < rows ? width - column : 0;
        const long long at = (long long)row * 2 * width + column;
        const Run g = load_run(gate_up + at, left), u = load_run(gate_up + at + width, left);
        Run dg, du;
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const float p = sigmoid(g.at[e]);
            dg.at[e] = dh.at[e] * u.at[e] * (p + g.at[e] * p * (1.0f - p));
            du.at[e] = dh.at[e] * g.at[e] * p;
        }
        store_run(d_gate_up + at, left, dg);
        store_run(d_gate_up + at + width, left, du);
    });
}

// RMSNorm, forward and backward, with the residual addition before it fused in.
//   x, r, s, y, dy, ds, dx: [R, WIDTH]   w, dw: [WIDTH]   rstd: [R]
//   s = x + r (or x alone)     rstd = 1 / sqrt(mean(s^2) + eps)     y = w * s * rstd
//   with g = dy * w and n = s * rstd:   dx = rstd * (g - n * mean(g * n)) (+ ds)     dw = sum over rows of dy * n
// Zhang and Sennrich 2019, arXiv 1910.07467. Saved for backward: s and rstd.
// Bound by memory: forward reads x (and r) and writes y (and s) once, backward reads s and dy (and ds) and writes dx once.
//
// ROW_THREADS neighbouring threads own a row, which stays in their registers between the sum over it and the pass that writes, each
// with up to four vectors of 16 bytes that are under way together. Short rows share a warp, long ones take several warps.
// dw: a thread's columns are the same in all its rows, so it sums them in registers; a block adds its rows' sums into partial[block],
// and rmsnorm_weight_gradient adds the partials in the order of blocks: the bits never depend on scheduling.

#include "common.cuh"

#ifndef WIDTH
#define WIDTH 512
#endif

constexpr int VECTOR = WIDTH * sizeof(element) % 16 == 0 ? 16 / sizeof(element) : 1;  // elements of one access
constexpr int VECTORS = WIDTH / VECTOR;                                               // accesses of a row
constexpr int ROW_THREADS = VECTORS > 512 ? 256 : VECTORS > 256 ? 128 : VECTORS > 128 ? 64 : VECTORS > 64 ? 32 : VECTORS > 32 ? 16 : 8;
constexpr int HELD = (VECTORS + ROW_THREADS - 1) / ROW_THREADS;  // accesses of a thread
constexpr int THREADS = 256;
constexpr int ROWS = THREADS / ROW_THREADS;  // rows of a block at a time
constexpr int TURNS = 4;                     // times that a block does so in forward, with the weight in registers

struct Part {
    element at[VECTOR];
};

// A thread's part of a row: its vectors ROW_THREADS apart, so that neighbours read neighbouring memory.
struct Row {
    Part part[HELD];

    __device__ __forceinline__ void load(const element* row, int lane) {
#pragma unroll
        for (int h = 0; h < HELD; h++) {
            const int v = h * ROW_THREADS + lane;
            if (v < VECTORS) part[h] = load_part(row + v * VECTOR);
        }
    }

    static __device__ __forceinline__ Part load_part(const element* from) {
        Part part;
        if constexpr (VECTOR == 1) {
            part.at[0] = *from;
        } else {
            const Vector<element> vector = load_vector(from);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) part.at[i] = vector.at[i];
        }
        return part;
    }

    static __device__ __forceinline__ void store_part(element* to, const Part& part) {
        if constexpr (VECTOR == 1) {
            *to = part.at[0];
        } else {
            Vector<element> vector;
#pragma unroll
            for (int i = 0; i < VECTOR; i++) vector.at[i] = part.at[i];
            store_vector(to, vector);
        }
    }
};

// For each vector and element that this thread has of a row: `body(h, i, column)`.
template <typename Body>
__device__ __forceinline__ void for_each(int lane, Body body) {
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int v = h * ROW_THREADS + lane;
        if (v < VECTORS) {
#pragma unroll
            for (int i = 0; i < VECTOR; i++) body(h, i, v * VECTOR + i);
        }
    }
}

// Over the ROW_THREADS threads of a row. All threads of the block call it.
__device__ __forceinline__ float row_sum(float x, float* scratch) {
    if constexpr (ROW_THREADS <= WARP) {
        return warp_sum<ROW_THREADS>(x);
    } else {
        constexpr int WARPS = ROW_THREADS / WARP;
        x = warp_sum(x);
        __syncthreads();  // nobody still reads what an earlier call left there
        if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
        __syncthreads();  // every warp's sum is there
        const int first = threadIdx.x / ROW_THREADS * WARPS;
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) sum += scratch[first + w];
        return sum;
    }
}

template <bool RESIDUAL>
__device__ __forceinline__ void forward(element* s, element* y, float* rstd, const element* x, const element* r, const element* w,
                                        int R, float eps) {
    __shared__ float scratch[THREADS / WARP];
    const int lane = threadIdx.x % ROW_THREADS, group = threadIdx.x / ROW_THREADS;
    Row weight;
    weight.load(w, lane);
    // Rows are counted for the whole block, so that all threads meet at the barriers of the sums.
    const int end = min(R, (int)(blockIdx.x + 1) * ROWS * TURNS);
    for (int first = blockIdx.x * ROWS * TURNS; first < end; first += ROWS) {
        const int row = first + group;
        const bool inside = row < R;
        const size_t begin = (size_t)row * WIDTH;
        Row mine;
        float squares = 0.0f;
        if (inside) {
            mine.load(x + begin, lane);
            if (RESIDUAL) {
                Row other;
                other.load(r + begin, lane);
                // The sum as it is stored is what is normalised: backward sees the same numbers.
                for_each(lane, [&](int h, int i, int) {
                    mine.part[h].at[i] = from_float<element>(to_float(mine.part[h].at[i]) + to_float(other.part[h].at[i]));
                });
            }
            for_each(lane, [&](int h, int i, int) {
                squares = fmaf(to_float(mine.part[h].at[i]), to_float(mine.part[h].at[i]), squares);
            });
        }
        squares = row_sum(squares, scratch);
        if (!inside) continue;
        const float scale = 1.0f / sqrtf(squares * (1.0f / WIDTH) + eps);
        if (lane == 0) rstd[row] = scale;
#pragma unroll
        for (int h = 0; h < HELD; h++) {
            const int v = h * ROW_THREADS + lane;
            if (v < VECTORS) {
                if (RESIDUAL) Row::store_part(s + begin + v * VECTOR, mine.part[h]);
                Part out;
#pragma unroll
                for (int i = 0; i < VECTOR; i++) {
                    out.at[i] = from_float<element>(to_float(weight.part[h].at[i]) * (to_float(mine.part[h].at[i]) * scale));
                }
                Row::store_part(y + begin + v * VECTOR, out);
            }
        }
    }
}

// launch: grid max(1, ceil_div(R, ROWS * TURNS)), block THREADS, registers 80
extern "C" __global__ void __launch_bounds__(THREADS) rmsnorm_forward(element* y,          // [R, WIDTH]
                                                                      float* rstd,         // [R]
                                                                      const element* x,    // [R, WIDTH]
                                                                      const element* w,    // [WIDTH]
                                                                      int R, float eps) {
    forward<false>(nullptr, y, rstd, x, nullptr, w, R, eps);
}

// launch: grid max(1, ceil_div(R, ROWS * TURNS)), block THREADS, registers 80
extern "C" __global__ void __launch_bounds__(THREADS) add_rmsnorm_forward(element* s,          // [R, WIDTH] = x + r
                                                                          element* y,          // [R, WIDTH]
                                                                          float* rstd,         // [R]
                                                                          const element* x,    // [R, WIDTH]
                                                                          const element* r,    // [R, WIDTH]
                                                                          const element* w,    // [WIDTH]
                                                                          int R, float eps) {
    forward<true>(s, y, rstd, x, r, w, R, eps);
}

// Where a column's sum lies in partial: the first elements of all vectors, then the second ones, and so on, so that neighbouring
// threads use neighbouring banks of shared memory.
__device__ __forceinline__ int place(int column) { return column % VECTOR * VECTORS + column / VECTOR; }

// Block b takes rows b * ROWS .. + ROWS, then those P * ROWS further, and so on.
template <bool RESIDUAL>
__device__ __forceinline__ void backward(element* dx, float* partial, const element* dy, const element* ds, const element* s,
                                         const float* rstd, const element* w, int R, int P) {
    __shared__ float scratch[THREADS / WARP];
    __shared__ float sums[ROWS > 1 ? WIDTH : 1];
    const int lane = threadIdx.x % ROW_THREADS, group = threadIdx.x / ROW_THREADS;
    Row weight;
    weight.load(w, lane);
    float dw[HELD][VECTOR] = {};
    // Rows are counted for the whole block, so that all threads meet at the barriers of the sums.
    for (int first = blockIdx.x * ROWS; first < R; first += P * ROWS) {
        const int row = first + group;
        const bool inside = row < R;
        const size_t begin = (size_t)row * WIDTH;
        Row input, gradient;
        float scale = 0.0f, dot = 0.0f;
        if (inside) {
            input.load(s + begin, lane);
            gradient.load(dy + begin, lane);
            scale = rstd[row];
            for_each(lane, [&](int h, int i, int) {
                const float g = to_float(gradient.part[h].at[i]);
                const float n = to_float(input.part[h].at[i]) * scale;
                dw[h][i] = fmaf(g, n, dw[h][i]);
                dot = fmaf(g * to_float(weight.part[h].at[i]), n, dot);
            });
        }
        const float mean = row_sum(dot, scratch) * (1.0f / WIDTH);
        if (!inside) continue;
#pragma unroll
        for (int h = 0; h < HELD; h++) {
            const int v = h * ROW_THREADS + lane;
            if (v < VECTORS) {
                Part out, through;
                if (RESIDUAL) through = Row::load_part(ds + begin + v * VECTOR);
#pragma unroll
                for (int i = 0; i < VECTOR; i++) {
                    const float g = to_float(gradient.part[h].at[i]) * to_float(weight.part[h].at[i]);
                    const float n = to_float(input.part[h].at[i]) * scale;
                    const float d = scale * (g - n * mean);
                    out.at[i] = from_float<element>(RESIDUAL ? d + to_float(through.at[i]) : d);
                }
                Row::store_part(dx + begin + v * VECTOR, out);
            }
        }
    }
    // The rows that share the block one after the other, so that the order of the sum is fixed.
    if constexpr (ROWS > 1) {
        for (int turn = 0; turn < ROWS; turn++) {
            if (group == turn) {
                for_each(lane, [&](int h, int i, int c) { sums[place(c)] = turn == 0 ? dw[h][i] : sums[place(c)] + dw[h][i]; });
            }
            __syncthreads();  // this turn's sums are there for the next
        }
        for (int at = threadIdx.x; at < WIDTH; at += THREADS) partial[(size_t)blockIdx.x * WIDTH + at] = sums[at];
    } else {
        for_each(lane, [&](int h, int i, int c) { partial[(size_t)blockIdx.x * WIDTH + place(c)] = dw[h][i]; });
    }
}

// launch: grid P, block THREADS, registers sizeof(element) * HELD > 16 ? 168 : 128
extern "C" __global__ void __launch_bounds__(THREADS) rmsnorm_backward(element* dx,            // [R, WIDTH]
                                                                       float* partial,         // [P, WIDTH] as place() orders it
                                                                       const element* dy,      // [R, WIDTH]
                                                                       const element* s,       // [R, WIDTH] what was normalised
                                                                       const float* rstd,      // [R]
                                                                       const element* w,       // [WIDTH]
                                                                       int R, int P) {
    backward<false>(dx, partial, dy, nullptr, s, rstd, w, R, P);
}

// launch: grid P, block THREADS, registers sizeof(element) * HELD > 16 ? 168 : 128
extern "C" __global__ void __launch_bounds__(THREADS) add_rmsnorm_backward(element* dx,          // [R, WIDTH] of x and of r
                                                                           float* partial,       // [P, WIDTH] as place() orders it
                                                                           const element* dy,    // [R, WIDTH]
                                                                           const element* ds,    // [R, WIDTH] reaches s directly
                                                                           const element* s,     // [R, WIDTH]
                                                                           const float* rstd,    // [R]
                                                                           const element* w,     // [WIDTH]
                                                                           int R, int P) {
    backward<true>(dx, partial, dy, ds, s, rstd, w, R, P);
}

constexpr int LANES = 32, SLICES = 8;

// dw = (accumulate ? dw : 0) + the sum of the partials: SLICES warps each add every SLICES-th partial in 32 places, then their sums.
// launch: grid ceil_div(WIDTH, LANES), block (LANES, SLICES), registers 40
extern "C" __global__ void __launch_bounds__(LANES * SLICES) rmsnorm_weight_gradient(float* dw,              // [WIDTH]
                                                                                     const float* partial,   // [P, WIDTH], see place()
                                                                                     int P, int accumulate) {
    __shared__ float sums[SLICES][LANES];
    const int at = blockIdx.x * LANES + threadIdx.x;
    float sum = 0.0f;
    if (at < WIDTH) {
#pragma unroll 4
        for (int p = threadIdx.y; p < P; p += SLICES) sum += partial[(size_t)p * WIDTH + at];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();  // every slice's sum is there
    if (threadIdx.y > 0 || at >= WIDTH) return;
    const int column = at % VECTORS * VECTOR + at / VECTORS;
    sum = accumulate ? dw[column] : 0.0f;
#pragma unroll
    for (int slice = 0; slice < SLICES; slice++) sum += sums[slice][threadIdx.x];
    dw[column] = sum;
}

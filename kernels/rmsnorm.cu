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
// Blocks of a multiprocessor. Asked for no number, the assembler aims at more than have room, and spills.
constexpr int RESIDENT = sizeof(element) * HELD > 16 ? 1 : 2;
constexpr int ROWS = THREADS / ROW_THREADS;  // rows of a block at a time
constexpr int TURNS = 4;                     // times that a block does so in forward, with the weight in registers

// One access: a vector, or a single element where rows are not made of vectors.
template <int N>
struct Access {
    Vector<element> vector;

    __device__ __forceinline__ void load(const element* from) {
        if constexpr (N == 1) {
            vector.at[0] = *from;
        } else {
            vector = load_vector(from);
        }
    }

    __device__ __forceinline__ void store(element* to) const {
        if constexpr (N == 1) {
            *to = vector.at[0];
        } else {
            store_vector(to, vector);
        }
    }

    __device__ __forceinline__ void get(float (&x)[N]) const {
        if constexpr (N == 1) {
            x[0] = to_float(vector.at[0]);
        } else {
            widen(vector, x);
        }
    }

    // Widened anew after this: the compiler would else keep all the floats through a loop, in twice the registers.
    __device__ __forceinline__ void keep_packed() {
        if constexpr (N > 1 && sizeof(element) == 2) {
            uint4 words = __builtin_bit_cast(uint4, vector);
            asm volatile("" : "+r"(words.x), "+r"(words.y), "+r"(words.z), "+r"(words.w));
            vector = __builtin_bit_cast(Vector<element>, words);
        }
    }

    __device__ __forceinline__ void set(const float (&x)[N]) {
        if constexpr (N == 1) {
            vector.at[0] = from_float<element>(x[0]);
        } else {
            vector = narrow<element>(x);
        }
    }
};
using Part = Access<VECTOR>;

// For each access that this thread has of a row, ROW_THREADS apart so that neighbours read neighbouring memory: `body(h, column)`.
template <typename Body>
__device__ __forceinline__ void for_each(int lane, Body body) {
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int v = h * ROW_THREADS + lane;
        if (v < VECTORS) body(h, v * VECTOR);
    }
}

// A thread's part of a row.
__device__ __forceinline__ void load_row(Part (&part)[HELD], const element* row, int lane) {
    for_each(lane, [&](int h, int column) { part[h].load(row + column); });
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
    Part weight[HELD];
    load_row(weight, w, lane);
    // Rows are counted for the whole block, so that all threads meet at the barriers of the sums.
    const int end = min(R, (int)(blockIdx.x + 1) * ROWS * TURNS);
#pragma unroll 1
    for (int first = blockIdx.x * ROWS * TURNS; first < end; first += ROWS) {
        const int row = first + group;
        const bool inside = row < R;
        const size_t begin = (size_t)row * WIDTH;
        Part mine[HELD];
        float squares = 0.0f;
        if (inside) {
            load_row(mine, x + begin, lane);
            if (RESIDUAL) {
                Part other[HELD];
                load_row(other, r + begin, lane);
                for_each(lane, [&](int h, int) {
                    float a[VECTOR], b[VECTOR];
                    mine[h].get(a);
                    other[h].get(b);
#pragma unroll
                    for (int i = 0; i < VECTOR; i++) a[i] += b[i];
                    mine[h].set(a);  // the sum as it is stored is what is normalised: backward sees the same numbers
                });
            }
            for_each(lane, [&](int h, int) {
                float a[VECTOR];
                mine[h].get(a);
#pragma unroll
                for (int i = 0; i < VECTOR; i++) squares = fmaf(a[i], a[i], squares);
            });
        }
        squares = row_sum(squares, scratch);
        if (!inside) continue;
        const float scale = 1.0f / sqrtf(squares * (1.0f / WIDTH) + eps);
        if (lane == 0) rstd[row] = scale;
        for_each(lane, [&](int h, int column) {
            if (RESIDUAL) mine[h].store(s + begin + column);
            float a[VECTOR], b[VECTOR];
            mine[h].get(a);
            weight[h].get(b);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) a[i] = b[i] * (a[i] * scale);
            Part out;
            out.set(a);
            out.store(y + begin + column);
        });
    }
}

// launch: grid max(1, ceil_div(R, ROWS * TURNS)), block THREADS, registers 128
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) rmsnorm_forward(element* y,          // [R, WIDTH]
                                                                      float* rstd,         // [R]
                                                                      const element* x,    // [R, WIDTH]
                                                                      const element* w,    // [WIDTH]
                                                                      int R, float eps) {
    forward<false>(nullptr, y, rstd, x, nullptr, w, R, eps);
}

// launch: grid max(1, ceil_div(R, ROWS * TURNS)), block THREADS, registers 128
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) add_rmsnorm_forward(element* s,          // [R, WIDTH] = x + r
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
    Part weight[HELD];
    load_row(weight, w, lane);
    float dw[HELD][VECTOR] = {};
    // Rows are counted for the whole block, so that all threads meet at the barriers of the sums.
#pragma unroll 1
    for (int first = blockIdx.x * ROWS; first < R; first += P * ROWS) {
        const int row = first + group;
        const bool inside = row < R;
        const size_t begin = (size_t)row * WIDTH;
        Part input[HELD], gradient[HELD];
        float scale = 0.0f, dot = 0.0f;
        if (inside) {
            load_row(input, s + begin, lane);
            load_row(gradient, dy + begin, lane);
            scale = rstd[row];
            for_each(lane, [&](int h, int) {
                float n[VECTOR], g[VECTOR], b[VECTOR];
                input[h].get(n);
                gradient[h].get(g);
                weight[h].get(b);
#pragma unroll
                for (int i = 0; i < VECTOR; i++) {
                    dw[h][i] = fmaf(g[i], n[i] * scale, dw[h][i]);
                    dot = fmaf(g[i] * b[i], n[i] * scale, dot);
                }
            });
        }
        const float mean = row_sum(dot, scratch) * (1.0f / WIDTH);
        for_each(lane, [&](int h, int) { weight[h].keep_packed(); });
        if (!inside) continue;
        for_each(lane, [&](int h, int column) {
            float n[VECTOR], g[VECTOR], b[VECTOR];
            input[h].get(n);
            gradient[h].get(g);
            weight[h].get(b);
#pragma unroll
            for (int i = 0; i < VECTOR; i++) g[i] = scale * (g[i] * b[i] - n[i] * scale * mean);
            if (RESIDUAL) {
                Part through;
                through.load(ds + begin + column);
                through.get(b);
#pragma unroll
                for (int i = 0; i < VECTOR; i++) g[i] += b[i];
            }
            Part out;
            out.set(g);
            out.store(dx + begin + column);
        });
    }
    // The rows that share the block one after the other, so that the order of the sum is fixed.
    if constexpr (ROWS > 1) {
        for (int turn = 0; turn < ROWS; turn++) {
            if (group == turn) {
                for_each(lane, [&](int h, int column) {
#pragma unroll
                    for (int i = 0; i < VECTOR; i++) {
                        float& sum = sums[place(column + i)];
                        sum = turn == 0 ? dw[h][i] : sum + dw[h][i];
                    }
                });
            }
            __syncthreads();  // this turn's sums are there for the next
        }
        for (int at = threadIdx.x; at < WIDTH; at += THREADS) partial[(size_t)blockIdx.x * WIDTH + at] = sums[at];
    } else {
        for_each(lane, [&](int h, int column) {
#pragma unroll
            for (int i = 0; i < VECTOR; i++) partial[(size_t)blockIdx.x * WIDTH + place(column + i)] = dw[h][i];
        });
    }
}

// launch: grid P, block THREADS, registers RESIDENT > 1 ? 128 : 216
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) rmsnorm_backward(element* dx,            // [R, WIDTH]
                                                                       float* partial,         // [P, WIDTH] as place() orders it
                                                                       const element* dy,      // [R, WIDTH]
                                                                       const element* s,       // [R, WIDTH] what was normalised
                                                                       const float* rstd,      // [R]
                                                                       const element* w,       // [WIDTH]
                                                                       int R, int P) {
    backward<false>(dx, partial, dy, nullptr, s, rstd, w, R, P);
}

// launch: grid P, block THREADS, registers RESIDENT > 1 ? 128 : 216
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) add_rmsnorm_backward(element* dx,          // [R, WIDTH] of x and of r
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

// Products of a few rows with a weight matrix, for generation, with what stands before and after them in a block of the model.
//   y[b,n] = sum_k a[b,k] w[n,k]      a = x, or RMSNorm(x) = x rstd * scale with rstd = rsqrt(mean_k x^2 + eps)
//   then y + residual, or silu(y[b,n]) y[b,n + N] of a fused projection w: [2 N, K]           x: [B, K]   w: [N, K]   y: [B, N]
//   or, for latent attention, one such product for each head, with its matrix or that transposed
// Bound by memory: reads w once, 2 N K bytes in 16-bit types, for 2 B N K FLOPs. A block owns BATCH rows of x and 8 of w, its warps
// interleaved parts of K, which are added in their order at the end. A lane loads eight neighbours of a row of w and of x by
// 16-byte loads straight into the registers of two mma.sync: it takes its neighbours for the columns that mma wants of it, and as
// it does so in both, the sum is the same. Batches up to 8 cost what one row costs. For float the same lanes use plain products.
// RMSNorm costs no pass of its own: as rstd is one factor of a row, it is applied at the end, and its sum is taken on the way.

#include "mma.cuh"

constexpr int WARPS = 8;
constexpr int THREADS = WARPS * WARP;
constexpr int BATCH = 8;    // rows of x in a block
constexpr int COLUMNS = 8;  // columns of y in a block: rows of w
constexpr int STEP = 32;    // columns of w that a warp loads together: eight a lane
constexpr int STEPS = 2;    // of those under way together, so that whole lines of 128 bytes are asked for

// Eight neighbours, as they lie in memory.
template <typename T>
struct alignas(16) Eight {
    u32 words[2 * sizeof(T)];
};

// Elements k to k + 7 of a row of K; zeros past its end. WHOLE: K is a multiple of 8, and the row's address of 16.
template <bool WHOLE, typename T>
__device__ __forceinline__ Eight<T> load_eight(const T* row, int k, int K) {
    Eight<T> eight = {};
    if (WHOLE) {
        if (k < K) eight = *reinterpret_cast<const Eight<T>*>(row + k);
    } else {
        T one[8] = {};
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (k + i < K) one[i] = row[k + i];
#pragma unroll
        for (int i = 0; i < 2 * sizeof(T); i++) eight.words[i] = reinterpret_cast<const u32*>(one)[i];
    }
    return eight;
}

// Words that hold a float or two neighbours: element i of several as float, the sum of one's squares, and the product of two,
// element by element, to the nearest.
template <typename T>
struct Word;
template <>
struct Word<float> {
    static __device__ __forceinline__ float at(const u32* words, int i) { return __uint_as_float(words[i]); }
    static __device__ __forceinline__ float square(u32 x) { return __uint_as_float(x) * __uint_as_float(x); }
    static __device__ __forceinline__ u32 multiply(u32 x, u32 y) {
        return __float_as_uint(__uint_as_float(x) * __uint_as_float(y));
    }
};
template <>
struct Word<bf16> {
    static __device__ __forceinline__ float at(const u32* words, int i) {
        return to_float(bf16{(u16)(words[i / 2] >> i % 2 * 16)});
    }
    static __device__ __forceinline__ float square(u32 x) {
        const float low = __uint_as_float(x << 16), high = __uint_as_float(x & 0xffff0000u);
        return fmaf(low, low, high * high);
    }
    static __device__ __forceinline__ u32 multiply(u32 x, u32 y) {
        u32 product;  // x y - 0: a product alone is not for every architecture
        asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(x), "r"(y), "r"(0x80008000u));
        return product;
    }
};
template <>
struct Word<half> {
    static __device__ __forceinline__ float at(const u32* words, int i) {
        return to_float(half{(u16)(words[i / 2] >> i % 2 * 16)});
    }
    static __device__ __forceinline__ float square(u32 x) {
        const float low = to_float(half{(u16)x}), high = to_float(half{(u16)(x >> 16)});
        return fmaf(low, low, high * high);
    }
    static __device__ __forceinline__ u32 multiply(u32 x, u32 y) {
        u32 product;
        asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(x), "r"(y));
        return product;
    }
};

struct alignas(8) Pair {
    float at[2];
};

// How a lane sums: mma's layout for 16-bit types; else one row of w for every row of x.
template <typename T>
struct Sum {
    float of[sizeof(T) == 2 ? 4 : BATCH] = {};
};

// sum += x w over the warp's STEP columns. `x` is row lane / 4 of the batch for 16-bit types, else row `b`.
template <typename T>
__device__ __forceinline__ void multiply(Sum<T>& sum, int b, const Eight<T>& x, const Eight<T>& w) {
    if constexpr (sizeof(T) == 2) {
        const u32 first[4] = {x.words[0], 0, x.words[1], 0};  // rows 8 to 15 of mma's 16 are not used
        const u32 second[4] = {x.words[2], 0, x.words[3], 0};
        mma_m16n8k16<T>(sum.of, first, w.words[0], w.words[1]);
        mma_m16n8k16<T>(sum.of, second, w.words[2], w.words[3]);
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) sum.of[b] = fmaf(__uint_as_float(x.words[i]), __uint_as_float(w.words[i]), sum.of[b]);
    }
}

// Leaves the warp's sums in scratch [BATCH, COLUMNS].
template <typename T>
__device__ __forceinline__ void leave(float* scratch, const Sum<T>& sum) {
    const int lane = threadIdx.x % WARP;
    if constexpr (sizeof(T) == 2) {
        *reinterpret_cast<Pair*>(scratch + lane / 4 * COLUMNS + lane % 4 * 2) = {sum.of[0], sum.of[1]};
    } else {
#pragma unroll
        for (int row = 0; row < BATCH; row++) {
            const float total = warp_sum<4>(sum.of[row]);
            if (lane % 4 == 0) scratch[row * COLUMNS + lane / 4] = total;
        }
    }
}

// The block's sums over K, by warp.
template <int MATRICES>
struct Partial {
    float sums[MATRICES][WARPS][BATCH * COLUMNS];
    float squares[WARPS][BATCH];
};

// Rows of w that the block multiplies by: MATRICES groups of COLUMNS, `apart` rows apart. Past w's end the last row stands for
// those that do not exist: nobody stores their sums.
struct Rows {
    const element* w;  // [count, K]
    int first, apart, count;
};

// The warp's part of the products, and of the squares of x.
template <bool NORM, bool WHOLE, int MATRICES>
__device__ __forceinline__ void add_part(Partial<MATRICES>& partial, const element* x, Rows rows, int batch, int K, int x_pitch,
                                         const element* scale) {
    constexpr int ROWS = sizeof(element) == 2 ? 1 : BATCH;  // of x that a lane goes through
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int row = lane / 4;  // of each group, and the one of x whose squares this lane adds
    Sum<element> sum[MATRICES];
    float square = 0.0f;
    for (int start = STEP * STEPS * warp; start < K; start += STEP * STEPS * WARPS) {
        Eight<element> weights[STEPS][MATRICES];
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int m = 0; m < MATRICES; m++) {
                const long long of_w = min(rows.first + row + m * rows.apart, rows.count - 1);
                weights[step][m] = load_eight<WHOLE>(rows.w + of_w * K, start + step * STEP + lane % 4 * 8, K);
            }
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            const int k = start + step * STEP + lane % 4 * 8;
            Eight<element> factors;
            if (NORM) factors = load_eight<WHOLE>(scale, k, K);
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const int b = ROWS == 1 ? row : i, of_batch = blockIdx.y * BATCH + b;
                Eight<element> held = load_eight<WHOLE>(x + (long long)of_batch * x_pitch, k, of_batch < batch ? K : 0);
                if (NORM) {
#pragma unroll
                    for (int j = 0; j < 2 * sizeof(element); j++) {
                        if (b == row) square += Word<element>::square(held.words[j]);
                        held.words[j] = Word<element>::multiply(held.words[j], factors.words[j]);
                    }
                }
#pragma unroll
                for (int m = 0; m < MATRICES; m++) multiply(sum[m], i, held, weights[step][m]);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < MATRICES; m++) leave(partial.sums[m][warp], sum[m]);
    if (NORM) {
        square = warp_sum<4>(square);
        if (lane % 4 == 0) partial.squares[warp][row] = square;
    }
}

// The products of row threadIdx.x / COLUMNS and column threadIdx.x % COLUMNS of each group, for the block's first BATCH * COLUMNS
// threads. `scale` [K] and `eps` are the norm's.
template <bool NORM, int MATRICES>
__device__ __forceinline__ void products(float (&y)[MATRICES], const element* x, Rows rows, int batch, int K, int x_pitch,
                                         const element* scale = nullptr, float eps = 0.0f) {
    __shared__ Partial<MATRICES> partial;
    if (K % 8 == 0 && x_pitch % 8 == 0)
        add_part<NORM, true>(partial, x, rows, batch, K, x_pitch, scale);
    else
        add_part<NORM, false>(partial, x, rows, batch, K, x_pitch, scale);
    __syncthreads();  // every warp's sums are there
    if (threadIdx.x >= BATCH * COLUMNS) return;
    float rstd = 1.0f;
    if (NORM) {
        float total = 0.0f;
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) total += partial.squares[warp][threadIdx.x / COLUMNS];
        rstd = rsqrtf(total / K + eps);
    }
#pragma unroll
    for (int m = 0; m < MATRICES; m++) {
        y[m] = 0.0f;
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) y[m] += partial.sums[m][warp][threadIdx.x];
        y[m] *= rstd;
    }
}

// The block's rows of w [N, K], or of two such matrices one above the other.
template <int MATRICES = 1>
__device__ __forceinline__ Rows rows_of(const element* w, int N) {
    return {w, (int)blockIdx.x * COLUMNS, N, MATRICES * N};
}

// Where in y [batch, N] the thread's product of a group belongs whose columns begin with `first`; negative: nowhere.
__device__ __forceinline__ long long place(int batch, int N, int first) {
    const int row = blockIdx.y * BATCH + threadIdx.x / COLUMNS, column = first + threadIdx.x % COLUMNS;
    return threadIdx.x < BATCH * COLUMNS && row < batch && column < N ? (long long)row * N + column : -1;
}

// Any sizes; 16-byte loads where K and x_pitch are multiples of 8, as all addresses then must be of 16.
// launch: grid (ceil_div(N, COLUMNS), ceil_div(batch, BATCH)), block THREADS, registers 96
extern "C" __global__ void __launch_bounds__(THREADS) gemv_forward(element* y,         // [batch, N]
                                                                   const element* x,   // [batch, x_pitch]
                                                                   const element* w,   // [N, K]
                                                                   int batch, int N, int K, int x_pitch) {
    float sum[1];
    products<false>(sum, x, rows_of(w, N), batch, K, x_pitch);
    const long long at = place(batch, N, blockIdx.x * COLUMNS);
    if (at >= 0) y[at] = from_float<element>(sum[0]);
}

// y may be the residual itself.
// launch: grid (ceil_div(N, COLUMNS), ceil_div(batch, BATCH)), block THREADS, registers 96
extern "C" __global__ void __launch_bounds__(THREADS) gemv_residual(element* y,                // [batch, N]
                                                                    const element* x,          // [batch, x_pitch]
                                                                    const element* w,          // [N, K]
                                                                    const element* residual,   // [batch, N]
                                                                    int batch, int N, int K, int x_pitch) {
    float sum[1];
    products<false>(sum, x, rows_of(w, N), batch, K, x_pitch);
    const long long at = place(batch, N, blockIdx.x * COLUMNS);
    if (at >= 0) y[at] = from_float<element>(to_float(residual[at]) + sum[0]);
}

// launch: grid (ceil_div(N, COLUMNS), ceil_div(batch, BATCH)), block THREADS, registers 128
extern "C" __global__ void __launch_bounds__(THREADS) gemv_norm(element* y,             // [batch, N]
                                                                const element* x,       // [batch, x_pitch]
                                                                const element* w,       // [N, K]
                                                                const element* scale,   // [K]
                                                                int batch, int N, int K, int x_pitch, float eps) {
    float sum[1];
    products<true>(sum, x, rows_of(w, N), batch, K, x_pitch, scale, eps);
    const long long at = place(batch, N, blockIdx.x * COLUMNS);
    if (at >= 0) y[at] = from_float<element>(sum[0]);
}

// The same in float: logits, which a draw tells apart more finely than 16 bits do. There are enough of them for two groups a block,
// so that what a block reads beside its part of w is less.
// launch: grid (ceil_div(N, 2 * COLUMNS), ceil_div(batch, BATCH)), block THREADS, registers 176
extern "C" __global__ void __launch_bounds__(THREADS) gemv_norm_float(float* y,               // [batch, N]
                                                                      const element* x,       // [batch, x_pitch]
                                                                      const element* w,       // [N, K]
                                                                      const element* scale,   // [K]
                                                                      int batch, int N, int K, int x_pitch, float eps) {
    float sum[2];
    const int first = 2 * COLUMNS * blockIdx.x;
    products<true>(sum, x, {w, first, COLUMNS, N}, batch, K, x_pitch, scale, eps);
    for (int m = 0; m < 2; m++) {
        const long long at = place(batch, N, first + m * COLUMNS);
        if (at >= 0) y[at] = sum[m];
    }
}

// launch: grid (ceil_div(N, COLUMNS), ceil_div(batch, BATCH)), block THREADS, registers 176
extern "C" __global__ void __launch_bounds__(THREADS) gemv_norm_swiglu(element* y,             // [batch, N]
                                                                       const element* x,       // [batch, x_pitch]
                                                                       const element* w,       // [2 N, K]: gate above up
                                                                       const element* scale,   // [K]
                                                                       int batch, int N, int K, int x_pitch, float eps) {
    float sum[2];
    products<true>(sum, x, rows_of<2>(w, N), batch, K, x_pitch, scale, eps);
    const long long at = place(batch, N, blockIdx.x * COLUMNS);
    if (at >= 0) y[at] = from_float<element>(sum[0] / (1.0f + expf(-sum[0])) * sum[1]);
}

// The same product for each head with a matrix of its own, blockIdx.z: latent attention's values out of their latents. Heads are
// w_head elements apart in w, which is a multiple of 8 where K is.
// launch: grid (ceil_div(N, COLUMNS), ceil_div(batch, BATCH), heads), block THREADS, registers 96
extern "C" __global__ void __launch_bounds__(THREADS) gemv_heads(element* y,         // [batch, heads, N]
                                                                 const element* x,   // [batch, heads, K]
                                                                 const element* w,   // [heads, N, K], heads w_head apart
                                                                 int batch, int heads, int N, int K, int w_head) {
    float sum[1];
    const int head = blockIdx.z;
    products<false>(sum, x + (long long)head * K, rows_of(w + (long long)head * w_head, N), batch, K, heads * K);
    const long long at = place(batch, N, blockIdx.x * COLUMNS);  // in [batch, N]
    if (at >= 0) y[(at / N * heads + head) * N + at % N] = from_float<element>(sum[0]);
}

constexpr int WIDE = 64;                         // columns of a block below, eight a thread: a row of them is a line of memory
constexpr int ROWS_OF_W = THREADS / (WIDE / 8);  // that a block reads together

// The product with each head's matrix transposed: latent attention's queries, taken to the latents.
//   y[b,h,n] = sum_k x[b,h,k] w[h,k,n]
// A thread sums its columns over every ROWS_OF_W-th row of w; lanes of a column, then the warps, are added in their order.
// 16-byte loads where N and w_head are multiples of 8, as w's address then must be of 16.
// launch: grid (ceil_div(N, WIDE), ceil_div(batch, BATCH), heads), block THREADS, registers 128
extern "C" __global__ void __launch_bounds__(THREADS)
    gemv_heads_transposed(element* y,         // [batch, heads, N]
                          const element* x,   // [batch, x_pitch], heads x_head apart
                          const element* w,   // [heads, K, N], heads w_head apart
                          int batch, int heads, int N, int K, int x_pitch, int x_head, int w_head) {
    __shared__ float partial[WARPS][BATCH * WIDE];
    const int head = blockIdx.z, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, column = threadIdx.x % (WIDE / 8) * 8;
    const int n = blockIdx.x * WIDE + column, first = blockIdx.y * BATCH;
    const element* const matrix = w + (long long)head * w_head;
    const bool whole = N % 8 == 0 && w_head % 8 == 0;
    float sum[BATCH][8] = {};
    for (int k = threadIdx.x / (WIDE / 8); k < K; k += ROWS_OF_W) {
        const element* const row = matrix + (long long)k * N;
        const Eight<element> weights = whole ? load_eight<true>(row, n, N) : load_eight<false>(row, n, N);
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            if (first + b >= batch) break;
            const float factor = to_float(x[(long long)(first + b) * x_pitch + head * x_head + k]);
#pragma unroll
            for (int i = 0; i < 8; i++) sum[b][i] = fmaf(factor, Word<element>::at(weights.words, i), sum[b][i]);
        }
    }
#pragma unroll
    for (int b = 0; b < BATCH; b++) {
        if (first + b >= batch) break;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            for (int distance = WIDE / 8; distance < WARP; distance *= 2)
                sum[b][i] += __shfl_xor_sync(ALL_LANES, sum[b][i], distance);
            if (lane < WIDE / 8) partial[warp][b * WIDE + i * (WIDE / 8) + lane] = sum[b][i];
        }
    }
    __syncthreads();  // every warp's sums are there
    for (int i = threadIdx.x; i < min(BATCH, batch - first) * WIDE; i += THREADS) {
        const int b = i / WIDE, of_column = i % (WIDE / 8) * 8 + i % WIDE / (WIDE / 8);
        float total = 0.0f;
#pragma unroll
        for (int other = 0; other < WARPS; other++) total += partial[other][i];
        const int to = blockIdx.x * WIDE + of_column;
        if (to < N) y[((long long)(first + b) * heads + head) * N + to] = from_float<element>(total);
    }
}

// The global norm of all gradients, and the state of the step that follows from it.
//   norm = |g| / loss_scale     grad_scale = min(1, max_norm / (norm + 1e-6)) / loss_scale     g: [n] in one flat buffer
//   step_size = rate / (1 - beta1^t)     v_scale = 1 / sqrt(1 - beta2^t)     t: updates so far and this one
// Bound by memory: reads g once, 4 n bytes, 2 n FLOPs. Each block sums the squares of its share in a fixed order; then one warp
// adds those sums in a fixed order, in double. The sum is finite only if every gradient is, which makes it the check as well: a
// step whose gradient is not leaves the weights alone and halves the loss scale, which doubles after `growth_interval` good steps
// (Micikevicius et al. 2018, arXiv 1710.03740). Nothing comes from the host but the table of learning rates, once.

#include "common.cuh"
#include "step_state.cuh"

constexpr int THREADS = 256;
constexpr int UNROLL = 4;  // loads of a thread that are under way together

__device__ __forceinline__ float sum_of_squares(const Vector<float>& x) {
    return fmaf(x.at[0], x.at[0], x.at[1] * x.at[1]) + fmaf(x.at[2], x.at[2], x.at[3] * x.at[3]);
}

// `g` is a multiple of 16.
// launch: grid (blocks), block THREADS, registers 40
extern "C" __global__ void __launch_bounds__(THREADS) gradient_norm_squares(float* partial,   // [blocks]: sums of squares
                                                                            const float* g,   // [n]
                                                                            long long n, int blocks) {
    __shared__ float scratch[THREADS / WARP];
    const long long vectors = n / 4, stride = (long long)blocks * THREADS;
    long long i = thread_index();
    float sum[UNROLL] = {};
    for (; i + (UNROLL - 1) * stride < vectors; i += UNROLL * stride) {
        Vector<float> x[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++) x[u] = load_vector(g + 4 * (i + u * stride));
#pragma unroll
        for (int u = 0; u < UNROLL; u++) sum[u] += sum_of_squares(x[u]);
    }
    for (; i < vectors; i += stride) sum[0] += sum_of_squares(load_vector(g + 4 * i));
    const long long rest = 4 * vectors + thread_index();  // at most three elements, of the first threads
    if (rest < n) sum[0] += g[rest] * g[rest];

    const float total = block_sum<THREADS>((sum[0] + sum[1]) + (sum[2] + sum[3]), scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__device__ double power(double base, int exponent) {
    double result = 1.0;
    for (; exponent > 0; exponent /= 2, base *= base)
        if (exponent % 2 == 1) result *= base;
    return result;
}

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// One warp. `max_norm` 0 clips nothing; `growth_interval` 0 leaves the loss scale as it is. Past the table's end the last rate
// stays.
// launch: grid 1, block WARP, registers 48
extern "C" __global__ void __launch_bounds__(WARP)
    gradient_norm_step(float* state,           // [STATE_FLOATS]
                       int* counts,            // [STATE_COUNTS]
                       const float* partial,   // [blocks]
                       const float* rates,     // [steps]: learning rate of each step
                       int blocks, int steps, double beta1, double beta2, double max_norm, int growth_interval) {
    double squares = 0.0;
#pragma unroll 4
    for (int b = threadIdx.x; b < blocks; b += WARP) squares += partial[b];
    squares = warp_sum(squares);
    if (threadIdx.x > 0) return;

    const bool finite = squares < (double)__int_as_float(0x7f800000);
    const double loss_scale = state[LOSS_SCALE], norm = sqrt(squares) / loss_scale;
    const double clip = max_norm > 0.0 ? fmin(1.0, max_norm / (norm + 1e-6)) : 1.0;
    const double rate = rates[min(counts[STEPS], steps - 1)];
    const int update = counts[UPDATES] + 1;
    state[NORM] = (float)norm;
    state[GRAD_SCALE] = (float)(clip / loss_scale);
    state[RATE] = (float)rate;
    state[STEP_SIZE] = (float)(rate / (1.0 - power(beta1, update)));
    state[V_SCALE] = (float)(1.0 / sqrt(1.0 - power(beta2, update)));
    counts[STEPS]++;
    counts[FINITE] = finite;
    if (finite) counts[UPDATES] = update;

    const int streak = finite ? counts[STREAK] + 1 : 0;
    const bool grows = growth_interval > 0 && streak == growth_interval;
    if (grows) state[LOSS_SCALE] = (float)(2.0 * loss_scale);
    if (growth_interval > 0 && !finite) state[LOSS_SCALE] = (float)(0.5 * loss_scale);
    counts[STREAK] = grows ? 0 : streak;
}

// AdamW over all parameters in one launch, in place (Loshchilov and Hutter 2019, arXiv 1711.05101), with the working copy.
//   m = beta1 m + (1 - beta1) g   v = beta2 v + (1 - beta2) g^2   p = p (1 - rate decay) - rate (m / c1) / (sqrt(v / c2) + eps)
//   g is first multiplied by grad_scale; c1 = 1 - beta1^t, c2 = 1 - beta2^t.      p, g, m, v: [n] float   copy: [n] element
// Bound by memory: reads p, g, m, v, writes p, m, v and the copy: 28 bytes a parameter, 30 with a 16-bit copy; about 20 FLOPs.
// The host cuts the flat buffers into tiles, each with its own weight decay; what has no gradient lies in no tile and is left
// alone. A block owns a tile. What changes from step to step comes from the state that gradient_norm_step left:
// after a gradient that was not finite nothing is written.

#include "philox.cuh"
#include "step_state.cuh"

constexpr int THREADS = 256;

struct Factors {
    float grad_scale, decay, beta1, beta2, step_size, v_scale, eps;
};

__device__ __forceinline__ void update(float& p, float g, float& m, float& v, const Factors& f) {
    g *= f.grad_scale;
    m = f.beta1 * m + (1.0f - f.beta1) * g;
    v = f.beta2 * v + (1.0f - f.beta2) * g * g;
    p = p * f.decay - f.step_size * m / (sqrtf(v) * f.v_scale + f.eps);
}

// How the working copy is rounded, if there is one. `words` are random, one for each of the four elements of a vector.
struct NoCopy {
    static constexpr bool COPIES = false;
    typedef float Type;
    __device__ __forceinline__ Words words(long long) const { return {}; }
    __device__ __forceinline__ float round(float x, u32) const { return x; }
};

struct Nearest {
    static constexpr bool COPIES = true;
    typedef element Type;
    __device__ __forceinline__ Words words(long long) const { return {}; }
    __device__ __forceinline__ element round(float x, u32) const { return from_float<element>(x); }
};

// Up or down with the probabilities that make the mean right: the bits that are cut off may carry. Element i's word depends on the
// key, the step and i alone.
struct Stochastic {
    static constexpr bool COPIES = true;
    typedef bf16 Type;
    Philox philox;
    int step;
    __device__ __forceinline__ Words words(long long i) const {
        return philox_words(philox, (u32)(i / 4), (u32)(i >> 34), step, 0);
    }
    __device__ __forceinline__ bf16 round(float x, u32 word) const {
        if (!(fabsf(x) < __int_as_float(0x7f800000))) return from_float<bf16>(x);
        return {(u16)((__float_as_uint(x) + (word & 0xffffu)) >> 16)};
    }
};

// As many neighbours as one vector of floats has.
template <typename T>
struct alignas(4 * sizeof(T)) Four {
    T at[4];
};

// Updates one tile; returns whether the values that the model computes with are finite.
template <typename Rounding>
__device__ __forceinline__ bool update_tile(float* p, float* m, float* v, typename Rounding::Type* copy, const float* g,
                                            long long begin, long long end, const Factors& f, const Rounding& rounding) {
    typedef typename Rounding::Type Copy;
    const float infinity = __int_as_float(0x7f800000);
    const long long body = min((begin + 3) / 4 * 4, end), tail = body + (end - body) / 4 * 4;
    bool finite = true;
    for (long long i = body + 4 * threadIdx.x; i < tail; i += 4 * THREADS) {
        Vector<float> p4 = load_vector(p + i), m4 = load_vector(m + i), v4 = load_vector(v + i);
        const Vector<float> g4 = load_vector(g + i);
#pragma unroll
        for (int j = 0; j < 4; j++) update(p4.at[j], g4.at[j], m4.at[j], v4.at[j], f);
        store_vector(p + i, p4);
        store_vector(m + i, m4);
        store_vector(v + i, v4);
        Four<Copy> rounded;
        const Words words = rounding.words(i);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            rounded.at[j] = rounding.round(p4.at[j], words.at[j]);
            finite &= fabsf(to_float(rounded.at[j])) < infinity;
        }
        if (Rounding::COPIES) *reinterpret_cast<Four<Copy>*>(copy + i) = rounded;
    }
    // Up to three elements before the first vector and three after the last, one a thread.
    const long long rest = threadIdx.x < 4 ? begin + threadIdx.x : tail + threadIdx.x - 4;
    if (threadIdx.x < 8 && rest < (threadIdx.x < 4 ? body : end)) {
        update(p[rest], g[rest], m[rest], v[rest], f);
        const Words words = rounding.words(rest);
        u32 word = words.at[0];
#pragma unroll
        for (int j = 1; j < 4; j++) word = rest % 4 == j ? words.at[j] : word;
        const Copy rounded = rounding.round(p[rest], word);
        finite &= fabsf(to_float(rounded)) < infinity;
        if (Rounding::COPIES) copy[rest] = rounded;
    }
    return finite;
}

template <typename Rounding>
__device__ __forceinline__ void step(float* p, float* m, float* v, typename Rounding::Type* copy, int* counts, const float* g,
                                     const float* state, const long long* bounds, const float* decays, float beta1, float beta2,
                                     float eps, const Rounding& rounding) {
    if (counts[FINITE] == 0) return;
    const Factors factors = {state[GRAD_SCALE], fmaf(-state[RATE], decays[blockIdx.x], 1.0f), beta1, beta2,
                             state[STEP_SIZE],  state[V_SCALE],                               eps};
    const long long begin = bounds[2 * blockIdx.x], end = bounds[2 * blockIdx.x + 1];
    const bool finite = update_tile(p, m, v, copy, g, begin, end, factors, rounding);
    if (!finite) atomicOr(&counts[OVERFLOWED], 1);  // an integer: the order does not matter
}

// All buffers begin at a multiple of 16.
// launch: grid (tiles), block THREADS, registers 48
extern "C" __global__ void __launch_bounds__(THREADS) adamw_update(float* p,                  // [n]
                                                                   float* m,                  // [n]
                                                                   float* v,                  // [n]
                                                                   int* counts,               // [STATE_COUNTS]
                                                                   const float* g,            // [n]
                                                                   const float* state,        // [STATE_FLOATS]
                                                                   const long long* bounds,   // [tiles, 2]: begin and end of each
                                                                   const float* decays,       // [tiles]: weight decay
                                                                   int tiles, float beta1, float beta2, float eps) {
    step(p, m, v, nullptr, counts, g, state, bounds, decays, beta1, beta2, eps, NoCopy{});
}

// The same, and leaves the updated parameters rounded in `copy`, for models that compute in another type than float.
// launch: grid (tiles), block THREADS, registers 56
extern "C" __global__ void __launch_bounds__(THREADS)
    adamw_update_copy(float* p,                  // [n]
                      float* m,                  // [n]
                      float* v,                  // [n]
                      element* copy,             // [n]
                      int* counts,               // [STATE_COUNTS]
                      const float* g,            // [n]
                      const float* state,        // [STATE_FLOATS]
                      const long long* bounds,   // [tiles, 2]: begin and end of each
                      const float* decays,       // [tiles]: weight decay
                      int tiles, float beta1, float beta2, float eps) {
    step(p, m, v, copy, counts, g, state, bounds, decays, beta1, beta2, eps, Nearest{});
}

// The same for a copy in bf16, rounded up or down at random. `random`: the key of the random numbers.
// launch: grid (tiles), block THREADS, registers 64
extern "C" __global__ void __launch_bounds__(THREADS)
    adamw_update_stochastic(float* p,                  // [n]
                            float* m,                  // [n]
                            float* v,                  // [n]
                            bf16* copy,                // [n]
                            int* counts,               // [STATE_COUNTS]
                            const float* g,            // [n]
                            const float* state,        // [STATE_FLOATS]
                            const long long* bounds,   // [tiles, 2]: begin and end of each
                            const float* decays,       // [tiles]: weight decay
                            unsigned long long random, int tiles, float beta1, float beta2, float eps) {
    step(p, m, v, copy, counts, g, state, bounds, decays, beta1, beta2, eps, Stochastic{{random}, counts[STEPS]});
}

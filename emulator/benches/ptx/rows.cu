// A block of 256 threads per row of C elements: softmax and RMSNorm, reduced over warps by shuffles and shared memory.
#define WARPS 8

template <bool MAXIMUM>
__device__ float reduce(float x) {
    __shared__ float partial[WARPS];
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(0xffffffff, x, step);
        x = MAXIMUM ? fmaxf(x, other) : x + other;
    }
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
    __syncthreads();
    x = partial[0];
    for (int w = 1; w < WARPS; w++) x = MAXIMUM ? fmaxf(x, partial[w]) : x + partial[w];
    __syncthreads();
    return x;
}

extern "C" __global__ void softmax(float* y, const float* x, int C) {
    x += (size_t)blockIdx.x * C;
    y += (size_t)blockIdx.x * C;
    float largest = -3.4e38f, sum = 0.0f;
    for (int c = threadIdx.x; c < C; c += blockDim.x) largest = fmaxf(largest, x[c]);
    largest = reduce<true>(largest);
    for (int c = threadIdx.x; c < C; c += blockDim.x) sum += expf(x[c] - largest);
    sum = reduce<false>(sum);
    for (int c = threadIdx.x; c < C; c += blockDim.x) y[c] = expf(x[c] - largest) / sum;
}

extern "C" __global__ void rmsnorm(float* y, const float* x, const float* w, int C, float eps) {
    x += (size_t)blockIdx.x * C;
    y += (size_t)blockIdx.x * C;
    float squares = 0.0f;
    for (int c = threadIdx.x * 4; c < C; c += blockDim.x * 4) {
        const float4 v = *reinterpret_cast<const float4*>(x + c);
        squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    const float scale = rsqrtf(reduce<false>(squares) / C + eps);
    for (int c = threadIdx.x * 4; c < C; c += blockDim.x * 4) {
        const float4 v = *reinterpret_cast<const float4*>(x + c), g = *reinterpret_cast<const float4*>(w + c);
        *reinterpret_cast<float4*>(y + c) = make_float4(v.x * scale * g.x, v.y * scale * g.y, v.z * scale * g.z, v.w * scale * g.w);
    }
}

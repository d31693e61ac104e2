// What makes the compiler emit calls, prototypes, tables and local memory: read by the parser's tests.
struct Pair {
    char small[7];
    double large;
};
struct Node {
    int value;
    int* next;
    float weight;
};

__device__ int array[4] = {1, 2, 3, 4};
__device__ Node node = {3, array + 1, 1.5f};
__constant__ float table[4] = {1.f, 2.f, 3.5f, -0.f};

__device__ __noinline__ int twice(int x) { return x * 2; }
__device__ __noinline__ int recurse(int x) { return x < 2 ? 1 : recurse(x - 1) * twice(x); }
__device__ __noinline__ Pair doubled(Pair p) {
    p.large *= 2;
    return p;
}
__device__ __noinline__ void fence() { asm volatile("membar.gl;"); }
__device__ int (*functions[2])(int) = {twice, recurse};
__device__ float inlined(const float* x) { return __fdividef(x[0], x[1]); }

extern "C" __global__ void __launch_bounds__(128, 2) calls(float* out, const int* __restrict__ in, Pair pair, int n) {
    extern __shared__ float dynamic[];
    __shared__ alignas(128) int fixed[3][5];
    int t = threadIdx.x;
    float local[16];
    for (int i = 0; i < 16; i++) local[i] = out[i];
    fixed[t % 3][t % 5] = t;
    __syncthreads();
    switch (in[t]) {
        case 0: out[t] = 1; break;
        case 1: out[t] = inlined(out); break;
        case 2: fence(); break;
        case 3: out[t] = table[in[t + 9] & 3]; break;
        case 4: out[9] = recurse(t); break;
        case 5: out[3] = functions[n & 1](t); break;
        default: printf("thread %d\n", t);
    }
    pair = doubled(pair);
    out[t] += pair.large + fixed[n][n] + dynamic[n] + *node.next + local[n & 15];
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %0, 0;\n @p bra SKIP;\n trap; SKIP: }" ::"r"(n));
}

// y[i] = a[i] * x[i] + b[i] in half precision, two at a time, with the intrinsics of cuda_fp16.h.  All: [n].
#include <cuda_fp16.h>
#include "ptx.cuh"

extern "C" __global__ void half_axpby(__half* y, const __half* a, const __half* x, const __half* b, int n) {
    const int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j < n / 2)
        reinterpret_cast<__half2*>(y)[j] =
            __hfma2(reinterpret_cast<const __half2*>(a)[j], reinterpret_cast<const __half2*>(x)[j],
                    reinterpret_cast<const __half2*>(b)[j]);
    else if (j == n / 2 && n % 2 == 1)
        y[n - 1] = __hfma(a[n - 1], x[n - 1], b[n - 1]);
}

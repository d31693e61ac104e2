// A stand-in for NVIDIA's driver, for tests of src/gpu/cuda on machines that have none: device memory is the process's own, work is
// done when it is issued, and the one kernel, `scale`, is x[i] = a * x[i] for n floats. What it was called with is printed.
//
// -DNO_DEVICE: the driver of a machine without a device.   -DOLD: one that lacks a symbol.   FAKE_FAULT: the kernel strays.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Status;
typedef unsigned long long Address;
typedef struct { unsigned grid[3], block[3], shared; void *stream; struct Attribute *attributes; unsigned count; } Config;
struct Attribute { unsigned id; char pad[4]; union { char pad[64]; unsigned cluster[3]; int flag; } value; };

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE_FOUND = 100, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700 };
static int handle, capturing, faulted;
static Address captured_x;
static float captured_a;
static int captured_n;

#ifdef NO_DEVICE
Status cuInit(unsigned flags) { return NO_DEVICE_FOUND; }
#else
Status cuInit(unsigned flags) { return SUCCESS; }
#endif
Status cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
Status cuGetErrorName(Status status, const char **text) {
    *text = status == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_OTHER";
    return SUCCESS;
}
Status cuGetErrorString(Status status, const char **text) { *text = "as the stand-in says"; return SUCCESS; }
Status cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
Status cuDeviceGet(int *device, int ordinal) { *device = ordinal; return SUCCESS; }
Status cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Stand-in", length); return SUCCESS; }
Status cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 1 << 20; return SUCCESS; }
Status cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
        case 75: *value = 9; break;                          // compute capability 9.0
        case 76: *value = 0; break;
        case 4: *value = 64; break;                          // block, z
        case 97: *value = 227 << 10; break;                  // shared memory of a block
        case 120: *value = 1; break;                         // clusters
        default: *value = 1024;
    }
    return SUCCESS;
}
Status cuDevicePrimaryCtxRetain(void **context, int device) { *context = &handle; return SUCCESS; }
Status cuDevicePrimaryCtxRelease_v2(int device) { puts("context released"); return SUCCESS; }
Status cuCtxSetCurrent(void *context) { return context == &handle ? SUCCESS : INVALID_VALUE; }

Status cuMemAlloc_v2(Address *address, size_t bytes) {
    if (bytes > 1 << 20) return OUT_OF_MEMORY;
    *address = (Address)malloc(bytes);
    return SUCCESS;
}
Status cuMemFree_v2(Address address) { free((void *)address); puts("freed"); return SUCCESS; }
Status cuMemGetInfo_v2(size_t *unused, size_t *total) { *unused = 1234; *total = 1 << 20; return SUCCESS; }
Status cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) { memcpy((void *)to, from, bytes); return SUCCESS; }
Status cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) { memcpy(to, (void *)from, bytes); return SUCCESS; }
Status cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream) { memcpy((void *)to, (void *)from, bytes); return SUCCESS; }
Status cuMemsetD8Async(Address to, unsigned char byte, size_t bytes, void *stream) { memset((void *)to, byte, bytes); return SUCCESS; }

Status cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
    if (strncmp(image, "\x7f" "ELF", 4) && strncmp(image, ".version", 8)) {
        snprintf(values[0], (size_t)values[1], "not an image");
        return INVALID_VALUE;
    }
    *module = &handle;
    return SUCCESS;
}
Status cuModuleGetFunction(void **function, void *module, const char *name) {
    *function = &handle;
    return strcmp(name, "scale") ? NOT_FOUND : SUCCESS;
}
Status cuFuncGetAttribute(int *value, int attribute, void *function) { *value = 0; return SUCCESS; }
Status cuFuncSetAttribute(void *function, int attribute, int value) { printf("attribute %d = %d\n", attribute, value); return SUCCESS; }
Status cuFuncGetParamInfo(void *function, size_t index, size_t *offset, size_t *size) {
    const size_t offsets[] = {0, 8, 12}, sizes[] = {8, 4, 4};
    if (index >= 3) return INVALID_VALUE;
    *offset = offsets[index];
    *size = sizes[index];
    return SUCCESS;
}
static void scale(Address x, float a, int n) {
    for (int i = 0; i < n; i++) ((float *)x)[i] *= a;
}
Status cuLaunchKernelEx(const Config *config, void *function, void **arguments, void **extra) {
    printf("grid %u %u %u block %u %u %u shared %u", config->grid[0], config->grid[1], config->grid[2], config->block[0], config->block[1],
           config->block[2], config->shared);
    for (unsigned i = 0; i < config->count; i++) {
        const struct Attribute *attribute = &config->attributes[i];
        printf(", launch attribute %u = %u", attribute->id, attribute->value.cluster[0]);
    }
    puts("");
    if (getenv("FAKE_FAULT")) {
        faulted = 1;
        return SUCCESS;
    }
    captured_x = *(Address *)arguments[0];
    captured_a = *(float *)arguments[1];
    captured_n = *(int *)arguments[2];
    if (!capturing) scale(captured_x, captured_a, captured_n);
    return SUCCESS;
}

Status cuStreamCreate(void **stream, unsigned flags) { *stream = &handle; return flags == 1 ? SUCCESS : INVALID_VALUE; }
Status cuStreamDestroy_v2(void *stream) { return SUCCESS; }
Status cuStreamSynchronize(void *stream) { return faulted ? ILLEGAL_ADDRESS : SUCCESS; }
Status cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return SUCCESS; }
Status cuStreamIsCapturing(void *stream, int *state) { *state = capturing; return SUCCESS; }
Status cuStreamBeginCapture_v2(void *stream, int mode) { capturing = 1; return SUCCESS; }
Status cuStreamEndCapture(void *stream, void **graph) { capturing = 0; *graph = &handle; return SUCCESS; }
Status cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) { *executable = &handle; return SUCCESS; }
Status cuGraphLaunch(void *executable, void *stream) { scale(captured_x, captured_a, captured_n); return SUCCESS; }
Status cuGraphExecDestroy(void *executable) { puts("graph destroyed"); return SUCCESS; }
Status cuGraphDestroy(void *graph) { return SUCCESS; }
Status cuEventCreate(void **event, unsigned flags) { *event = &handle; return SUCCESS; }
Status cuEventDestroy_v2(void *event) { return SUCCESS; }
Status cuEventRecord(void *event, void *stream) { return SUCCESS; }
Status cuEventSynchronize(void *event) { return SUCCESS; }
Status cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) { *milliseconds = 1.5f; return SUCCESS; }
#ifndef OLD
Status cuTensorMapEncodeTiled(unsigned char *map, int type, unsigned rank, void *address, const unsigned long long *shape,
                              const unsigned long long *strides, const unsigned *box, const unsigned *element_strides, int interleave,
                              int swizzle, int promotion, int fill) {
    memset(map, 0, 128);
    const unsigned char values[] = {type, rank, shape[0], shape[1], strides[0], box[0], box[1], element_strides[1], swizzle, promotion, fill};
    memcpy(map, values, sizeof values);
    return SUCCESS;
}
#endif

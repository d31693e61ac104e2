// A stand-in for NVRTC that tells a version and compiles nothing.   -DMAJOR=11 -DMINOR=8
#include <stddef.h>

typedef int Status;
Status nvrtcVersion(int *major, int *minor) { *major = MAJOR; *minor = MINOR; return 0; }
const char *nvrtcGetErrorString(Status status) { return "NVRTC_ERROR_STAND_IN"; }
Status nvrtcCreateProgram(void **program, const char *text, const char *name, int count, const char **texts, const char **names) { return 3; }
Status nvrtcCompileProgram(void *program, int count, const char **options) { return 3; }
Status nvrtcDestroyProgram(void **program) { return 0; }
Status nvrtcGetProgramLogSize(void *program, size_t *size) { return 3; }
Status nvrtcGetProgramLog(void *program, char *log) { return 3; }
Status nvrtcGetPTXSize(void *program, size_t *size) { return 3; }
Status nvrtcGetPTX(void *program, char *ptx) { return 3; }
Status nvrtcGetCUBINSize(void *program, size_t *size) { return 3; }
Status nvrtcGetCUBIN(void *program, char *cubin) { return 3; }

// The few names of CUDA that _cuda/common.cuh uses, so that index maps and records are one source.
#pragma once
#include <cstdint>
#include <cstring>

#include "vectors.h"

#define __device__
#define __forceinline__ inline
#define __noinline__
#define EPILOGUE 1

template <class T> static inline T __ldg(const T* from) { return *from; }
// the file is compiled with -ffp-contract=off: these round by themselves
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#include "../_cuda/common.cuh"

#undef __device__
#undef __forceinline__
#undef __noinline__

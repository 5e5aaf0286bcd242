// What CUDA's headers say to its own compiler, and to the host's compiler says nothing.
//
// CUDA ships this file with its compiler, which nothing else is needed of here.
#pragma once
#define CUDARTAPI
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#define __cudart_builtin__
#define __device_builtin__
#define __device_builtin_surface_type__
#define __device_builtin_texture_type__
#define __forceinline__ inline
#define __host__
#define __device__

// CUDA's runtime for hosts: what CuPy uses of the header of this name, without device functions.
#pragma once
#include <cuda_runtime_api.h>
#include <driver_functions.h>

// the overload for C++ with CUDA 11's arguments, as the original has it; CuPy 13 calls it
inline cudaError_t cudaGraphInstantiate(
    cudaGraphExec_t* executable, cudaGraph_t graph, cudaGraphNode_t*, char*, size_t) {
    return cudaGraphInstantiate(executable, graph, 0ull);
}

// CUDA's runtime for hosts: what CuPy uses of the header of this name, without device functions.
#pragma once
#include <cuda_runtime_api.h>
#include <driver_functions.h>

// The functions of libcuda that CuPy needs to load and launch kernels, and those that describe the
// device to `gpu-patch info`.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "device.h"
#include "image.h"

using namespace on_cpu;

namespace {
using Launch = const char* (*)(const unsigned* dims, size_t shared_bytes, void** arguments);

struct Module {
    void* const library;
    explicit Module(void* opened) : library(opened) {}
    Module(const Module&) = delete;
    ~Module() { dlclose(library); }
};
struct Function {
    std::shared_ptr<Module> module;
    std::string name;
    Launch launch;
    std::vector<size_t> sizes;  // of the arguments
    int dynamic_shared_bytes = 48 << 10;
};
std::map<CUmodule, std::shared_ptr<Module>> modules;
std::map<CUfunction, std::shared_ptr<Function>> functions;  // for the life of the process
}  // namespace

extern "C" {
CUresult cuGetErrorName(CUresult error, const char** name) {
    *name = error == CUDA_ERROR_INVALID_IMAGE    ? "CUDA_ERROR_INVALID_IMAGE"
            : error == CUDA_ERROR_FILE_NOT_FOUND ? "CUDA_ERROR_FILE_NOT_FOUND"
            : error == CUDA_ERROR_INVALID_VALUE  ? "CUDA_ERROR_INVALID_VALUE"
            : error == CUDA_ERROR_NOT_FOUND      ? "CUDA_ERROR_NOT_FOUND"
            : error == CUDA_ERROR_INVALID_HANDLE ? "CUDA_ERROR_INVALID_HANDLE"
                                                 : "CUDA_ERROR_UNKNOWN";
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult, const char** text) {
    *text = "see the name, and what cuda_on_cpu printed";
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int* version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }
CUresult cuInit(unsigned) { return n_devices ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE; }
CUresult cuDeviceGetCount(int* count) { return *count = n_devices, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int number) { return *device = number, CUDA_SUCCESS; }
CUresult cuDeviceGetName(char* name, int size, CUdevice) {
    snprintf(name, size_t(size), "CUDA on CPU");
    return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem(size_t* n_bytes, CUdevice) { return *n_bytes = capacity, CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
    return CUresult(cudaDeviceGetAttribute(value, cudaDeviceAttr(attribute), device));
}

CUresult cuCtxGetCurrent(CUcontext* context) {
    static int the_only_one;
    *context = reinterpret_cast<CUcontext>(&the_only_one);
    return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice* device) { return *device = 0, CUDA_SUCCESS; }
CUresult cuStreamGetCtx(CUstream, CUcontext* context) { return cuCtxGetCurrent(context); }

CUresult cuModuleLoadData(CUmodule* handle, const void* data) {
    Lock lock(mutex);
    Image image;
    memcpy(&image, data, sizeof image);
    if (memcmp(image.magic, IMAGE_MAGIC, sizeof image.magic)) return CUDA_ERROR_INVALID_IMAGE;
    // a name of its own: what has the name of a library that is loaded would not be loaded
    char path[] = "/tmp/cuda_on_cpu_XXXXXX";
    const int file = mkstemp(path);
    const char* bytes = static_cast<const char*>(data) + sizeof image;
    for (size_t i = 0; i < image.size;) {
        const ssize_t n = write(file, bytes + i, image.size - i);
        if (n <= 0) return CUDA_ERROR_UNKNOWN;
        i += n;
    }
    close(file);
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    unlink(path);
    if (!library) fprintf(stderr, "cuda_on_cpu: %s\n", dlerror());
    if (!library) return CUDA_ERROR_INVALID_IMAGE;
    const auto module = std::make_shared<Module>(library);
    modules[*handle = reinterpret_cast<CUmodule>(module.get())] = module;
    return CUDA_SUCCESS;
}
CUresult cuModuleLoad(CUmodule* handle, const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
    std::ostringstream bytes;
    bytes << file.rdbuf();
    if (bytes.str().size() < sizeof(Image)) return CUDA_ERROR_INVALID_IMAGE;
    return cuModuleLoadData(handle, bytes.str().data());
}
CUresult cuModuleUnload(CUmodule handle) {
    Lock lock(mutex);
    return modules.erase(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
CUresult cuModuleGetFunction(CUfunction* handle, CUmodule module_handle, const char* name) {
    Lock lock(mutex);
    const auto module = modules.find(module_handle);
    if (module == modules.end()) return CUDA_ERROR_INVALID_HANDLE;
    const auto symbol = [&](const char* prefix) {
        return dlsym(module->second->library, (std::string(prefix) + name).c_str());
    };
    const auto launch = reinterpret_cast<Launch>(symbol("on_cpu_launch_"));
    const auto sizes = reinterpret_cast<const size_t* (*)()>(symbol("on_cpu_sizes_"));
    if (!launch || !sizes) return CUDA_ERROR_NOT_FOUND;
    const auto function = std::make_shared<Function>();
    function->module = module->second, function->name = name, function->launch = launch;
    for (const size_t* size = sizes(); *size; ++size) function->sizes.push_back(*size);
    functions[*handle = reinterpret_cast<CUfunction>(function.get())] = function;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction handle) {
    Lock lock(mutex);
    const auto function = functions.find(handle);
    if (function == functions.end()) return CUDA_ERROR_INVALID_HANDLE;
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                 ? function->second->dynamic_shared_bytes
             : attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024
                                                                    : 0;
    return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
    Lock lock(mutex);
    const auto function = functions.find(handle);
    if (function == functions.end()) return CUDA_ERROR_INVALID_HANDLE;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    if (value > 227 << 10) return CUDA_ERROR_INVALID_VALUE;
    function->second->dynamic_shared_bytes = value;
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z,
                        unsigned shared_bytes, CUstream stream_handle, void** arguments, void**) {
    Lock lock(mutex);
    const auto found = functions.find(handle);
    const auto stream = stream_of(stream_handle);
    if (found == functions.end() || !stream) return CUDA_ERROR_INVALID_HANDLE;
    const std::shared_ptr<Function> function = found->second;
    if (!grid_x || !grid_y || !grid_z || grid_x > INT32_MAX || grid_y > UINT16_MAX ||
        grid_z > UINT16_MAX || !(block_x && block_y && block_z) || block_z > 64 ||
        uint64_t(block_x) * block_y * block_z > 1024 ||
        shared_bytes > unsigned(function->dynamic_shared_bytes))
        return CUDA_ERROR_INVALID_VALUE;
    ++counters[launches];
    if (mode == DROPPED) return CUDA_SUCCESS;
    // Arguments are copied now, as CUDA does; what they point to is read when the kernel runs.
    size_t n_bytes = 0;
    for (const size_t size : function->sizes) n_bytes += (size + 15) / 16 * 16;
    std::vector<char> values(n_bytes);
    size_t offset = 0;
    for (size_t i = 0; i < function->sizes.size(); ++i) {
        memcpy(&values[offset], arguments[i], function->sizes[i]);
        offset += (function->sizes[i] + 15) / 16 * 16;
    }
    stream->submit([=]() mutable {
        std::vector<void*> pointers;
        char* next = values.data();
        for (const size_t size : function->sizes) {
            pointers.push_back(next);
            next += (size + 15) / 16 * 16;
        }
        const unsigned dims[] = {grid_x, grid_y, grid_z, block_x, block_y, block_z};
        const char* error = function->launch(dims, shared_bytes, pointers.data());
        if (!error) error = spoilt_guard();
        return error ? fail(cudaErrorLaunchFailure, function->name + ": " + error) : cudaSuccess;
    });
    return CUresult(pending_error());  // whose numbers are the same
}
}  // extern "C"

// libnvrtc: the host's C++ compiler, and a header in which a block's threads are fibers.
//
// SHIM is that header's path; the environment variable CUDA_ON_CPU_SHIM replaces it.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <regex>
#include <sstream>

#include "device.h"
#include "image.h"

using namespace on_cpu;

typedef int nvrtcResult;
enum { NVRTC_SUCCESS, NVRTC_ERROR_COMPILATION = 6, NVRTC_ERROR_INVALID_PROGRAM = 4 };

namespace {
struct Program {
    std::string text, name, image, log;
};

// As EMULATION_EXPORT of the shim, but for several kernels, and with the arguments' sizes.
const char EXPORTS[] = R"(
namespace on_cpu {
template <class... A> const size_t* sizes(void (*)(A...)) {
    static const size_t all[] = {sizeof(A)..., 0};
    return all;
}
}
#define ON_CPU_EXPORT(kernel)                                                                   \
    extern "C" const char* on_cpu_launch_##kernel(const unsigned* dims, size_t shared_bytes,    \
                                                  void** arguments) {                           \
        return emulation::call(kernel, dims, shared_bytes, arguments);                          \
    }                                                                                           \
    extern "C" const size_t* on_cpu_sizes_##kernel() { return on_cpu::sizes(kernel); }
)";
// What CuPy's own kernels want beside the shim, and a clock so fast that whoever waits by it ends.
const char PRELUDE[] = R"(
#include <cassert>
#include <cstddef>
#define __host__
#define __shared__ static
using std::isfinite, std::isinf, std::isnan;
static long long clock64() { static long long t; return t += 1 << 24; }
inline unsigned short __float2half_rn(float value) { return float_to_half(value); }
inline float __half2float(unsigned short bits) { return half_to_float(bits); }
#define __ushort_as_half(bits) half_to_float(bits)
template <class Half> inline unsigned short __half_as_ushort(Half value) {
    unsigned short bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline int __popc(unsigned word) { return __builtin_popcount(word); }
inline int __popcll(unsigned long long word) { return __builtin_popcountll(word); }
)";

std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

std::string shim() {
    const char* path = getenv("CUDA_ON_CPU_SHIM");
    return read(path ? path : SHIM);
}

std::string flags() {
    const bool fma = read("/proc/cpuinfo").find(" fma ") != std::string::npos;
    return std::string("-O1 -std=c++17 -fPIC -shared -ffp-contract=off -U_FORTIFY_SOURCE "
                       "-fno-gnu-unique -w") +
           (fma ? " -mfma" : "");
}

// Without the headers that CuPy puts before each of its kernels, and these do without.
std::string without_headers(std::string text) {
    for (const char* name : {"complex", "atomics"}) {
        const std::string line = "#include <cupy/" + std::string(name) + ".cuh>";
        const size_t at = text.find(line);
        if (at != std::string::npos) text.erase(at, line.size());
    }
    return text;
}

std::vector<std::string> kernels(const std::string& text) {
    static const std::regex entry(
        R"re(extern\s+"C"\s+__global__[^;{}]*?\bvoid\s+)re"
        R"re((?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\()re");
    std::vector<std::string> names;
    for (std::sregex_iterator i(text.begin(), text.end(), entry), end; i != end; ++i)
        names.push_back((*i)[1]);
    return names;
}
}  // namespace

extern "C" {
const char* nvrtcGetErrorString(nvrtcResult result) {
    return result == NVRTC_ERROR_COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC error";
}
nvrtcResult nvrtcVersion(int* major, int* minor) { return *major = 12, *minor = 9, NVRTC_SUCCESS; }
nvrtcResult nvrtcGetNumSupportedArchs(int* n) { return *n = 2, NVRTC_SUCCESS; }
nvrtcResult nvrtcGetSupportedArchs(int* archs) {
    return archs[0] = 70, archs[1] = 90, NVRTC_SUCCESS;
}

nvrtcResult nvrtcCreateProgram(void** program, const char* text, const char* name, int,
                               const char**, const char**) {
    *program = new Program{text, name ? name : "default_program", "", ""};
    return NVRTC_SUCCESS;
}
nvrtcResult nvrtcDestroyProgram(void** program) {
    return delete static_cast<Program*>(*program), *program = nullptr, NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(void* handle, int n_options, const char** options) {
    auto* program = static_cast<Program*>(handle);
    const std::string header = shim();
    if (program->text.empty()) {
        // CuPy keeps kernels on disk under what this says of the compiler.
        const auto key = std::hash<std::string>()(header + EXPORTS + PRELUDE + flags());
        program->image = "// cuda_on_cpu " + std::to_string(key) + "\n";
        return NVRTC_SUCCESS;
    }
    {
        Lock lock(mutex);
        ++counters[compilations];
    }
    char folder[] = "/tmp/cuda_on_cpu_XXXXXX";
    if (!mkdtemp(folder)) return NVRTC_ERROR_INVALID_PROGRAM;
    const std::string path = folder, source = path + "/kernel.cpp", library = path + "/kernel.so";
    {
        std::ofstream file(source);
        file << "#line 1 \"cpu_shim.h\"\n" << header << EXPORTS << PRELUDE << "#line 1 \""
             << program->name << "\"\n" << without_headers(program->text) << "\n";
        for (const std::string& name : kernels(program->text))
            file << "ON_CPU_EXPORT(" << name << ")\n";
    }
    std::string command = "env -u LD_PRELOAD ${CXX:-g++} " + flags();
    for (int i = 0; i < n_options; ++i)
        if (!strncmp(options[i], "-D", 2) || !strncmp(options[i], "-I", 2))
            command += " '" + std::string(options[i]) + "'";
    command += " " + source + " -o " + library + " 2> " + path + "/log";
    const int status = system(command.c_str());
    program->log = read(path + "/log");
    const std::string bytes = read(library);
    for (const char* name : {"/kernel.cpp", "/kernel.so", "/log"}) unlink((path + name).c_str());
    rmdir(folder);
    if (status) return NVRTC_ERROR_COMPILATION;
    Image image{{}, bytes.size()};
    memcpy(image.magic, IMAGE_MAGIC, sizeof image.magic);
    program->image = std::string(reinterpret_cast<char*>(&image), sizeof image) + bytes;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetCUBINSize(void* program, size_t* size) {
    return *size = static_cast<Program*>(program)->image.size() + 1, NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetCUBIN(void* program, char* to) {
    const std::string& image = static_cast<Program*>(program)->image;
    return memcpy(to, image.c_str(), image.size() + 1), NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetPTXSize(void* program, size_t* size) {
    return nvrtcGetCUBINSize(program, size);
}
nvrtcResult nvrtcGetPTX(void* program, char* to) { return nvrtcGetCUBIN(program, to); }
nvrtcResult nvrtcGetProgramLogSize(void* program, size_t* size) {
    return *size = static_cast<Program*>(program)->log.size() + 1, NVRTC_SUCCESS;
}
nvrtcResult nvrtcGetProgramLog(void* program, char* to) {
    const std::string& log = static_cast<Program*>(program)->log;
    return memcpy(to, log.c_str(), log.size() + 1), NVRTC_SUCCESS;
}
}  // extern "C"

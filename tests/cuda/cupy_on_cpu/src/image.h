// What NVRTC returns and the driver loads: a shared library behind a few words.
#pragma once
#include <cstddef>
#include <cstdint>

namespace on_cpu {
constexpr char IMAGE_MAGIC[8] = {'O', 'N', '_', 'C', 'P', 'U', '0', '1'};
struct Image {
    char magic[8];
    uint64_t size;  // of the library that follows
};
}  // namespace on_cpu

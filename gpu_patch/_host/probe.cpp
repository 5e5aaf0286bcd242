// Which level of x86-64 this processor and its system have: 4, 3, or 0 for less. For any of them.
#include <cpuid.h>
#include <cstdint>

static bool has(uint32_t bits, uint32_t wanted) { return (bits & wanted) == wanted; }

extern "C" __attribute__((visibility("default"))) int x86_64_level() {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    constexpr uint32_t FMA = 1u << 12, MOVBE = 1u << 22, OSXSAVE = 1u << 27, AVX = 1u << 28,
                       F16C = 1u << 29;
    if (!has(c, FMA | MOVBE | OSXSAVE | AVX | F16C)) return 0;
    uint32_t enabled, high;  // registers that the system saves
    __asm__ volatile("xgetbv" : "=a"(enabled), "=d"(high) : "c"(0));
    if (!has(enabled, 0x06)) return 0;
    uint32_t extended_c;
    if (!__get_cpuid(0x80000001, &a, &b, &extended_c, &d) || !has(extended_c, 1u << 5)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    constexpr uint32_t BMI1 = 1u << 3, AVX2 = 1u << 5, BMI2 = 1u << 8;
    if (!has(b, BMI1 | AVX2 | BMI2)) return 0;
    constexpr uint32_t AVX512F = 1u << 16, DQ = 1u << 17, CD = 1u << 28, BW = 1u << 30,
                       VL = 1u << 31;
    return has(b, AVX512F | DQ | CD | BW | VL) && has(enabled, 0xe6) ? 4 : 3;
}

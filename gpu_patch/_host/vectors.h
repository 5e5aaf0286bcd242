// Vectors of floats, as wide as the instruction set has them: loads of stored types, shuffles.
//
// Fused multiply-adds are explicit, and the compiler may make none of its own: so every result is
// the same for every width.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#else
#error "x86-64 and 64-bit ARM alone"
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))

struct half {  // float16 as its bits
    uint16_t bits;
};

#if defined(__AVX512F__)
constexpr int W = 16, U = 4;  // floats of a vector, vectors in work at once
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
constexpr int W = 8, U = 2;
#elif defined(__aarch64__)
constexpr int W = 4, U = 4;
#else
#error "x86-64-v3 or better"
#endif

typedef float vec __attribute__((vector_size(4 * W)));
typedef float unaligned_vec __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * W)));

static inline vec load_vec(const float* from) { return *(const unaligned_vec*)from; }
static inline void store_vec(float* to, vec value) { *(unaligned_vec*)to = value; }

#if defined(__AVX512F__)
static inline vec fma_vec(vec a, vec b, vec c) { return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
static inline vec all(float x) { return (vec)_mm512_set1_ps(x); }
#elif defined(__AVX2__)
static inline vec fma_vec(vec a, vec b, vec c) { return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline vec all(float x) { return (vec)_mm256_set1_ps(x); }
#else
static inline vec fma_vec(vec a, vec b, vec c) { return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline vec all(float x) { return vec{x, x, x, x}; }
#endif

// ---- stored types ------------------------------------------------------------------------------
// Intrinsics: compilers make several instructions of a conversion of a whole vector.

template <class T> static inline vec load_pixels(const T* from);
#if defined(__AVX512F__)
#define LOAD(T, READ, WIDEN)                                                                    \
    template <> inline vec load_pixels<T>(const T* from) {                                      \
        return (vec)_mm512_cvtepi32_ps(WIDEN(READ));                                            \
    }
LOAD(uint8_t, _mm_loadu_si128((const __m128i*)from), _mm512_cvtepu8_epi32)
LOAD(int8_t, _mm_loadu_si128((const __m128i*)from), _mm512_cvtepi8_epi32)
LOAD(uint16_t, _mm256_loadu_si256((const __m256i*)from), _mm512_cvtepu16_epi32)
LOAD(int16_t, _mm256_loadu_si256((const __m256i*)from), _mm512_cvtepi16_epi32)
template <> inline vec load_pixels<half>(const half* from) {
    return (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
}
static inline void store_half(half* to, vec value) {
    _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__AVX2__)
#define LOAD(T, READ, WIDEN)                                                                    \
    template <> inline vec load_pixels<T>(const T* from) {                                      \
        return (vec)_mm256_cvtepi32_ps(WIDEN(READ));                                            \
    }
LOAD(uint8_t, _mm_loadl_epi64((const __m128i*)from), _mm256_cvtepu8_epi32)
LOAD(int8_t, _mm_loadl_epi64((const __m128i*)from), _mm256_cvtepi8_epi32)
LOAD(uint16_t, _mm_loadu_si128((const __m128i*)from), _mm256_cvtepu16_epi32)
LOAD(int16_t, _mm_loadu_si128((const __m128i*)from), _mm256_cvtepi16_epi32)
template <> inline vec load_pixels<half>(const half* from) {
    return (vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
}
static inline void store_half(half* to, vec value) {
    _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT));
}
#else
template <class T> static inline vec load_pixels(const T* from) {
    typedef T raw __attribute__((vector_size(sizeof(T) * W), aligned(sizeof(T)), may_alias));
    return __builtin_convertvector(__builtin_convertvector(*(const raw*)from, ivec), vec);
}
template <> inline vec load_pixels<half>(const half* from) {
    return (vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t*)from)));
}
static inline void store_half(half* to, vec value) {
    vst1_u16((uint16_t*)to, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)value)));
}
#endif
template <> inline vec load_pixels<float>(const float* from) { return load_vec(from); }
template <> inline vec load_pixels<bool>(const bool* from) {  // whatever but 0 is 1
    vec value = load_pixels<uint8_t>((const uint8_t*)from);
    for (int i = 0; i < W; ++i) value[i] = value[i] != 0.0f;
    return value;
}

// The same of fewer pixels than a vector has: nothing is read or written beyond them.
template <class T> static inline vec load_some(const T* from, int n) {
    T copy[W] = {};
    memcpy((void*)copy, from, n * sizeof(T));
    return load_pixels<T>(copy);
}
static inline void put(float* to, vec value) { store_vec(to, value); }
static inline void put(half* to, vec value) { store_half(to, value); }
template <class T> static inline void put_some(T* to, vec value, int n) {
    if (n >= W) return put(to, value);
    T copy[W];
    put(copy, value);
    memcpy((void*)to, copy, n * sizeof(T));
}

#if defined(__x86_64__)
static inline float half_to_float(unsigned short bits) { return _cvtsh_ss(bits); }
static inline unsigned short float_to_half(float value) { return _cvtss_sh(value, 0); }
#else
static inline float half_to_float(unsigned short bits) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))), 0);
}
static inline unsigned short float_to_half(float value) {
    return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(value))), 0);
}
#endif

// ---- shuffles ----------------------------------------------------------------------------------

#if defined(__AVX512F__)
#define EACH(f) f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)
#elif defined(__AVX2__)
#define EACH(f) f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)
#else
#define EACH(f) f(0), f(1), f(2), f(3)
#endif
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, f) __builtin_shufflevector(a, b, EACH(f))
#else
#define SHUFFLE(a, b, f) __builtin_shuffle(a, b, ivec{EACH(f)})
#endif
#define EVEN(i) (2 * i)
#define ODD(i) (2 * i + 1)
#define ZIP_LOW(i) (i / 2 + i % 2 * W)
#define ZIP_HIGH(i) (i / 2 + i % 2 * W + W / 2)
#define BACKWARDS(i) (W - 1 - i)
static inline vec even(vec a, vec b) { return SHUFFLE(a, b, EVEN); }
static inline vec odd(vec a, vec b) { return SHUFFLE(a, b, ODD); }
static inline vec backwards(vec a) { return SHUFFLE(a, a, BACKWARDS); }

// W vectors as a square: its rows become its columns.
#if defined(__AVX2__) && !defined(__AVX512F__)
static inline void transpose(vec (&rows)[W]) {  // within halves of vectors, which then change places
    __m256 pairs[W], fours[W];
    for (int i = 0; i < W; i += 2) {
        pairs[i] = _mm256_unpacklo_ps((__m256)rows[i], (__m256)rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps((__m256)rows[i], (__m256)rows[i + 1]);
    }
    for (int i = 0; i < W; i += 4)
        for (int k = 0; k < 2; ++k) {
            fours[i + 2 * k] = _mm256_shuffle_ps(pairs[i + k], pairs[i + 2 + k], 0x44);
            fours[i + 2 * k + 1] = _mm256_shuffle_ps(pairs[i + k], pairs[i + 2 + k], 0xee);
        }
    for (int i = 0; i < 4; ++i) {
        rows[i] = (vec)_mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
        rows[i + 4] = (vec)_mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
    }
}
#else
static inline void transpose(vec (&rows)[W]) {  // log2(W) times a perfect shuffle
    vec mixed[W];
    for (int round = 1; round < W; round *= 2) {
        for (int i = 0; i < W / 2; ++i) {
            mixed[2 * i] = SHUFFLE(rows[i], rows[i + W / 2], ZIP_LOW);
            mixed[2 * i + 1] = SHUFFLE(rows[i], rows[i + W / 2], ZIP_HIGH);
        }
        for (int i = 0; i < W; ++i) rows[i] = mixed[i];
    }
}
#endif

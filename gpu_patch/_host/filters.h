// Filters of the lateral context: along Y while channels are mixed, and along X.
//
// The arithmetic is that of _cuda/specialised.cu: an output is one chain of fused multiply-adds,
// taps in ascending order, whatever the width of vectors, the part of the patch and the thread.
#pragma once
#include "rows.h"

// Rows of a band, but for the last: a power of two as groups have, so that bands begin with a group, or
// divide one.
constexpr int MOST_ROWS = 16;
static_assert(MOST_ROWS > 1 && (MOST_ROWS & (MOST_ROWS - 1)) == 0);
// Whether sums stay in registers for all rows of a band, or for two of them at a time. There are half
// as many registers below AVX-512, for vectors that take half a line of a cache of most images: each
// line is read twice, and between has to stay in the first cache, where 16 rows whose bytes are a
// power of two have no place together.
constexpr bool IN_REGISTERS = W == 16;
constexpr int HINT = W == 16 ? 2 : 3;  // into which cache rows are asked for: those of a band do not fit the first

// ---- along Y -----------------------------------------------------------------------------------

struct Band {  // rows of each channel that follow one another, and what becomes of them
    // sums[LAST - a]: output row g - a, where g is the group of the first row; then those of the groups
    // that follow in it
    float* const* sums;
    const void* const* rows;   // [row][channel]
    const void* const* ahead;  // as many that follow, which are asked for; or null
    int n_rows, first;         // the first row's place in its group of f
    int n_channels, f;
    const float *taps, *weights, *shifts;
    bool is_cached;  // its rows, so that nothing of them is asked for
};

// V vectors of all rows, or of two. An output is complete when LAST groups more have come.
template <class T, int C, bool SHIFT, int LAST, int V>
static ALWAYS_INLINE void add_block(const Band& band, const T* const* rows, const T* const* ahead,
                                    int64 x, int64 at) {
    const int nc = C ? C : band.n_channels, f = band.f;
    float* const* sums = band.sums;
    vec live[LAST + 1][V];
    for (int a = 0; a <= LAST; ++a)
        for (int v = 0; v < V; ++v)
            live[a][v] = a == 0 && !band.first ? vec{} : load_vec(sums[LAST - a] + at + v * W);
    const auto add_row = [&](const float* taps, bool has_fourth) {
        vec mixed[V];
        for (int c = 0; c < nc; ++c)
            for (int v = 0; v < V; ++v) {
                vec value = load_pixels<T>(rows[c] + x + v * W);
                if (SHIFT) value = value - all(band.shifts[c]);
                mixed[v] = c == 0 ? all(band.weights[0]) * value
                                  : fma_vec(all(band.weights[c]), value, mixed[v]);
            }
        rows += nc;
        if (ahead) {
            for (int c = 0; c < nc; ++c)
                for (size_t b = 0; b < V * W * sizeof(T); b += 64)
                    ask_for_line<HINT>((const char*)(ahead[c] + x) + b);
            ahead += nc;
        }
        for (int a = 0; a <= LAST; ++a)
            for (int v = 0; v < V; ++v)
                if (a < 3 || has_fourth)
                    live[a][v] = fma_vec(all(taps[a * f]), mixed[v], live[a][v]);
    };
    int r = band.first;
    if (!IN_REGISTERS) {
        const bool has_fourth = r < f - 2;  // there are 4 f - 2 taps
        for (int i = 0; i < 2; ++i) add_row(band.taps + r + i, has_fourth);
        for (int a = 0; a <= LAST; ++a)
            for (int v = 0; v < V; ++v) store_vec(sums[LAST - a] + at + v * W, live[a][v]);
        return;
    }
    for (int left = band.n_rows; left;) {
        const int stop = std::min(f, r + left);
        left -= stop - r;
        for (; r < std::min(stop, f - 2); ++r) add_row(band.taps + r, true);
        for (; r < stop; ++r) add_row(band.taps + r, false);
        if (r < f) break;
        for (int v = 0; v < V; ++v) {
            store_vec(*sums + at + v * W, live[LAST][v]);
            for (int a = LAST; a > 0; --a) live[a][v] = live[a - 1][v];
            live[0][v] = vec{};
        }
        ++sums, r = 0;
    }
    for (int a = 0; a <= LAST; ++a)
        for (int v = 0; v < V; ++v)
            if (a || r) store_vec(sums[LAST - a] + at + v * W, live[a][v]);
}

template <class T, int C, bool SHIFT, int LAST>
static ALWAYS_INLINE void add_rows(const Band& band, int64 n, void* spare) {
    const int n_rows = band.n_rows * (C ? C : band.n_channels);
    const T* const* rows = (const T* const*)band.rows;
    const T* const* ahead = (const T* const*)band.ahead;
    int64 x = 0;
    for (; x + U * W <= n; x += U * W) add_block<T, C, SHIFT, LAST, U>(band, rows, ahead, x, x);
    for (; x + W <= n; x += W) add_block<T, C, SHIFT, LAST, 1>(band, rows, ahead, x, x);
    for (int i = 0; ahead && i < n_rows; ++i)
        ask_for_line<HINT>((const char*)(ahead[i] + n) - 1);
    if (x == n) return;
    // what is left from copies: nothing beyond the image is read
    const T** copies = (const T**)spare;
    T* copied = (T*)(copies + n_rows);
    for (int i = 0; i < n_rows; ++i) {
        memcpy((void*)(copied + i * W), rows[i] + x, (n - x) * sizeof(T));
        copies[i] = copied + i * W;
    }
    add_block<T, C, SHIFT, LAST, 1>(band, copies, nullptr, 0, x);
}
template <class T, int C, bool SHIFT, int LAST>
static void add_band(const Band& given, int64 n, void* spare) {
    Band band = given;  // what is stored cannot change it
    if (IN_REGISTERS) return add_rows<T, C, SHIFT, LAST>(band, n, spare);
    const void* const* const ahead = given.ahead;
    for (int left = given.n_rows; left; left -= 2, band.rows += 2 * band.n_channels) {
        band.n_rows = 2;
        band.ahead = left > 2 && !band.is_cached ? band.rows + 2 * band.n_channels : ahead;
        add_rows<T, C, SHIFT, LAST>(band, n, spare);
        band.first += 2;
        if (band.first == band.f) band.first = 0, ++band.sums;
    }
}
typedef void (*AddBand)(const Band& band, int64 n, void* spare);

static size_t spare_bytes(int n_channels) {
    return MOST_ROWS * n_channels * (sizeof(void*) + W * sizeof(float));
}

template <class T, int LAST> static AddBand adder(int n_channels, bool shift) {
    if (n_channels > 2) return add_band<T, 0, true, LAST>;
    if (n_channels == 1) return shift ? add_band<T, 1, true, LAST> : add_band<T, 1, false, LAST>;
    return shift ? add_band<T, 2, true, LAST> : add_band<T, 2, false, LAST>;
}
template <int LAST> static AddBand adder_of(int pixel_type, int n_channels, bool shift) {
    switch (pixel_type) {
    case UINT8: return adder<uint8_t, LAST>(n_channels, shift);
    case INT8: return adder<int8_t, LAST>(n_channels, shift);
    case UINT16: return adder<uint16_t, LAST>(n_channels, shift);
    case INT16: return adder<int16_t, LAST>(n_channels, shift);
    case FLOAT16: return adder<half, LAST>(n_channels, shift);
    case FLOAT32: return adder<float, LAST>(n_channels, shift);
    }
    return nullptr;  // booleans become floats first
}

// ---- along X -----------------------------------------------------------------------------------

// Places come W x f at a time; what is beyond the last may be anything.
template <int F>
static void split_row(float* phases, int64 stride, const float* row, int64 n) {
    for (int64 j = 0; j < n; j += W) {  // log2(F) rounds of even and odd places
        vec a[F], b[F];
        for (int i = 0; i < F; ++i) a[i] = load_vec(row + j * F + i * W);
        for (int left = F; left > 1; left /= 2) {
            for (int i = 0; i < F / 2; ++i) {
                b[i] = even(a[2 * i], a[2 * i + 1]);
                b[i + F / 2] = odd(a[2 * i], a[2 * i + 1]);
            }
            for (int i = 0; i < F; ++i) a[i] = b[i];
        }
        for (int i = 0; i < F; ++i) store_vec(phases + i * stride + j, a[i]);
    }
}
static void split_phases(float* phases, int64 stride, const float* row, int64 n, int f) {
    switch (f) {
    case 2: return split_row<2>(phases, stride, row, n);
    case 4: return split_row<4>(phases, stride, row, n);
    case 8: return split_row<8>(phases, stride, row, n);
    case 16: return split_row<16>(phases, stride, row, n);
    }
    for (int64 j = 0; j < n; ++j)
        for (int r = 0; r < f; ++r) phases[r * stride + j] = row[j * f + r];
}

template <int V>
static inline void filter_block(vec (&sum)[V], const float* phases, int64 stride,
                                const float* taps, int f) {
    for (int v = 0; v < V; ++v) sum[v] = vec{};
    for (int k = 0, a = 0; a < 4; ++a)
        for (int r = 0; r < f && k < 4 * f - 2; ++r, ++k)
            for (int v = 0; v < V; ++v)
                sum[v] = fma_vec(all(taps[k]), load_vec(phases + r * stride + a + v * W), sum[v]);
}
static void filter_row(float* out, const float* phases, int64 stride, const float* taps, int f,
                       int64 n) {
    int64 x = 0;
    for (; x + 4 * W <= n; x += 4 * W) {
        vec sum[4];
        filter_block(sum, phases + x, stride, taps, f);
        for (int v = 0; v < 4; ++v) store_vec(out + x + v * W, sum[v]);
    }
    for (; x < n; x += W) {
        vec sum[1];
        filter_block(sum, phases + x, stride, taps, f);
        put_some(out + x, sum[0], int(std::min<int64>(W, n - x)));
    }
}

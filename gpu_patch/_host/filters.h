// Filters of the lateral context: along Y while channels are mixed, and along X.
//
// The arithmetic is that of _cuda/specialised.cu: an output is one chain of fused multiply-adds,
// taps in ascending order, whatever the width of vectors, the part of the patch and the thread.
#pragma once
#include "rows.h"

constexpr int AHEAD = 2;      // rows that are asked for early
constexpr int PART_ROWS = 2;  // rows of a group taken at once: more would share few ways of a cache

// ---- along Y -----------------------------------------------------------------------------------

struct Group {  // f rows of each channel, and what becomes of them
    float* acc[4];  // acc[a]: output row g - a
    const void* const* rows;  // [row][channel]
    bool has_more;            // whether AHEAD more rows follow
    int n_channels, f;
    const float *taps, *weights, *shifts;
};

template <class T, int C, bool SHIFT, int V>
static ALWAYS_INLINE void add_block(const Group& group, float* const* acc, const T* const* rows,
                                    const T* const* next, int first, int64 x, int64 at) {
    const int nc = C ? C : group.n_channels, f = group.f;
    const bool has_fourth = first < f - 2;  // there are 4 f - 2 taps
    const float* taps = group.taps + first;
    vec live[4][V];
    for (int a = 0; a < 4; ++a)
        for (int v = 0; v < V; ++v)
            if (a < 3 || has_fourth)
                live[a][v] = a == 0 && first == 0 ? vec{} : load_vec(acc[a] + at + v * W);
    for (int r = 0; r < PART_ROWS; ++r) {
        vec mixed[V];
        for (int c = 0; c < nc; ++c)
            for (int v = 0; v < V; ++v) {
                vec value = load_pixels<T>(rows[r * nc + c] + x + v * W);
                if (SHIFT) value = value - all(group.shifts[c]);
                mixed[v] = c == 0 ? all(group.weights[0]) * value
                                  : fma_vec(all(group.weights[c]), value, mixed[v]);
            }
        if (next)
            for (int c = 0; c < nc; ++c)
                for (size_t b = 0; b < V * W * sizeof(T); b += 64)
                    __builtin_prefetch((const char*)(next[r * nc + c] + x) + b);
        for (int a = 0; a < 3; ++a)
            for (int v = 0; v < V; ++v)
                live[a][v] = fma_vec(all(taps[a * f + r]), mixed[v], live[a][v]);
        if (has_fourth)
            for (int v = 0; v < V; ++v)
                live[3][v] = fma_vec(all(taps[3 * f + r]), mixed[v], live[3][v]);
    }
    for (int a = 0; a < 4; ++a)
        for (int v = 0; v < V; ++v)
            if (a < 3 || has_fourth) store_vec(acc[a] + at + v * W, live[a][v]);
}

template <class T, int C, bool SHIFT>
static void add_group(const Group& given, int64 n, void* spare) {
    const Group group = given;  // what is stored cannot change it
    const int nc = C ? C : group.n_channels;
    const T* const* all_rows = (const T* const*)group.rows;
    for (int first = 0; first < group.f; first += PART_ROWS) {
        const T* const* rows = all_rows + first * nc;
        const T* const* next = group.has_more ? rows + AHEAD * nc : nullptr;
        int64 x = 0;
        for (; x + U * W <= n; x += U * W)
            add_block<T, C, SHIFT, U>(group, group.acc, rows, next, first, x, x);
        for (; x + W <= n; x += W)
            add_block<T, C, SHIFT, 1>(group, group.acc, rows, next, first, x, x);
        if (x == n) continue;
        // what is left from copies: nothing beyond the image is read
        const T** copies = (const T**)spare;
        T* copied = (T*)(copies + PART_ROWS * nc);
        for (int i = 0; i < PART_ROWS * nc; ++i) {
            memcpy((void*)(copied + i * W), rows[i] + x, (n - x) * sizeof(T));
            copies[i] = copied + i * W;
        }
        add_block<T, C, SHIFT, 1>(group, group.acc, copies, nullptr, first, 0, x);
    }
}
typedef void (*AddGroup)(const Group& group, int64 n, void* spare);

static size_t spare_bytes(int n_channels) {
    return PART_ROWS * n_channels * (sizeof(void*) + W * sizeof(float));
}

template <class T> static AddGroup adder(int n_channels, bool shift) {
    if (n_channels > 2) return add_group<T, 0, true>;
    if (n_channels == 1) return shift ? add_group<T, 1, true> : add_group<T, 1, false>;
    return shift ? add_group<T, 2, true> : add_group<T, 2, false>;
}
static AddGroup adder_of(int pixel_type, int n_channels, bool shift) {
    switch (pixel_type) {
    case UINT8: return adder<uint8_t>(n_channels, shift);
    case INT8: return adder<int8_t>(n_channels, shift);
    case UINT16: return adder<uint16_t>(n_channels, shift);
    case INT16: return adder<int16_t>(n_channels, shift);
    case FLOAT16: return adder<half>(n_channels, shift);
    case FLOAT32: return adder<float>(n_channels, shift);
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

// Cells of images, measured for background filters.
#pragma once
#include <cmath>
#include <cstring>

#include "memory.h"
#include "rows.h"

struct CellsJob {
    int64 n_cells, stride;  // in pixels, from cell to cell
    int64 size[3];          // Z, Y, X
    double threshold;
    int32_t outside, n_threads;

    int64 n_pixels() const { return size[0] * size[1] * size[2]; }
};

// Marks of a cell, and of what boxes around its pixels reach beyond it. A box is half as long as
// the cell along each axis, and reaches a pixel further to the start where that is even.
class Marks {
    const CellsJob& job;
    int64 length[3], padded[3];
    uint8_t* marks;

public:
    static size_t bytes(const CellsJob& job) {
        int64 n = 1;
        for (int64 side : job.size) n *= side + length_of(side) - 1;
        return Scratch::bytes<uint8_t>(n);
    }
    Marks(const CellsJob& job_, Scratch& scratch) : job(job_) {
        for (int a = 0; a < 3; ++a)
            length[a] = length_of(job.size[a]), padded[a] = job.size[a] + length[a] - 1;
        marks = scratch.take<uint8_t>(padded[0] * padded[1] * padded[2]);
    }

    // Mark what is above the threshold; return whether something reaches it.
    bool fill(const float* cell) {
        const float threshold = float(job.threshold);
        memset(marks, job.outside, padded[0] * padded[1] * padded[2]);
        bool any = false;
        for (int64 z = 0; z < job.size[0]; ++z)
            for (int64 y = 0; y < job.size[1]; ++y, cell += job.size[2]) {
                uint8_t* to = row(z + length[0] / 2, y + length[1] / 2) + length[2] / 2;
                unsigned reached = 0;
                for (int64 x = 0; x < job.size[2]; ++x) {
                    to[x] = cell[x] > threshold;
                    reached |= cell[x] >= threshold;
                }
                any |= reached != 0;
            }
        return any;
    }
    // Number of pixels with a mark in their box.
    int64 n_near() {
        for (int64 i = 0; i < padded[0] * padded[1]; ++i)
            spread(marks + i * padded[2], length[2], padded[2], 1, 1);
        for (int64 z = 0; z < padded[0]; ++z)
            spread(row(z, 0), length[1], padded[1], padded[2], job.size[2]);
        spread(marks, length[0], padded[0], padded[1] * padded[2], job.size[1] * padded[2]);
        int64 n = 0;
        for (int64 z = 0; z < job.size[0]; ++z)
            for (int64 y = 0; y < job.size[1]; ++y) {
                const uint8_t* own = row(z, y);
                for (int64 x = 0; x < job.size[2]; ++x) n += own[x];
            }
        return n;
    }

private:
    static int64 length_of(int64 side) { return side < 2 ? 1 : side / 2; }
    uint8_t* row(int64 z, int64 y) { return marks + (z * padded[1] + y) * padded[2]; }

    // Let the first `width` of each of n lines become what `length` lines from it on have: twice
    // as many at a time. Lines are `stride` apart.
    static void spread(uint8_t* lines, int64 length, int64 n, int64 stride, int64 width) {
        for (int64 reach = 1, step; reach < length; reach += step) {
            step = std::min(reach, length - reach), n -= step;
            if (stride == 1)
                merge(lines, lines + step, n);
            else
                for (int64 i = 0; i < n; ++i)
                    merge(lines + i * stride, lines + (i + step) * stride, width);
        }
    }
    static void merge(uint8_t* to, const uint8_t* ahead, int64 n) {  // in place: what is ahead is old
        int64 i = 0;
        for (; i + 8 <= n; i += 8) {
            uint64_t own, other;
            memcpy(&own, to + i, 8), memcpy(&other, ahead + i, 8);
            own |= other;
            memcpy(to + i, &own, 8);
        }
        for (; i < n; ++i) to[i] |= ahead[i];
    }
};

// Sum of f(pixel), in as many chains as there are accumulators.
template <class F> static double sum_of(const float* pixels, int64 n, F f) {
    constexpr int N = 16;
    double sums[N] = {}, total = 0;
    int64 i = 0;
    for (; i + N <= n; i += N)
        for (int k = 0; k < N; ++k) sums[k] += f(double(pixels[i + k]));
    for (; i < n; ++i) sums[0] += f(double(pixels[i]));
    for (int k = 0; k < N; ++k) total += sums[k];
    return total;
}

// How often the different values of a cell occur. Whole numbers of a short range, as most images
// have, are counted each in its place; all others are sorted.
class Values {
    static constexpr int BITS = 11, BINS = 1 << BITS;  // of a pass of sorting

    const int64 n_pixels;
    uint32_t* memory;  // of numbers counted in place, or of two orders of all pixels
    uint32_t* alike;   // how many values occur so often

public:
    static size_t bytes(int64 n_pixels) {
        return Scratch::bytes<uint32_t>(most_counts(n_pixels)) +
               Scratch::bytes<uint32_t>(n_pixels + 1);
    }
    Values(const float* cell, int64 n, Scratch& scratch)
        : n_pixels(n), memory(scratch.take<uint32_t>(most_counts(n))),
          alike(scratch.take<uint32_t>(n + 1)) {
        memset(alike, 0, (n + 1) * sizeof *alike);
        if (!count_in_place(cell)) count_sorted(cell);
    }

    // In bits. Values that occur equally often are taken together: there are few different numbers.
    double entropy() const {
        double bits = 0;
        for (int64 i = 1; i <= n_pixels; ++i) {
            if (!alike[i]) continue;
            const double share = double(i) / double(n_pixels);
            bits -= alike[i] * (share * std::log2(share));
        }
        return bits;
    }

private:
    static int64 most_counts(int64 n_pixels) { return std::max<int64>(2 * n_pixels, 2 * BINS); }

    bool count_in_place(const float* cell) {
        constexpr int N = 16;
        constexpr float EXACT = 1 << 24;  // whole numbers beyond are not next to each other
        float lo[N], hi[N];
        int other[N] = {};  // no whole number, NaN among them
        for (int k = 0; k < N; ++k) lo[k] = hi[k] = cell[0];
        const auto look = [&](float value, int k) {
            lo[k] = value < lo[k] ? value : lo[k], hi[k] = value > hi[k] ? value : hi[k];
            other[k] |= !(std::nearbyint(value) == value);
        };
        int64 i = 0;
        for (; i + N <= n_pixels; i += N)
            for (int k = 0; k < N; ++k) look(cell[i + k], k);
        for (; i < n_pixels; ++i) look(cell[i], 0);
        for (int k = 1; k < N; ++k) look(lo[k], 0), look(hi[k], 0), other[0] |= other[k];
        if (other[0] || lo[0] < -EXACT || hi[0] > EXACT) return false;
        const int first = int(lo[0]), n = int(hi[0]) - first + 1;
        if (n > most_counts(n_pixels)) return false;

        memset(memory, 0, n * sizeof *memory);
        for (i = 0; i < n_pixels; ++i) ++memory[int(cell[i]) - first];
        for (i = 0; i < n; ++i)
            if (memory[i]) ++alike[memory[i]];
        return true;
    }

    // By their bits, some at a time, the lowest first.
    void count_sorted(const float* cell) {
        uint32_t *bits = memory, *sorted = memory + n_pixels;
        for (int64 i = 0; i < n_pixels; ++i) bits[i] = bits_of(cell[i]);
        for (int shift = 0; shift < 32; shift += BITS) {
            uint32_t place[BINS + 1] = {};
            uint32_t* const next = place + 1;
            for (int64 i = 0; i < n_pixels; ++i) ++next[bits[i] >> shift & (BINS - 1)];
            for (int b = 0; b < BINS; ++b) place[b + 1] += place[b];
            for (int64 i = 0; i < n_pixels; ++i)
                sorted[place[bits[i] >> shift & (BINS - 1)]++] = bits[i];
            std::swap(bits, sorted);
        }
        for (int64 first = 0, i = 1; i <= n_pixels; ++i) {
            if (i < n_pixels && bits[i] == bits[first]) continue;
            ++alike[i - first], first = i;
        }
    }
    // Both zeros are one value, and so are all NaN.
    static uint32_t bits_of(float value) {
        value = value == value ? value + 0.0f : NAN;
        uint32_t bits;
        memcpy(&bits, &value, 4);
        return bits;
    }
};

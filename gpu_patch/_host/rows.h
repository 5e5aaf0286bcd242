// Rows of a window: which columns of an image they read, and reading them.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cuda.h"
#include "memory.h"

struct Job {
    int64 patch[3];  // Z, Y, X; two axes are three with a Z of size 1 that is not scaled
    int64 n_samples, n_planned;  // of the batch, and of its plan, which may be an epoch's
    int n_channels, n_scales, n_dims, mode, half_output, n_threads;
    int n_places, n_images;     // of a sample: 1 or n_channels; of the table
    int n_values, value_at[6];  // of an epilogue's row, and where each of VALUES is; -1: nowhere

    // Where a channel's place is among those of all samples.
    int64 place(int64 sample, int channel) const {
        return sample * n_places + (n_places > 1 ? channel : 0);
    }
};

struct Run {  // a stretch of places that reads the image forwards or backwards; zeros: a step of 0
    int64 at, first, length;
    int step;
};

struct Runs {
    Run* runs;  // room for as many as there are places
    int64 n;

    // Add places first … stop - 1, of which p reads `map[p]`, -1 for zero, counted from `base`.
    void fill(const int64* map, int64 first, int64 stop, int64 base) {
        for (int64 p = first, q; p < stop; p = q) {
            q = p + 1;
            int step = 0;
            if (map[p] >= 0) {
                step = q < stop && map[q] == map[p] - 1 ? -1 : 1;
                while (q < stop && map[q] >= 0 && map[q] == map[q - 1] + step) ++q;
            } else
                while (q < stop && map[q] < 0) ++q;
            runs[n++] = {p, map[p] - base, q - p, step};
        }
    }
    void fill_inside(int64 first, int64 n_places) {
        n = 1;
        runs[0] = {0, first, n_places, 1};
    }
};

// Read the places of `runs` from a row of pixels.
template <class T> static ALWAYS_INLINE void read_row(float* to, const T* pixels, const Runs& runs) {
    for (int64 i = 0; i < runs.n; ++i) {
        const Run run = runs.runs[i];
        float* out = to + run.at;
        if (run.step == 0) {
            memset(out, 0, run.length * sizeof(float));
            continue;
        }
        const bool forwards = run.step > 0;
        const T* from = pixels + (forwards ? run.first : run.first - run.length + 1);
        int64 x = 0;
        if (forwards)
            for (; x + W <= run.length; x += W) store_vec(out + x, load_pixels<T>(from + x));
        else
            for (; x + W <= run.length; x += W)
                store_vec(out + run.length - x - W, backwards(load_pixels<T>(from + x)));
        if (x == run.length) continue;
        if constexpr (std::is_same_v<T, float>) {  // few, mostly: what continues filtered rows
            for (; x < run.length; ++x) out[forwards ? x : run.length - 1 - x] = from[x];
            continue;
        }
        float rest[W];
        store_vec(rest, load_some<T>(from + x, int(run.length - x)));
        for (int64 k = x; k < run.length; ++k)
            out[forwards ? k : run.length - 1 - k] = rest[k - x];
    }
}
// The same of n rows, to rows that are `stride` apart; null is a row of zeros.
template <class T>
static void read_rows(float* to, int64 stride, const void* const* rows, int n, const Runs& runs,
                      int64 width) {
    for (int i = 0; i < n; ++i)
        if (rows[i])
            read_row<T>(to + i * stride, (const T*)rows[i], runs);
        else
            memset(to + i * stride, 0, width * sizeof(float));
}
typedef void (*ReadRows)(float* to, int64 stride, const void* const* rows, int n, const Runs& runs,
                         int64 width);

struct Pixels {  // a stored type
    int bytes;
    ReadRows read;
};
static const Pixels PIXELS[] = {
    // in the order of PixelType
    {1, read_rows<bool>},     {1, read_rows<uint8_t>}, {1, read_rows<int8_t>},
    {2, read_rows<uint16_t>}, {2, read_rows<int16_t>}, {2, read_rows<half>},
    {4, read_rows<float>},
    // of labels, which are copied as integers alone: see integers.h
    {4, nullptr},             {4, nullptr},           {8, nullptr},
    {8, nullptr},
};

static inline const char* row_of(const ChannelSource& source, int64 z, int64 y) {
    return (const char*)source.pixels +
           (z * source.size[1] + y) * source.size[2] * PIXELS[source.pixel_type].bytes;
}

static inline int64 round_up(int64 n, int64 to) { return (n + to - 1) / to * to; }

// Ask for memory before it is read: 3 is the first cache, 2 the second.
template <int CACHE> static ALWAYS_INLINE void ask_for_line(const char* at) {
    __builtin_prefetch(at, 0, CACHE);
}
template <int CACHE> static ALWAYS_INLINE void prefetch(const char* from, int64 n_bytes) {
    asm volatile("" : : "r"(from));  // or gcc leaves out calls of functions that do nothing else
    for (int64 i = 0; i < n_bytes; i += 64) ask_for_line<CACHE>(from + i);
    ask_for_line<CACHE>(from + n_bytes - 1);
}

// ---- rows of output ----------------------------------------------------------------------------

// A volume (Z, Y, X) of the output, to which rows go, turned, as float32 or float16.
class Volume {
    char* out;
    const EpilogueRecord* record;  // of where pixels go; null where nothing turns
    int64 height, width;
    bool is_half;

public:
    Volume(const Job& job, char* volume, const EpilogueRecord* record_)
        : out(volume), record(record_), height(job.patch[1]), width(job.patch[2]),
          is_half(job.half_output) {}

    float* begin() const { return (float*)out; }
    bool is_straight() const { return !record || record->along_x == 1; }
    bool is_mirrored() const { return record && record->along_x == -1; }
    bool turns() const { return !is_straight() && !is_mirrored(); }
    int64 place_of(int64 z, int64 y) const {
        return z * height * width + (record ? record->first + y * record->along_y : y * width);
    }
    // Whether rows are there as they are computed, whole vectors of them.
    bool is_direct() const { return !is_half && is_straight() && width % W == 0; }
    float* row(int64 z, int64 y) const { return (float*)out + place_of(z, y); }
    // From one row to the next.
    int64 stride() const { return record ? record->along_y : width; }

    // Write rows y … y + n - 1, whole squares of them where they turn: value(i, x) is those of row
    // y + i from column x on, W of them, also at the end of a row. Only where there is a record may
    // they turn: what cannot be is not compiled.
    template <bool RECORD, class Value>
    ALWAYS_INLINE void write(int64 z, int64 y, int n, const Value& value) const {
        if (is_half) return write_as<RECORD>((half*)out + place_of(z, y), n, value);
        write_as<RECORD>((float*)out + place_of(z, y), n, value);
    }

private:
    template <bool RECORD, class T, class Value>
    ALWAYS_INLINE void write_as(T* to, int n, const Value& value) const {
        if constexpr (RECORD)
            if (!is_straight())
                return is_mirrored() ? write_mirrored(to, n, value)
                                             : write_turned(to, n, value);
        write_straight(to, n, value);
    }
    template <class T, class Value>
    ALWAYS_INLINE void write_straight(T* to, int n, const Value& value) const {
        const int64 step = stride(), n_columns = width;
        for (int i = 0; i < n; ++i, to += step) {
            int64 x = 0;
            for (; x + W <= n_columns; x += W) put(to + x, value(i, x));
            if (x < n_columns) put_some(to + x, value(i, x), int(n_columns - x));
        }
    }
    template <class T, class Value>
    ALWAYS_INLINE void write_mirrored(T* to, int n, const Value& value) const {
        const int64 step = stride(), n_columns = width;
        for (int i = 0; i < n; ++i, to += step) {
            int64 x = 0;
            for (; x + W <= n_columns; x += W) put(to - x - W + 1, backwards(value(i, x)));
            if (x == n_columns) continue;
            const int rest = int(n_columns - x);
            T copy[W];  // what counts are its last
            put(copy, backwards(value(i, x)));
            memcpy((void*)(to - x - rest + 1), copy + W - rest, rest * sizeof(T));
        }
    }
    // Columns become rows: a square of W x W at a time, those of the same columns one after the other,
    // since their rows go side by side.
    template <class T, class Value>
    ALWAYS_INLINE void write_turned(T* to, int n, const Value& value) const {
        const bool down = record->along_y > 0;
        const int64 step = record->along_x, n_columns = width;
        if (!down) to -= n - 1;
        for (int64 x = 0; x < n_columns; x += W)
            for (int y = 0; y < n; y += W) {
                const int first = down ? y : n - 1 - y, onwards = down ? 1 : -1;
                T* row = to + x * step + y;
                vec square[W];
                if (y + W <= n && x + W <= n_columns) {
                    for (int i = 0; i < W; ++i) square[i] = value(first + i * onwards, x);
                    transpose(square);
                    for (int i = 0; i < W; ++i, row += step) put(row, square[i]);
                    continue;
                }
                const int n_rows = std::min(W, n - y);
                for (int i = 0; i < W; ++i)  // what is there, rather than numbers that may be slow
                    square[i] = value(first + std::min(i, n_rows - 1) * onwards, x);
                transpose(square);
                for (int i = 0; i < W && x + i < n_columns; ++i, row += step)
                    put_some(row, square[i], n_rows);
            }
    }
};

// Rows of a window: which columns of an image they read, and reading them.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cuda.h"
#include "memory.h"

struct Job {
    int64 patch[3];  // Z, Y, X; two axes are three with a Z of size 1 that is not scaled
    int64 n_samples;
    int n_channels, n_scales, n_dims, mode, half_output, n_threads;
};

struct Run {  // a stretch of places that reads the image forwards or backwards; zeros: a step of 0
    int64 at, first, length;
    int step;
};

struct Runs {
    Run* runs;  // room for as many as there are places
    int64 n;

    // `map[p]` is what place p reads, -1 for zero; `base` is what is counted from.
    void fill(const int64* map, int64 n_places, int64 base) {
        n = 0;
        for (int64 p = 0, q; p < n_places; p = q) {
            q = p + 1;
            int step = 0;
            if (map[p] >= 0) {
                step = q < n_places && map[q] == map[p] - 1 ? -1 : 1;
                while (q < n_places && map[q] >= 0 && map[q] == map[q - 1] + step) ++q;
            } else
                while (q < n_places && map[q] < 0) ++q;
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
    // all at once: rows lie far apart, and the processor does not foresee them
    for (int i = 0; i < n && runs.n == 1; ++i)
        if (rows[i]) {
            const char* first = (const char*)((const T*)rows[i] + runs.runs[0].first);
            for (size_t b = 0; b < width * sizeof(T); b += 64) __builtin_prefetch(first + b);
        }
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

// ---- rows of output ----------------------------------------------------------------------------

// A volume (Z, Y, X) of the output, to which rows go W at a time: turned, as float32 or float16.
class Volume {
    char* out;
    const EpilogueRecord* record;  // of where pixels go; null where nothing turns
    int64 height, width, buffer_stride;
    bool is_half;
    float* buffer;  // rows before they are turned

    bool is_straight() const { return !record || record->along_x == 1; }
    bool is_direct() const { return !is_half && is_straight(); }
    int64 place_of(int64 z, int64 y) const {
        return z * height * width + (record ? record->first + y * record->along_y : y * width);
    }

public:
    static size_t bytes(int64 width) { return Scratch::bytes<float>(W * round_up(width, W)); }

    Volume(const Job& job, char* volume, const EpilogueRecord* record_, Scratch& scratch)
        : out(volume), record(record_), height(job.patch[1]), width(job.patch[2]),
          buffer_stride(round_up(width, W)), is_half(job.half_output),
          buffer(scratch.take<float>(W * buffer_stride)) {}

    // Where to put the values of row y, which is number i of those that `write` takes.
    float* row(int64 z, int64 y, int i) const {
        return is_direct() ? (float*)out + place_of(z, y) : buffer + i * buffer_stride;
    }
    // From one row to the next.
    int64 stride() const { return is_direct() ? width : buffer_stride; }
    // Rows y … y + n - 1 are there, at most W.
    void write(int64 z, int64 y, int n) const {
        if (is_direct()) return;
        if (is_half)
            write_as((half*)out, z, y, n);
        else
            write_as((float*)out, z, y, n);
    }

private:
    template <class T> void write_as(T* to, int64 z, int64 y, int n) const {
        if (record && record->along_x != 1 && record->along_x != -1)
            return write_turned(to, z, y, n);
        for (int i = 0; i < n; ++i)
            write_row(to + place_of(z, y + i), buffer + i * buffer_stride);
    }
    template <class T> void write_row(T* to, const float* row) const {
        for (int64 x = 0; x < width; x += W) {
            const int n = int(std::min<int64>(W, width - x));
            const vec value = load_vec(row + x);
            if (is_straight())
                put_some(to + x, value, n);
            else if (n == W)
                put(to - x - W + 1, backwards(value));
            else {  // what counts are its last n
                T copy[W];
                put(copy, backwards(value));
                memcpy((void*)(to - x - n + 1), copy + W - n, n * sizeof(T));
            }
        }
    }
    // Columns become rows: a square of W x W at a time.
    template <class T> void write_turned(T* to, int64 z, int64 y, int n) const {
        const bool down = record->along_y > 0;
        to += z * height * width + record->first + (down ? y : y + n - 1) * record->along_y;
        for (int64 x = 0; x < width; x += W) {
            vec square[W];
            for (int i = 0; i < W; ++i) {
                const int from = down ? i : n - 1 - i;
                square[i] = i < n ? load_vec(buffer + from * buffer_stride + x) : vec{};
            }
            transpose(square);
            for (int i = 0; i < W && x + i < width; ++i)
                put_some(to + (x + i) * record->along_x, square[i], n);
        }
    }
};

// ---- values ------------------------------------------------------------------------------------
// Rounded step by step, as NumPy does it; rows end with a whole vector's room.

static inline void scale_row(float* row, float scale, float offset, int64 n) {
    int64 x = 0;
    for (; x + W <= n; x += W) store_vec(row + x, load_vec(row + x) * all(scale) + all(offset));
    for (; x < n; ++x) row[x] = row[x] * scale + offset;
}
static inline void finish_row(float* to, const float* values, float shift, float scale, float offset, int64 n) {
    int64 x = 0;
    for (; x + W <= n; x += W)
        store_vec(to + x, (load_vec(values + x) - all(shift)) * all(scale) + all(offset));
    for (; x < n; ++x) to[x] = (values[x] - shift) * scale + offset;
}
template <bool FIRST>
static inline void mix_row(float* mixed, const float* values, float weight, int64 n) {
    int64 x = 0;
    for (; x + W <= n; x += W) {
        const vec product = all(weight) * load_vec(values + x);
        store_vec(mixed + x, FIRST ? product : load_vec(mixed + x) + product);
    }
    for (; x < n; ++x) mixed[x] = FIRST ? weight * values[x] : mixed[x] + weight * values[x];
}
// The same of values that are shifted, which are finished beside it where `to` is not null.
template <bool FIRST, bool LAST>
static inline void mix_and_finish(float* mixed, float* to, const float* values, float weight,
                                  const EpilogueRecord& record, int64 n) {
    int64 x = 0;
    for (; x + W <= n; x += W) {
        const vec value = load_vec(values + x);
        vec sum = all(weight) * (value - all(record.input_shift));
        if (!FIRST) sum = load_vec(mixed + x) + sum;
        if (LAST) sum = sum * all(record.input_scale) + all(record.input_offset);
        store_vec(mixed + x, sum);
        if (to)
            store_vec(to + x, (value - all(record.shift)) * all(record.scale) + all(record.offset));
    }
    for (; x < n; ++x) {
        float sum = weight * (values[x] - record.input_shift);
        if (!FIRST) sum = mixed[x] + sum;
        mixed[x] = LAST ? sum * record.input_scale + record.input_offset : sum;
        if (to) to[x] = (values[x] - record.shift) * record.scale + record.offset;
    }
}

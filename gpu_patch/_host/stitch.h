// Tiles back into images, their running sums, and the means of those. NumPy twins:
// gpu_patch/_numpy/stitch.py and accumulate.py.
//
// Several tiles may count at a pixel, in the order of the batch: so threads share the rows of
// images, and each goes through all tiles.
#pragma once
#include "rows.h"

struct StitchJob {
    int64 patch[3];  // Z, Y, X
    int64 n_tiles;
    int n_channels, is_half, n_threads;
    int sums;   // 0: tiles are stitched; 1: summed in float64; 2: and then their squares
    int again;  // of sums: whether these tiles have been added once before
};

// Axes are Z, Y, X, and pixels those of the image.
struct StitchTile {
    char* slab;            // of its first channel
    int64 slab_size[3];    // a ring along each axis: of an axis that it holds whole it does not end
    int64 start[3];        // the tile's first pixel
    int64 low[3], high[3];  // where it counts
    int64 middle[3];       // from where on no tile before it does
    const float* weights[3];  // how much each of its pixels counts; null where no other tile does
};

struct MeansJob {
    int64 slab_size[3];      // of the ring that holds the sums
    int64 in_slab[3];        // where the first pixel is in it
    int64 size[3];           // of the means
    const double* counts[3];  // values of a pixel: the product of these
    int64 n_channels;
    int squares, n_threads;
};

// Values as float32: as they are, or in the buffer.
constexpr int64 CHUNK = 64;
static ALWAYS_INLINE const float* as_floats(const float* values, int64, float*) { return values; }
static ALWAYS_INLINE const float* as_floats(const half* values, int64 n, float* buffer) {
    for (int64 x = 0; x < n; x += W)
        store_vec(buffer + x, n - x < W ? load_some(values + x, int(n - x)) : load_pixels(values + x));
    return buffer;
}

// What becomes of a row of a tile's values.
struct Stitching {
    const float *scale, *offset;  // of the channel, or null

    template <class T>
    ALWAYS_INLINE void row(float* to, const T* values, const float* weights, float weight,
                           bool is_first, int64 n) const {
        float buffer[CHUNK];
        for (int64 x = 0; x < n; x += CHUNK) {
            const int64 count = std::min(CHUNK, n - x);
            const float* from = as_floats(values + x, count, buffer);
            if (!scale && !offset && !weights && is_first) {
                memcpy(to + x, from, count * sizeof(float));
                continue;
            }
            for (int64 i = 0; i < count; ++i) {
                float value = from[i];
                if (scale) value = value * *scale;
                if (offset) value = value + *offset;
                if (weights) value = weight * weights[x + i] * value;
                to[x + i] = is_first ? value : to[x + i] + value;
            }
        }
    }
};

template <bool SQUARES> struct Summing {
    int64 to_squares;  // from a channel's sums to those of its squares

    template <class T>
    ALWAYS_INLINE void row(double* to, const T* values, const float*, float, bool is_first,
                           int64 n) const {
        float buffer[CHUNK];
        for (int64 x = 0; x < n; x += CHUNK) {
            const int64 count = std::min(CHUNK, n - x);
            const float* from = as_floats(values + x, count, buffer);
            for (int64 i = 0; i < count; ++i) {
                const double value = from[i];
                double* sum = to + x + i;
                *sum = (is_first ? 0 : *sum) + value;
                if (SQUARES) sum[to_squares] = (is_first ? 0 : sum[to_squares]) + value * value;
            }
        }
    }
};

// Which rows of images a unit of work has: some that follow each other, of each n_strips times those.
struct Strip {
    static constexpr int64 ROWS = 8;
    int64 number, n_strips;

    bool has(int64 y) const { return y / ROWS % n_strips == number; }
};

// Values are those of one channel of the tile.
template <class Slab, class T, class Kind>
static void write_tile(const StitchJob& job, const StitchTile& tile, int channel, const T* values,
                       Strip strip, const Kind& kind) {
    const int64* size = tile.slab_size;
    Slab* slab = (Slab*)tile.slab + channel * size[0] * size[1] * size[2];
    for (int64 z = tile.low[0]; z < tile.high[0]; ++z)
        for (int64 y = tile.low[1]; y < tile.high[1]; ++y) {
            if (!strip.has(y)) continue;
            const int64 in_tile[2] = {z - tile.start[0], y - tile.start[1]};
            const T* from = values + (in_tile[0] * job.patch[1] + in_tile[1]) * job.patch[2];
            Slab* to = slab + (z % size[0] * size[1] + y % size[1]) * size[2];
            const float* weights = tile.weights[2];
            const float weight =
                weights ? tile.weights[0][in_tile[0]] * tile.weights[1][in_tile[1]] : 1;
            const bool may_be_first = z >= tile.middle[0] && y >= tile.middle[1] && !job.again;
            for (int64 x = tile.low[2], end; x < tile.high[2]; x = end) {
                end = std::min(tile.high[2], x - x % size[2] + size[2]);
                if (may_be_first && x < tile.middle[2]) end = std::min(end, tile.middle[2]);
                const int64 inside = x - tile.start[2];
                kind.row(to + x % size[2], from + inside, weights ? weights + inside : nullptr,
                         weight, may_be_first && x >= tile.middle[2], end - x);
            }
        }
}

// Write what a strip has of a channel of all tiles.
template <class T>
static void write_tiles(const StitchJob& job, const StitchTile* tiles, const T* values,
                        const float* scales, const float* offsets, int channel, Strip strip) {
    const int64 volume = job.patch[0] * job.patch[1] * job.patch[2];
    for (int64 i = 0; i < job.n_tiles; ++i) {
        const StitchTile& tile = tiles[i];
        const T* own = values + (i * job.n_channels + channel) * volume;
        const int64* size = tile.slab_size;
        const int64 to_squares = job.n_channels * size[0] * size[1] * size[2];
        if (job.sums == 0)
            write_tile<float>(job, tile, channel, own, strip,
                              Stitching{scales ? scales + channel : nullptr,
                                        offsets ? offsets + channel : nullptr});
        else if (job.sums == 1)
            write_tile<double>(job, tile, channel, own, strip, Summing<false>{0});
        else
            write_tile<double>(job, tile, channel, own, strip, Summing<true>{to_squares});
    }
}

// Rows are counted over channels, Z and Y.
static void write_means(const MeansJob& job, const double* sums, float* out, int64 row) {
    const int64 y = row % job.size[1], z = row / job.size[1] % job.size[0];
    const int64 channel = row / job.size[1] / job.size[0];
    const int64* size = job.slab_size;
    const double* from = sums + ((channel * size[0] + job.in_slab[0] + z) * size[1] +
                                 job.in_slab[1] + y) * size[2] + job.in_slab[2];
    const double* squares = from + job.n_channels * size[0] * size[1] * size[2];
    float* to = out + row * job.size[2];
    float* spreads = to + job.n_channels * job.size[0] * job.size[1] * job.size[2];
    const double of_row = job.counts[0][z] * job.counts[1][y];
    for (int64 x = 0; x < job.size[2]; ++x) {
        const double count = of_row * job.counts[2][x], sum = from[x];
        to[x] = float(sum / count);
        if (!job.squares) continue;
        const double spread = squares[x] - sum * sum / count, others = count > 1 ? count - 1 : 1;
        spreads[x] = float(__builtin_sqrt((spread < 0 ? 0 : spread) / others));
    }
}

// A scale of the lateral context: mixed, and filtered along Y, X and Z, in that order.
//
// Rows of the window stream through once, a band at a time; columns in vectors, whose sums for the 4
// outputs that a row contributes to wait for the next band in rows of accumulators. A finished row is
// continued beyond the window's and the image's edges, in its place, by copying filtered columns,
// split by phase (x mod f), and filtered along X. In 3D the slices that an output reads wait in a
// ring.
#pragma once
#include "filters.h"
#include "native.h"

class Downscaled {
    const Job& job;
    const ChannelSource* sources;
    const Pages pages;
    const EpilogueRecord* records;
    const Part part;
    const float* taps;
    const int n_channels, f, n_taps, offset, z_scale, last;
    const int64 n_slices, window_x, wide, n_rows, stride, buffer_stride;
    int n_places = 1;       // 1 where all channels are read at one place of images of one size
    bool is_direct = true;  // whether channels are mixed as they are stored, column by column
    int64 *x_map, *y_map, *z_map, *least;
    int64 n_columns;  // that are filtered along Y,
    int64 at;         // and the place of a wide row where they begin
    Stretches* columns;  // of each place, where rows are in pages, or become floats first
    Runs beyond;      // what continues filtered rows
    Band band;
    AddBand add;
    float **acc, *phases, *floats, *weights, *shifts, *ring, *sums, *buffer;
    void* spare;
    const void **rows, **some_rows;
    RowsInPages* found;  // of each channel and stretch
    const float** slices;
    int64 n_ring, plane;

public:
    static size_t bytes(const Job& job, int scale, Part part, const Pages& pages) {
        const int64 f = 1 << scale, n = job.n_channels, window = job.patch[2] << scale;
        const int64 wide = (job.patch[2] + 4) * f, n_rows = n_rows_of(part, f);
        const int64 nz = job.n_dims == 3 ? job.patch[0] << scale : job.patch[0];
        const int64 plane = (part.stop - part.first) * job.patch[2];
        const int64 ring = job.n_dims == 3 ? (std::min(nz, 4 * f) + 1) * plane + W : 0;
        return Scratch::bytes<int64>(n * wide) + Scratch::bytes<int64>(n * n_rows) +
               Scratch::bytes<int64>(n * nz) + 2 * Scratch::bytes<int64>(n) +
               Scratch::bytes<Stretches>(n) + n * Stretches::bytes(wide, pages) +
               Scratch::bytes<Run>(wide) + Scratch::bytes<float*>(n_acc(f)) +
               n_acc(f) * Scratch::bytes<float>(acc_floats(job.patch[2], f)) +
               Scratch::bytes<float>(f * stride_of(job.patch[2])) +
               Scratch::bytes<float>(MOST_ROWS * n * floats_stride(window)) +
               2 * Scratch::bytes<float>(n) +
               Scratch::bytes<float>(ring) + Scratch::bytes<char>(spare_bytes(job.n_channels)) +
               Scratch::bytes<void*>(n * (n_rows + MOST_ROWS)) +
               Scratch::bytes<void*>(Stretches::most(wide, pages) * n * 2 * MOST_ROWS) +
               n * Scratch::bytes<RowsInPages>(Stretches::most(wide, pages)) +
               Scratch::bytes<float*>(4 * f) +
               Scratch::bytes<float>(W * round_up(job.patch[2], W));
    }

    Downscaled(const Job& job_, const ChannelSource* sources_, Pages pages_,
               const EpilogueRecord* records_, Part part_, int scale, const float* taps_,
               Scratch& scratch)
        : job(job_), sources(sources_), pages(pages_), records(records_), part(part_), taps(taps_),
          n_channels(job.n_channels), f(1 << scale), n_taps(4 * f - 2),
          offset(f / 2 - 1 - (2 * f - 2)), z_scale(job.n_dims == 3 ? scale : 0),
          last(last_of(f)), n_slices(job.patch[0] << z_scale),
          window_x(job.patch[2] << scale), wide((job.patch[2] + 4) * f),
          n_rows(n_rows_of(part, f)), stride(stride_of(job.patch[2])),
          buffer_stride(round_up(job.patch[2], W)) {
        take(scratch);
        fill_maps(scale);
        choose();
    }

    // Fill `out`, the whole volume (Z, Y, X) of this scale, with this part of it.
    void write(char* out) {
        const Volume volume(job, out, records);
        if (job.n_dims == 2) {
            // values that stay as they are go to their place at once
            const bool at_once = !records && volume.is_direct();
            for (int64 z = 0; z < n_slices; ++z)
                filter_slice(
                    z,
                    [&](int64 y) {
                        return at_once ? volume.row(z, y)
                                       : buffer + (y - part.first) % W * buffer_stride;
                    },
                    [&](int64 y) {
                        const int i = int((y - part.first) % W);
                        if (!at_once && (i == W - 1 || y == part.stop - 1))
                            finish(volume, z, y - i, i + 1, buffer, buffer_stride);
                    });
            return;
        }
        int64 done = 0;
        for (int64 z = 0; z < job.patch[0]; ++z) {
            const int64 needed = std::min(n_slices - 1, z * f + offset + n_taps - 1);
            for (; done <= needed; ++done) {
                float* slice = ring + done % n_ring * plane;
                filter_slice(done, [&](int64 y) { return slice + (y - part.first) * job.patch[2]; },
                             [](int64) {});
            }
            filter_z(z);
            for (int64 y = part.first; y < part.stop; y += W)
                finish(volume, z, y, int(std::min<int64>(W, part.stop - y)),
                       sums + (y - part.first) * job.patch[2], job.patch[2]);
        }
    }

private:
    // Of a group of f rows, the earliest output that it contributes to is so many before its own.
    static int last_of(int64 f) { return f == 2 ? 2 : 3; }
    static int64 n_rows_of(Part part, int64 f) { return (part.stop - part.first + last_of(f)) * f; }
    static int64 n_acc(int64 f) { return std::max<int64>(1, MOST_ROWS / f) + last_of(f); }
    static int64 floats_stride(int64 window) { return round_up(window, 16) + 16; }
    static int64 stride_of(int64 width) { return round_up(width + 4 + W, 16) + 16; }
    // A wide row, whose columns begin at a vector, and what vectors have beyond it.
    static int64 acc_floats(int64 width, int64 f) { return round_up(width + 4, W) * f + 2 * 16; }

    void take(Scratch& scratch) {
        x_map = scratch.take<int64>(n_channels * wide);
        y_map = scratch.take<int64>(n_channels * n_rows);
        z_map = scratch.take<int64>(n_channels * n_slices);
        least = scratch.take<int64>(n_channels);
        columns = scratch.take<Stretches>(n_channels);
        for (int c = 0; c < n_channels; ++c) columns[c] = Stretches::in(scratch, wide, pages);
        beyond = {scratch.take<Run>(wide), 0};
        acc = scratch.take<float*>(n_acc(f));
        for (int64 i = 0; i < n_acc(f); ++i)
            acc[i] = scratch.take<float>(acc_floats(job.patch[2], f));
        phases = scratch.take<float>(f * stride);
        floats = scratch.take<float>(MOST_ROWS * n_channels * floats_stride(window_x));
        weights = scratch.take<float>(n_channels);
        shifts = scratch.take<float>(n_channels);
        plane = (part.stop - part.first) * job.patch[2];
        n_ring = std::min<int64>(n_slices, 4 * f);
        ring = scratch.take<float>(job.n_dims == 3 ? (n_ring + 1) * plane + W : 0);
        sums = ring + n_ring * plane;
        spare = scratch.take<char>(spare_bytes(n_channels));
        rows = scratch.take<const void*>(n_channels * (n_rows + MOST_ROWS));
        some_rows = scratch.take<const void*>(Stretches::most(wide, pages) * n_channels * 2 *
                                              MOST_ROWS);
        found = scratch.take<RowsInPages>(n_channels * Stretches::most(wide, pages));
        slices = scratch.take<const float*>(n_taps);
        buffer = scratch.take<float>(W * buffer_stride);
    }

    // Window's edge and image's border folded into one map for each axis.
    void fill_maps(int scale) {
        for (int c = 1; c < n_channels; ++c)
            if (memcmp(sources[c].size, sources[0].size, sizeof sources[0].size) ||
                memcmp(sources[c].coords, sources[0].coords, sizeof sources[0].coords) ||
                (pages.boxes && !are_alike(pages.boxes[c], pages.boxes[0])))
                n_places = n_channels;
        for (int c = 0; c < n_places; ++c) {
            const Axis<int64> x(sources[c], 2, job.patch[2], scale, job.n_scales, job.mode);
            const Axis<int64> y(sources[c], 1, job.patch[1], scale, job.n_scales, job.mode);
            const Axis<int64> z(sources[c], 0, job.patch[0], z_scale, job.n_scales, job.mode);
            fill_map(x_map + c * wide, wide, x, offset, window_x);
            fill_map(y_map + c * n_rows, n_rows, y, part.first * f + offset, job.patch[1] << scale);
            fill_map(z_map + c * n_slices, n_slices, z, 0, n_slices);
        }
    }
    AddBand adder_of(int pixel_type, bool shift) const {
        return last == 2 ? ::adder_of<2>(pixel_type, n_channels, shift)
                         : ::adder_of<3>(pixel_type, n_channels, shift);
    }
    static bool are_alike(const PageBox& one, const PageBox& other) {
        return !memcmp(one.grid, other.grid, sizeof one.grid) &&
               !memcmp(one.first, other.first, sizeof one.first) &&
               !memcmp(one.side, other.side, sizeof one.side);
    }
    static void fill_map(int64* map, int64 n, const Axis<int64>& axis, int64 first, int64 window) {
        const int64 edge = std::min(window, axis.range.hi - axis.start) - first;
        const int64 begin = std::min(n, std::max<int64>(0, axis.range.lo - axis.start) - first);
        int64 i = 0;
        for (; i < begin; ++i) map[i] = axis(mirror(first + i, window));
        const int64 inside = std::min(n, edge), start = axis.start + first;
        for (; i < inside; ++i) map[i] = start + i;  // most places
        for (; i < n; ++i) map[i] = axis(mirror(first + i, window));
    }

    // Whether rows are mixed as they lie in the images, and what continues them then.
    void choose() {
        bool shift = false;
        for (int c = 0; c < n_channels; ++c) {
            weights[c] = sources[c].weight;
            shifts[c] = records ? records[c].input_shift : 0.0f;
            shift = shift || shifts[c] != 0.0f;
            is_direct = is_direct && sources[c].pixel_type == sources[0].pixel_type;
        }
        for (int c = 0; c < n_places; ++c) {
            const int64* map = x_map + c * wide;
            const auto ends = std::minmax_element(map, map + wide);
            least[c] = *ends.first;
            if (c == 0) n_columns = *ends.second - *ends.first + 1;
            for (int64 p = 0; c > 0 && p < wide && is_direct; ++p)
                is_direct = map[p] - least[c] == x_map[p] - least[0];
        }
        add = adder_of(sources[0].pixel_type, shift);
        is_direct = is_direct && add && is_ascending();
        if (!is_direct) {
            add = adder_of(FLOAT32, shift);
            for (int c = 0; c < n_places; ++c)
                columns[c].fill(x_map + c * wide - offset, window_x, pages.of(c).boxes);
            for (int64 p = 0; p < wide; ++p) x_map[p] = mirror<int64>(offset + p, window_x);
            least[0] = 0, at = -offset, n_columns = window_x;
        } else if (pages.boxes)
            cut_at_pages();
        beyond.fill(x_map, 0, at, least[0]);
        beyond.fill(x_map, at + n_columns, wide, least[0]);
        for (int64 i = 0; i < n_acc(f); ++i) acc[i] += round_up(at, 16);
    }
    // Columns of all places are cut where a page of one of them ends.
    void cut_at_pages() {
        int64 n = 0;
        for (int64 p = 0, q; p < n_columns; p = q, ++n) {
            q = n_columns;
            for (int c = 0; c < n_places; ++c) {
                const int64 in_page = in_pages(pages.boxes[c], 2, least[c] + p) & 0xffffffff;
                q = std::min(q, p + pages.boxes[c].side[2] - in_page);
            }
            for (int c = 0; c < n_places; ++c) {
                const int64 found = in_pages(pages.boxes[c], 2, least[c] + p);
                Run* run = columns[c].all[0].columns.runs + n;
                *run = {p, found & 0xffffffff, q - p, 1};
                columns[c].all[n] = {{run, 1}, found >> 32};
            }
        }
        for (int c = 0; c < n_places; ++c) columns[c].n = n;
    }
    // Whether all columns stand somewhere in a wide row, one beside the other.
    bool is_ascending() {
        for (at = 0; at + n_columns <= wide; ++at) {
            int64 n = 0;
            while (n < n_columns && x_map[at + n] == least[0] + n) ++n;
            if (n == n_columns) return true;
        }
        return false;
    }

    template <class Where, class Then>
    void filter_slice(int64 slice, Where where, Then then) {
        const int64 whole = round_up(n_columns, W);
        bool is_roomy = true;
        if (pages.boxes)
            find_pages(slice);
        else
            is_roomy = find_rows(slice, whole);
        band = {acc, nullptr, nullptr, 0, 0, n_channels, f, taps, weights, shifts};
        // what comes before the first output is summed and not wanted: zeros, which are never slow
        for (int i = 0; i < last; ++i) memset(acc[i], 0, whole * sizeof(float));
        for (int64 v = 0; v < n_rows; v += band.n_rows) {
            band.n_rows = int(std::min<int64>(MOST_ROWS, n_rows - v));
            band.first = int(v % f);
            if (!is_direct)
                add_converted(v, whole);
            else if (pages.boxes)
                for (int64 s = 0; s < columns->n; ++s) add_from_pages(v, s);
            else
                add_in_place(v, is_roomy ? whole : n_columns);
            const int n_complete = (band.first + band.n_rows) / f;
            for (int i = 0; i < n_complete; ++i) {
                const int64 y = part.first + v / f + i - last;
                if (y < part.first) continue;
                float* row = acc[i] - at;
                read_row<float>(row, acc[i], beyond);
                split_phases(phases, stride, row, job.patch[2] + 4, f);
                filter_row(where(y), phases, stride, taps, f, job.patch[2]);
                then(y);
            }
            std::rotate(acc, acc + n_complete, acc + n_acc(f));
        }
    }

    // Find all rows of a slice; return whether whole vectors of columns are in the images.
    bool find_rows(int64 slice, int64 whole) {
        bool is_roomy = true;
        for (int c = 0; c < n_channels; ++c) {
            const int place = n_places == 1 ? 0 : c;
            const ChannelSource& source = sources[c];
            const int64 *y = y_map + place * n_rows, z = z_map[place * n_slices + slice];
            const int64 first = is_direct ? least[place] : 0;
            const int64 bytes = PIXELS[source.pixel_type].bytes, step = source.size[2] * bytes;
            const char* from = row_of(source, z, 0) + first * bytes;
            int64 furthest = 0;
            for (int64 v = 0; v < n_rows; ++v) {
                rows[v * n_channels + c] = from + y[v] * step;
                furthest = std::max(furthest, y[v]);
            }
            for (int64 v = n_rows; v < n_rows + MOST_ROWS; ++v)  // asked for, and not read
                rows[v * n_channels + c] = rows[(n_rows - 1) * n_channels + c];
            const int64 height = source.size[0] * source.size[1];
            is_roomy = is_roomy && (z * source.size[1] + furthest) * source.size[2] + first + whole <=
                                       height * source.size[2];
        }
        return is_roomy;
    }

    void find_pages(int64 slice) {
        for (int c = 0; c < n_channels; ++c) {
            const int place = n_places == 1 ? 0 : c;
            const Stretches& own = columns[place];
            for (int64 s = 0; s < own.n; ++s)
                new (of_stretch(c, s)) RowsInPages(sources[c], pages.of(c), own.all[s],
                                                   z_map[place * n_slices + slice]);
        }
    }
    RowsInPages* of_stretch(int c, int64 s) const {
        return found + c * Stretches::most(wide, pages) + s;
    }

    // Columns where they lie in whole images.
    void add_in_place(int64 v, int64 n) {
        band.rows = rows + v * n_channels;
        band.ahead = v + band.n_rows < n_rows ? band.rows + band.n_rows * n_channels : nullptr;
        if (v == 0) ask_for(rows, band.n_rows, n_columns);
        add(band, n, spare);
    }

    // Rows of any stored types, and of any places, as floats of the window.
    void add_converted(int64 first, int64 n) {
        const int64 length = floats_stride(window_x);
        band.rows = some_rows;
        for (int i = 0; i < band.n_rows * n_channels; ++i) {
            const int64 v = first + i / n_channels;
            const int c = i % n_channels, place = n_places == 1 ? 0 : c;
            const Stretches& own = columns[place];
            for (int64 s = 0; s < own.n; ++s) {
                const void* row = pages.boxes ? (*of_stretch(c, s))(y_map[place * n_rows + v])
                                              : rows[v * n_channels + c];
                PIXELS[sources[c].pixel_type].read(floats + i * length, 0, &row, 1,
                                                   own.all[s].columns, window_x);
            }
            some_rows[i] = floats + i * length;
        }
        add(band, n, spare);
    }

    // The rows of a stretch from v on; the last of all again where there are fewer.
    void find_in_pages(const void** to, int64 s, int64 v, int64 n) {
        for (int c = 0; c < n_channels; ++c) {
            const int place = n_places == 1 ? 0 : c;
            const int64 *y = y_map + place * n_rows, last_row = n_rows - 1;
            const int64 first = columns[place].all[s].columns.runs[0].first;
            const int64 offset = first * PIXELS[sources[c].pixel_type].bytes;
            RowsInPages& row = *of_stretch(c, s);
            for (int64 i = 0; i < n; ++i)
                to[i * n_channels + c] = row(y[std::min(v + i, last_row)]) + offset;
        }
    }
    // For the first band: others are asked for while the one before them is read.
    ALWAYS_INLINE void ask_for(const void* const* of_band, int64 n, int64 n_pixels) const {
        const int64 n_bytes = n_pixels * PIXELS[sources[0].pixel_type].bytes;
        for (int64 i = 0; i < n * n_channels; ++i)
            for (int64 b = 0; b < n_bytes + 64; b += 64)
                __builtin_prefetch((const char*)of_band[i] + std::min(b, n_bytes - 1), 0, 2);
    }

    // Columns of one stretch, where they lie. Vectors may go beyond its last: in memory other pixels
    // or a pool's margin follow, and what the next stretch has there is put back.
    void add_from_pages(int64 v, int64 s) {
        const Run& run = columns[0].all[s].columns.runs[0];  // as long in all places
        // those of this band and of the next, in turn
        const void** const both = some_rows + s * 2 * MOST_ROWS * n_channels;
        const int64 half = MOST_ROWS * n_channels, turn = v / MOST_ROWS % 2;
        if (v == 0) {
            find_in_pages(both, s, 0, band.n_rows);
            ask_for(both, band.n_rows, run.length);
        }
        band.rows = both + turn * half;
        band.ahead = nullptr;
        if (v + band.n_rows < n_rows) {
            find_in_pages(both + (1 - turn) * half, s, v + MOST_ROWS, MOST_ROWS);
            band.ahead = both + (1 - turn) * half;
        }
        vec next[4];
        float* own[MOST_ROWS + 3];
        for (int64 i = 0; i < n_acc(f); ++i) own[i] = acc[i] + run.at;
        for (int i = 0; i <= last; ++i) next[i] = load_vec(own[i] + run.length);
        band.sums = own;
        add(band, round_up(run.length, W), spare);
        for (int i = 0; i <= last; ++i) store_vec(own[i] + run.length, next[i]);
    }

    // Slices that wait in the ring become a plane of the output.
    void filter_z(int64 z) {
        for (int k = 0; k < n_taps; ++k)
            slices[k] = ring + mirror<int64>(z * f + offset + k, n_slices) % n_ring * plane;
        for (int64 x = 0; x < plane; x += U * W) {
            vec sum[U] = {};
            if (x + U * W <= plane) {
                for (int k = 0; k < n_taps; ++k)
                    for (int u = 0; u < U; ++u)
                        sum[u] = fma_vec(all(taps[k]), load_vec(slices[k] + x + u * W), sum[u]);
                for (int u = 0; u < U; ++u) store_vec(sums + x + u * W, sum[u]);
                continue;
            }
            for (int64 i = x; i < plane; i += W) {
                const int n = int(std::min<int64>(W, plane - i));
                for (int k = 0; k < n_taps; ++k)
                    sum[0] = fma_vec(all(taps[k]), load_some(slices[k] + i, n), sum[0]);
                put_some(sums + i, sum[0], n);
                sum[0] = vec{};
            }
        }
    }

    void finish(const Volume& volume, int64 z, int64 y, int n, const float* values,
                int64 row) const {
        if (!records)
            return volume.write<false>(
                z, y, n, [=](int i, int64 x) { return load_vec(values + i * row + x); });
        const vec scale = all(records->input_scale), shift = all(records->input_offset);
        volume.write<true>(z, y, n, [=](int i, int64 x) {
            return load_vec(values + i * row + x) * scale + shift;
        });
    }
};

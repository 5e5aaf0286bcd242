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
#include "pages.h"

class Downscaled {
    // Columns that follow one another in the rows of sums, and lie in one page of each channel. They are
    // mixed as they are stored where all channels store one type and read them forwards, a vector or all
    // there are at least; else they become floats first.
    struct Piece {
        struct Channel {
            int64 page, first;  // the page along X, and its first column that is read
            int64 n_asked;      // columns from there on that are asked for
            Runs runs;          // what becomes floats, counted from the first
            StretchRows rows;
        };
        int64 at, length;
        bool is_stored;
        Channel* channels;
        const void** rows;  // those of a band and of the next, in turn: [row][channel]
    };
    static constexpr int64 MOST_FLOATS = 128;  // columns that become floats at once: few, for the first cache

    const Job& job;
    const ChannelSource* sources;
    const Pages pages;
    const EpilogueRecord* records;
    const Part part;
    const float* taps;
    const int n_channels, f, n_taps, offset, z_scale, last;
    const int64 n_slices, window_x, wide, n_rows, stride, buffer_stride;
    int n_places = 1;     // 1 where all channels are read at one place of images of one size
    bool is_one_type = true;
    int64 *x_map, *y_map, *z_map;
    int64* reach;         // of each place: the column that vectors end before
    int64 n_columns;      // that are filtered along Y,
    int64 at;             // and the place of a wide row where they begin
    Piece* pieces;        // of these columns, and what they have room in, one after the other
    Piece::Channel* channels_of_pieces;
    const void** rows_of_pieces;
    int64 n_pieces = 0;
    Runs beyond;          // what continues filtered rows
    Band band;
    AddBand add, add_floats;
    float **acc, *phases, *floats, *weights, *shifts, *ring, *sums, *buffer;
    void* spare;
    Run* runs;
    const void** float_rows;
    const float** slices;
    int64 n_ring, plane;

public:
    static size_t bytes(const Job& job, int scale, Part part, const Pages& pages) {
        const int64 f = 1 << scale, n = job.n_channels;
        const int64 wide = (job.patch[2] + 4) * f, n_rows = n_rows_of(part, f);
        const int64 nz = job.n_dims == 3 ? job.patch[0] << scale : job.patch[0];
        const int64 plane = (part.stop - part.first) * job.patch[2];
        const int64 ring = job.n_dims == 3 ? (std::min(nz, 4 * f) + 1) * plane + W : 0;
        const int64 most = most_pieces(wide, pages);
        return Scratch::bytes<int64>(n * wide) + Scratch::bytes<int64>(n * n_rows) +
               Scratch::bytes<int64>(n * nz) + Scratch::bytes<int64>(n) +
               Scratch::bytes<Piece>(most) + Scratch::bytes<Piece::Channel>(most * n) +
               Scratch::bytes<void*>(most * 2 * MOST_ROWS * n) + Scratch::bytes<Run>(n * wide) +
               Scratch::bytes<Run>(wide) + Scratch::bytes<float*>(n_acc(f)) +
               n_acc(f) * Scratch::bytes<float>(acc_floats(job.patch[2], f)) +
               Scratch::bytes<float>(f * stride_of(job.patch[2])) +
               Scratch::bytes<float>(MOST_ROWS * n * FLOATS_STRIDE) +
               Scratch::bytes<void*>(MOST_ROWS * n) + 2 * Scratch::bytes<float>(n) +
               Scratch::bytes<float>(ring) + Scratch::bytes<char>(spare_bytes(job.n_channels)) +
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
    static constexpr int64 FLOATS_STRIDE = MOST_FLOATS + 16;
    // Of whole images, those that are mixed as they are stored have a vector or more, or are all.
    static int64 most_pieces(int64 wide, const Pages& pages) {
        return pages.boxes ? wide : 2 * (wide / W + 1) + wide / MOST_FLOATS;
    }
    static int64 stride_of(int64 width) { return round_up(width + 4 + W, 16) + 16; }
    // A wide row, whose columns begin at a vector, and what vectors have beyond it.
    static int64 acc_floats(int64 width, int64 f) { return round_up(width + 4, W) * f + 2 * 16; }

    void take(Scratch& scratch) {
        x_map = scratch.take<int64>(n_channels * wide);
        y_map = scratch.take<int64>(n_channels * n_rows);
        z_map = scratch.take<int64>(n_channels * n_slices);
        reach = scratch.take<int64>(n_channels);
        const int64 most = most_pieces(wide, pages), one_band = MOST_ROWS * n_channels;
        pieces = scratch.take<Piece>(most);
        channels_of_pieces = scratch.take<Piece::Channel>(most * n_channels);
        rows_of_pieces = scratch.take<const void*>(most * 2 * one_band);
        runs = scratch.take<Run>(n_channels * wide);
        beyond = {scratch.take<Run>(wide), 0};
        acc = scratch.take<float*>(n_acc(f));
        for (int64 i = 0; i < n_acc(f); ++i)
            acc[i] = scratch.take<float>(acc_floats(job.patch[2], f));
        phases = scratch.take<float>(f * stride);
        floats = scratch.take<float>(one_band * FLOATS_STRIDE);
        float_rows = scratch.take<const void*>(one_band);
        for (int64 i = 0; i < one_band; ++i) float_rows[i] = floats + i * FLOATS_STRIDE;
        weights = scratch.take<float>(n_channels);
        shifts = scratch.take<float>(n_channels);
        plane = (part.stop - part.first) * job.patch[2];
        n_ring = std::min<int64>(n_slices, 4 * f);
        ring = scratch.take<float>(job.n_dims == 3 ? (n_ring + 1) * plane + W : 0);
        sums = ring + n_ring * plane;
        spare = scratch.take<char>(spare_bytes(n_channels));
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

    // Which columns are filtered along Y, in what pieces, and what continues them.
    void choose() {
        bool shift = false;
        for (int c = 0; c < n_channels; ++c) {
            weights[c] = sources[c].weight;
            shifts[c] = records ? records[c].input_shift : 0.0f;
            shift = shift || shifts[c] != 0.0f;
            is_one_type = is_one_type && sources[c].pixel_type == sources[0].pixel_type;
        }
        add = adder_of(sources[0].pixel_type, shift);
        add_floats = adder_of(FLOAT32, shift);
        is_one_type = is_one_type && add;
        const auto ends = std::minmax_element(x_map, x_map + wide);
        int64 least = *ends.first;
        n_columns = *ends.second - least + 1;
        const bool is_narrow = are_alike_columns() && is_ascending(least);
        if (!is_narrow) at = -offset, n_columns = window_x;
        cut(is_narrow);
        if (!is_narrow) {  // as the window folds
            for (int64 p = 0; p < wide; ++p) x_map[p] = mirror<int64>(offset + p, window_x);
            least = 0;
        }
        beyond.fill(x_map, 0, at, least);
        beyond.fill(x_map, at + n_columns, wide, least);
        for (int64 i = 0; i < n_acc(f); ++i) acc[i] += round_up(at, 16);
    }
    // Whether all places read the same columns, but for where they begin.
    bool are_alike_columns() const {
        for (int c = 1; c < n_places; ++c)
            for (int64 p = 0; p < wide; ++p)
                if (x_map[c * wide + p] - x_map[c * wide] != x_map[p] - x_map[0]) return false;
        return true;
    }
    // Whether all columns stand somewhere in a wide row, one beside the other.
    bool is_ascending(int64 least) {
        for (at = 0; at + n_columns <= wide; ++at) {
            int64 n = 0;
            while (n < n_columns && x_map[at + n] == least + n) ++n;
            if (n == n_columns) return true;
        }
        return false;
    }

    void cut(bool is_narrow) {
        std::fill(reach, reach + n_places, 0);
        const auto is_long = [&](int64 n) { return is_one_type && (n >= W || n == n_columns); };
        for (int64 p = 0, stop, q; p < n_columns; p = stop) {
            stop = is_narrow ? n_columns : end_forwards(p);
            const bool is_stored = is_long(stop - p);
            while (!is_stored && stop < n_columns) {
                const int64 next = end_forwards(stop);
                if (is_long(next - stop)) break;
                stop = next;
            }
            for (int64 from = p; from < stop; from = q) {
                q = is_stored ? stop : std::min(stop, from + MOST_FLOATS);
                for (int c = 0; c < n_places && pages.boxes; ++c)
                    q = end_in_page(pages.boxes[c], columns_from(c, from), from, q);
                add_piece(from, q, is_stored);
            }
        }
    }
    const int64* columns_from(int place, int64 p) const { return x_map + place * wide + at + p; }
    // Where the columns from p on cease to follow one another, in some place.
    int64 end_forwards(int64 p) const {
        const int64* map = columns_from(0, p);
        for (++p; p < n_columns; ++p, ++map)
            for (int c = 0; c < n_places; ++c)
                if (map[c * wide + 1] != map[c * wide] + 1) return p;
        return p;
    }
    // The first of those before `stop` that another page has.
    static int64 end_in_page(const PageBox& box, const int64* map, int64 p, int64 stop) {
        const int64 first = map[0] - (in_pages(box, 2, map[0]) & 0xffffffff);
        int64 n = 1;
        while (p + n < stop && map[n] >= first && map[n] < first + box.side[2]) ++n;
        return p + n;
    }
    void add_piece(int64 p, int64 stop, bool is_stored) {
        Piece& piece = pieces[n_pieces];
        piece.channels = channels_of_pieces + n_pieces * n_channels;
        piece.rows = rows_of_pieces + n_pieces * 2 * MOST_ROWS * n_channels;
        ++n_pieces;
        piece.at = p, piece.length = stop - p, piece.is_stored = is_stored;
        for (int c = 0; c < n_channels; ++c) {
            Piece::Channel& own = piece.channels[c];
            if (c >= n_places) {  // as the first channel's
                own = piece.channels[0];
                continue;
            }
            const int64* map = columns_from(c, p);
            int64 least = map[0];
            own.n_asked = piece.length;
            if (!is_stored) {
                const auto ends = std::minmax_element(map, map + piece.length);
                least = *ends.first;
                own.n_asked = std::min(piece.length, *ends.second - least + 1);
                own.runs = {runs, 0};
                own.runs.fill(map, 0, piece.length, least);
                runs += own.runs.n;
            }
            const int64 in_page = pages.boxes ? in_pages(pages.boxes[c], 2, least) : least;
            own.page = pages.boxes ? in_page >> 32 : 0;
            own.first = pages.boxes ? in_page & 0xffffffff : least;
            if (is_stored) reach[c] = std::max(reach[c], own.first + round_up(piece.length, W));
        }
    }

    template <class Where, class Then>
    void filter_slice(int64 slice, Where where, Then then) {
        for (int64 s = 0; s < n_pieces; ++s)
            for (int c = 0; c < n_channels; ++c) {
                Piece::Channel& own = pieces[s].channels[c];
                const int64 z = z_map[place_of(c) * n_slices + slice];
                own.rows = StretchRows(sources[c], pages.of(c), own.page, z);
            }
        const bool is_roomy = pages.boxes || are_roomy(slice);
        band = {acc, nullptr, nullptr, 0, 0, n_channels, f, taps, weights, shifts, false};
        // what comes before the first output is summed and not wanted: zeros, which are never slow
        for (int i = 0; i < last; ++i) memset(acc[i], 0, round_up(n_columns, W) * sizeof(float));
        for (int64 v = 0; v < n_rows; v += band.n_rows) {
            band.n_rows = int(std::min<int64>(MOST_ROWS, n_rows - v));
            band.first = int(v % f);
            for (int64 s = 0; s < n_pieces; ++s) add_rows_of(pieces[s], v, is_roomy);
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

    int place_of(int channel) const { return n_places == 1 ? 0 : channel; }
    // Whether whole vectors of columns are in the images: in pages, a pool's margin follows.
    bool are_roomy(int64 slice) const {
        for (int c = 0; c < n_channels; ++c) {
            const int64 *size = sources[c].size, *y = y_map + place_of(c) * n_rows;
            const int64 beyond_row = reach[place_of(c)] - size[2];
            if (beyond_row <= 0) continue;  // as most are
            const int64 row = z_map[place_of(c) * n_slices + slice] * size[1] +
                              *std::max_element(y, y + n_rows);
            if (beyond_row > (size[0] * size[1] - row - 1) * size[2]) return false;
        }
        return true;
    }

    // Vectors may go beyond the piece's last column: what the next ones have there is put back.
    void add_rows_of(Piece& piece, int64 v, bool is_roomy) {
        const int64 one_band = MOST_ROWS * n_channels, turn = v / MOST_ROWS % 2;
        const void **now = piece.rows + turn * one_band, **next = piece.rows + (1 - turn) * one_band;
        if (v == 0) {
            find_rows(piece, now, 0, band.n_rows);
            for (int c = 0; c < n_channels; ++c)
                for (int i = 0; i < band.n_rows; ++i)
                    prefetch<HINT>((const char*)now[i * n_channels + c], bytes_asked(piece, c));
        }
        band.rows = now, band.ahead = nullptr, band.is_cached = false;
        if (v + band.n_rows < n_rows) {
            find_rows(piece, next, v + MOST_ROWS, MOST_ROWS);
            band.ahead = next;
        }
        if (!piece.is_stored) convert(piece);
        float* sums_there[MOST_ROWS + 3];
        vec there[4];
        for (int64 i = 0; i < n_acc(f); ++i) sums_there[i] = acc[i] + piece.at;
        const int n_there = &piece == pieces + n_pieces - 1 ? 0 : last + 1;
        for (int i = 0; i < n_there; ++i) there[i] = load_vec(sums_there[i] + piece.length);
        band.sums = sums_there;
        const bool is_whole = is_roomy || !piece.is_stored;
        (piece.is_stored ? add : add_floats)(
            band, is_whole ? round_up(piece.length, W) : piece.length, spare);
        for (int i = 0; i < n_there; ++i) store_vec(sums_there[i] + piece.length, there[i]);
    }
    // Where the rows from v on begin; the last of all again where there are fewer.
    void find_rows(Piece& piece, const void** to, int64 v, int64 n) {
        for (int c = 0; c < n_channels; ++c) {
            const int64* y = y_map + place_of(c) * n_rows;
            const int64 first = piece.channels[c].first * PIXELS[sources[c].pixel_type].bytes;
            const int64 n_there = std::min(n, n_rows - v);
            piece.channels[c].rows.find(to + c, n_channels, y + v, n_there, first);
            for (int64 i = n_there; i < n; ++i) to[i * n_channels + c] = to[(i - 1) * n_channels + c];
        }
    }
    int64 bytes_asked(const Piece& piece, int channel) const {
        return piece.channels[channel].n_asked * PIXELS[sources[channel].pixel_type].bytes;
    }
    // Of any stored types, forwards or backwards: the band's rows become floats.
    void convert(const Piece& piece) {
        for (int c = 0; c < n_channels; ++c) {
            const ReadRows read = PIXELS[sources[c].pixel_type].read;
            for (int64 i = c; i < band.n_rows * n_channels; i += n_channels) {
                if (band.ahead) prefetch<HINT>((const char*)band.ahead[i], bytes_asked(piece, c));
                float* to = floats + i * FLOATS_STRIDE;
                // vectors go beyond the last: what numbers were there might be slow
                store_vec(to + round_up(piece.length, W) - W, vec{});
                read(to, 0, band.rows + i, 1, piece.channels[c].runs, piece.length);
            }
        }
        band.rows = float_rows, band.ahead = nullptr, band.is_cached = true;
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

// The native scale: patches as they are, and the mixture of their channels. W rows at a time.
#pragma once
#include "pages.h"

struct Part {  // rows of a sample's outputs
    int64 first, stop;
};

// Where a channel's window lies in its image.
struct ChannelWindow {
    Axis<int64> z, y;
    Stretches columns;

    // Where rows of a stretch are; null for zeros.
    void find(const ChannelSource& source, Pages pages, const Stretch& stretch, int64 in_z,
              int64 in_y, int n_rows, const void** rows) const {
        const int64 at_z = z(in_z);
        if (pages.boxes && at_z >= 0) {
            RowsInPages found(source, pages, stretch, at_z);
            for (int i = 0; i < n_rows; ++i) {
                const int64 at_y = y(in_y + i);
                rows[i] = at_y < 0 ? nullptr : found(at_y);
            }
            return;
        }
        const char* first = at_z < 0 ? nullptr : row_of(source, at_z, 0);
        const int64 row_bytes = source.size[2] * PIXELS[source.pixel_type].bytes;
        for (int i = 0; i < n_rows; ++i) {
            const int64 at_y = y(in_y + i);
            rows[i] = !first || at_y < 0 ? nullptr : first + at_y * row_bytes;
        }
    }
};

// A sample at its native scale: target, (C, Z, Y, X), and input, (Z, Y, X), either of which may be
// null.
class Native {
    struct Channel {
        const float* values;
        int64 stride;  // from row to row
        float weight, shift;
    };

    const Job& job;
    const ChannelSource* sources;
    const Pages pages;
    const EpilogueRecord* records;
    const int n_channels;
    const int64 width, most;
    float* pixels;      // of W rows of each channel
    const void** rows;  // those of a plane, of each channel
    ChannelWindow* windows;
    Channel* channels;
    Volume* targets;
    Volume* mixture;
    void (Native::*inside)(int64 z, int64 y, int n) const;

public:
    static size_t bytes(const Job& job, const Pages& pages) {
        const int64 width = job.patch[2], n = job.n_channels;
        return Scratch::bytes<float>(n * W * round_up(width, W)) +
               Scratch::bytes<void*>(n * job.patch[1]) + Scratch::bytes<int64>(width) +
               Scratch::bytes<ChannelWindow>(n) + n * Stretches::bytes(width, pages) +
               Scratch::bytes<Channel>(n) + Scratch::bytes<Volume>(n + 1);
    }

    Native(const Job& job_, const ChannelSource* sources_, Pages pages_,
           const EpilogueRecord* records_, char* input, char* target, Scratch& scratch)
        : job(job_), sources(sources_), pages(pages_), records(records_),
          n_channels(job.n_channels), width(job.patch[2]), most(round_up(width, W)),
          pixels(scratch.take<float>(n_channels * W * most)),
          rows(scratch.take<const void*>(n_channels * job.patch[1])),
          windows(scratch.take<ChannelWindow>(n_channels)),
          channels(scratch.take<Channel>(n_channels)), targets(nullptr), mixture(nullptr) {
        int64* map = scratch.take<int64>(width);
        for (int c = 0; c < n_channels; ++c) {
            const Axis<int64> x(sources[c], 2, width, 0, job.n_scales, job.mode);
            windows[c] = {Axis<int64>(sources[c], 0, job.patch[0], 0, job.n_scales, job.mode),
                          Axis<int64>(sources[c], 1, job.patch[1], 0, job.n_scales, job.mode),
                          Stretches::in(scratch, width, pages)};
            if (!pages.boxes && x.start >= x.range.lo && x.start + width <= x.range.hi)
                windows[c].columns.all[0].columns.fill_inside(x.start, width);
            else {
                for (int64 i = 0; i < width; ++i) map[i] = x(i);
                windows[c].columns.fill(map, width, pages.of(c).boxes);
            }
            channels[c] = {nullptr, most, sources[c].weight, records ? records[c].input_shift : 0};
        }
        const int64 volume = job.patch[0] * job.patch[1] * width * (job.half_output ? 2 : 4);
        Volume* volumes = scratch.take<Volume>(n_channels + 1);
        if (target) targets = volumes;
        for (int c = 0; c < n_channels && target; ++c)
            new (targets + c) Volume(job, target + c * volume, records ? records + c : nullptr);
        if (input) mixture = new (volumes + n_channels) Volume(job, input, records);
        inside = find_inside();
    }

    void write(Part part) const {
        const int64 height = job.patch[1];
        for (int64 z = 0; z < job.patch[0]; ++z) {
            for (int c = 0; c < n_channels; ++c)
                if (windows[c].columns.n == 1)
                    windows[c].find(sources[c], pages.of(c), windows[c].columns.all[0], z, part.first,
                                    int(part.stop - part.first), rows + c * height + part.first);
            ask_for(part.first, part.stop);
            for (int64 y = part.first; y < part.stop; y += W) {
                ask_for(y + W, part.stop);
                write_rows(z, y, int(std::min<int64>(W, part.stop - y)));
            }
        }
    }

private:
    // W rows, before they are read: they lie far apart, and the processor does not foresee them.
    void ask_for(int64 y, int64 stop) const {
        for (int c = 0; c < n_channels; ++c)
            if (windows[c].columns.n == 1) ask_for(c, windows[c].columns.all[0], y, std::min(stop, y + W));
    }
    void ask_for(int c, const Stretch& stretch, int64 y, int64 stop) const {
        if (stretch.columns.n > 1 || stretch.page < 0) return;
        const Run run = stretch.columns.runs[0];
        const int64 pixel = PIXELS[sources[c].pixel_type].bytes, bytes = run.length * pixel;
        for (int64 i = y; i < stop; ++i) {
            const char* row = (const char*)rows[c * job.patch[1] + i];
            if (!row) continue;
            row += run.first * pixel;
            for (int64 b = 0; b < bytes; b += 64) __builtin_prefetch(row + b);
            __builtin_prefetch(row + bytes - 1);
        }
    }
    // Windows on several pages have their rows found piece by piece.
    void read_rows(int64 z, int64 y, int n, int c, float* values, int64 stride) const {
        const ChannelWindow& window = windows[c];
        const void** own = rows + c * job.patch[1] + y;
        for (int64 s = 0; s < window.columns.n; ++s) {
            const Stretch& stretch = window.columns.all[s];
            if (window.columns.n > 1) {
                window.find(sources[c], pages.of(c), stretch, z, y, n, own);
                ask_for(c, stretch, y, y + n);
            }
            PIXELS[sources[c].pixel_type].read(values, stride, own, n, stretch.columns, width);
        }
    }
    void write_rows(int64 z, int64 y, int n) const {
        if (inside && are_there(y, n)) return (this->*inside)(z, y, n);
        for (int c = 0; c < n_channels; ++c) {
            // what is handed out as it is goes there at once
            const bool at_once = targets && !records && targets[c].is_direct();
            float* values = at_once ? targets[c].row(z, y) : pixels + c * W * most;
            channels[c].values = values;
            channels[c].stride = at_once ? width : most;
            read_rows(z, y, n, c, values, channels[c].stride);
            const int64 stride = channels[c].stride;
            if (targets && !at_once)
                write_target(
                    z, y, n, c, [=](int i, int64 x) { return load_vec(values + i * stride + x); });
        }
        const Channel* own = channels;
        const auto load = [=](int c, int i, int64 x) {
            return load_vec(own[c].values + i * own[c].stride + x);
        };
        if (n_channels == 1)
            mix<1>(z, y, n, load);
        else if (n_channels == 2)
            mix<2>(z, y, n, load);
        else
            mix<0>(z, y, n, load);
    }

    // What is done to pixels of all channels that lie beside each other, and where it goes.
    template <int C, bool FINISHED> struct Finish {
        float *targets[C], *mixture;  // null where they are not wanted
        vec shift[C], scale[C], offset[C], weight[C], mixed_shift[C], mixed_scale, mixed_offset;

        Finish(const Native& own)
            : mixture(own.mixture ? own.mixture->begin() : nullptr),
              mixed_scale(all(FINISHED ? own.records->input_scale : 1.0f)),
              mixed_offset(all(FINISHED ? own.records->input_offset : 0.0f)) {
            for (int c = 0; c < C; ++c) {
                const Channel& channel = own.channels[c];
                targets[c] = own.targets ? own.targets[c].begin() : nullptr;
                weight[c] = all(channel.weight), mixed_shift[c] = all(channel.shift);
                shift[c] = all(FINISHED ? own.records[c].shift : 0.0f);
                scale[c] = all(FINISHED ? own.records[c].scale : 1.0f);
                offset[c] = all(FINISHED ? own.records[c].offset : 0.0f);
            }
        }
        // The first n of a vector, to a place of the volumes.
        ALWAYS_INLINE void operator()(const vec (&values)[C], int64 to, int n) const {
            for (int c = 0; c < C && targets[0]; ++c)
                put_some(targets[c] + to,
                         FINISHED ? (values[c] - shift[c]) * scale[c] + offset[c] : values[c], n);
            if (!mixture) return;
            vec sum;
            for (int c = 0; c < C; ++c) {
                const vec value = FINISHED ? values[c] - mixed_shift[c] : values[c];
                sum = c == 0 ? weight[c] * value : sum + weight[c] * value;
            }
            put_some(mixture + to, FINISHED ? sum * mixed_scale + mixed_offset : sum, n);
        }
    };
    // Rows that are in the images as a whole are converted where they are used, once for target and
    // mixture, and turned together.
    template <class T, int C, bool FINISHED> void write_inside(int64 z, int64 y, int n) const {
        const T* from[C][W];
        for (int c = 0; c < C; ++c)
            for (int i = 0; i < n; ++i)
                from[c][i] = (const T*)rows[c * job.patch[1] + y + i] +
                             windows[c].columns.all[0].columns.runs[0].first;
        const Finish<C, FINISHED> finish(*this);
        const Volume& volume = mixture ? *mixture : targets[0];
        const int64 first = volume.place_of(z, y), step = volume.stride();
        if (!FINISHED || volume.is_straight())
            for (int i = 0; i < n; ++i)
                for (int64 x = 0; x < width; x += W) {
                    vec values[C];
                    for (int c = 0; c < C; ++c) values[c] = load_pixels<T>(from[c][i] + x);
                    finish(values, first + i * step + x, W);
                }
        else if (volume.is_mirrored())
            for (int i = 0; i < n; ++i)
                for (int64 x = 0; x < width; x += W) {
                    vec values[C];
                    for (int c = 0; c < C; ++c) values[c] = backwards(load_pixels<T>(from[c][i] + x));
                    finish(values, first + i * step - x - W + 1, W);
                }
        else {  // columns become rows: a square of W x W at a time
            const int64 left = step > 0 ? first : first - (n - 1);
            for (int64 x = 0; x < width; x += W) {
                vec squares[C][W];
                for (int c = 0; c < C; ++c) {
                    for (int i = 0; i < W; ++i)
                        squares[c][i] =
                            i < n ? load_pixels<T>(from[c][step > 0 ? i : n - 1 - i] + x) : vec{};
                    transpose(squares[c]);
                }
                for (int i = 0; i < W; ++i) {
                    vec values[C];
                    for (int c = 0; c < C; ++c) values[c] = squares[c][i];
                    finish(values, left + (x + i) * volume.column_stride(), n);
                }
            }
        }
    }
    typedef void (Native::*WriteRows)(int64 z, int64 y, int n) const;
    // Of the most usual types, stored and handed out; null where rows are read first.
    WriteRows find_inside() const {
        if (n_channels > 2 || width % W || job.half_output) return nullptr;
        for (int c = 0; c < n_channels; ++c) {
            const Runs& columns = windows[c].columns.all[0].columns;
            if (windows[c].columns.n > 1 || columns.n > 1 || columns.runs[0].step != 1 ||
                sources[c].pixel_type != sources[0].pixel_type)
                return nullptr;
        }
        switch (sources[0].pixel_type) {
        case UINT8: return inside_of<uint8_t>();
        case UINT16: return inside_of<uint16_t>();
        case FLOAT32: return inside_of<float>();
        }
        return nullptr;
    }
    template <class T> WriteRows inside_of() const {
        if (n_channels == 1)
            return records ? &Native::write_inside<T, 1, true> : &Native::write_inside<T, 1, false>;
        return records ? &Native::write_inside<T, 2, true> : &Native::write_inside<T, 2, false>;
    }
    bool are_there(int64 y, int n) const {
        for (int c = 0; c < n_channels; ++c)
            for (int i = 0; i < n; ++i)
                if (!rows[c * job.patch[1] + y + i]) return false;
        return true;
    }

    // Values are rounded step by step, as NumPy does it.
    template <class Load>
    ALWAYS_INLINE void write_target(int64 z, int64 y, int n, int c, const Load& load) const {
        if (!records) return targets[c].write<false>(z, y, n, load);
        const vec shift = all(records[c].shift), scale = all(records[c].scale);
        const vec offset = all(records[c].offset);
        targets[c].write<true>(z, y, n, [=](int i, int64 x) {
            return (load(i, x) - shift) * scale + offset;
        });
    }
    template <int C, class Load>
    ALWAYS_INLINE void mix(int64 z, int64 y, int n, const Load& load) const {
        if (!mixture) return;
        if (records)
            mix_finished<C, true>(z, y, n, load);
        else
            mix_finished<C, false>(z, y, n, load);
    }
    template <int C, bool FINISHED, class Load>
    ALWAYS_INLINE void mix_finished(int64 z, int64 y, int n, const Load& load) const {
        const int nc = C ? C : n_channels;
        vec weights[C ? C : 1], shifts[C ? C : 1];  // what is stored cannot change them
        for (int c = 0; c < C; ++c)
            weights[c] = all(channels[c].weight), shifts[c] = all(channels[c].shift);
        const Channel* many = channels;
        const vec scale = all(FINISHED ? records->input_scale : 1.0f);
        const vec offset = all(FINISHED ? records->input_offset : 0.0f);
        mixture->write<FINISHED>(z, y, n, [&](int i, int64 x) {
            vec sum;
            for (int c = 0; c < nc; ++c) {
                vec value = load(c, i, x);
                if (FINISHED) value = value - (C ? shifts[C ? c : 0] : all(many[c].shift));
                const vec product = (C ? weights[C ? c : 0] : all(many[c].weight)) * value;
                sum = c == 0 ? product : sum + product;
            }
            return FINISHED ? sum * scale + offset : sum;
        });
    }
};

// The native scale: patches as they are, and the mixture of their channels. W rows at a time, or
// more where they turn.
#pragma once
#include "pages.h"

constexpr int ROWS_AHEAD = 32;       // that are asked for before they are read
constexpr int64 BYTES_ASKED = 512;  // of a row: the rest of a longer one is foreseen
// Rows that turn are read together, since those of the same columns are written side by side: so
// many, of so many floats, which is about what the first cache holds.
constexpr int64 TURNED_ROWS = 64, TURNED_FLOATS = 8192;

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
        if (at_z < 0) return (void)std::fill(rows, rows + n_rows, nullptr);
        StretchRows found(source, pages, stretch.page, at_z);
        for (int i = 0; i < n_rows; ++i) {
            const int64 at_y = y(in_y + i);
            rows[i] = at_y < 0 ? nullptr : found(at_y);
        }
    }
};

// The first plane of a sample that a thread works on next, in images as a whole: its rows are asked
// for while it works on the last plane of this one, since they lie far apart and the processor does
// not foresee them.
class NextRows {
    struct Rows {
        const char* first;
        int64 row_bytes, n_bytes;
    };
    const int64 height;
    Rows* rows;
    int n = 0;
    int64 asked = 0;

public:
    static size_t bytes(const Job& job) { return Scratch::bytes<Rows>(job.n_channels); }

    // `sources` is null where there is none; windows that leave their image are left out.
    NextRows(const Job& job, const ChannelSource* sources, Scratch& scratch)
        : height(job.patch[1]), rows(scratch.take<Rows>(job.n_channels)) {
        for (int c = 0; sources && c < job.n_channels; ++c) {
            const ChannelSource& own = sources[c];
            bool is_inside = true;
            for (int a = 0; a < 3; ++a)
                is_inside &= own.coords[a] >= 0 && own.coords[a] + job.patch[a] <= own.size[a];
            if (!is_inside) continue;
            const int64 pixel = PIXELS[own.pixel_type].bytes;
            const char* first = row_of(own, own.coords[0], own.coords[1]) + own.coords[2] * pixel;
            rows[n++] = {first, own.size[2] * pixel, job.patch[2] * pixel};
        }
    }
    // For one row more of each channel.
    ALWAYS_INLINE void ask() {
        for (int i = 0; i < n && asked < height; ++i)
            prefetch<3>(rows[i].first + asked * rows[i].row_bytes,
                        std::min(rows[i].n_bytes, BYTES_ASKED));
        ++asked;
    }
};

// A sample at its native scale: target, (C, Z, Y, X), and input, (Z, Y, X), either of which may be
// null.
class Native {
    struct Channel {
        float* values;
        float weight, shift;
        int64 first_byte, n_bytes;  // of its rows, where they are asked for; else 0
    };

    const Job& job;
    const ChannelSource* sources;
    const Pages pages;
    const EpilogueRecord* records;
    const int n_channels;
    const int64 width, most;
    const int64 together;  // rows that are read before they are written
    float* pixels;         // these, of each channel
    const void** rows;  // those of a plane, of each channel
    ChannelWindow* windows;
    Channel* channels;
    Volume* targets;
    Volume* mixture;
    mutable NextRows next;
    // How rows are written that lie in their images and do not turn; null where they are read first.
    void (Native::*write_direct)(int64 z, int64 y, int n, Part part) const;

public:
    static size_t bytes(const Job& job, const Pages& pages) {
        const int64 width = job.patch[2], n = job.n_channels;
        return Scratch::bytes<float>(n * rows_together(job) * round_up(width, W)) +
               Scratch::bytes<void*>(n * job.patch[1]) + Scratch::bytes<int64>(width) +
               Scratch::bytes<ChannelWindow>(n) + n * Stretches::bytes(width, pages) +
               Scratch::bytes<Channel>(n) + Scratch::bytes<Volume>(n + 1) + NextRows::bytes(job);
    }

    // `following` are the sources of the next sample, or null. Rows of one stretch are asked for
    // early unless they are in a cache already.
    Native(const Job& job_, const ChannelSource* sources_, const ChannelSource* following,
           bool in_cache, Pages pages_, const EpilogueRecord* records_, char* input, char* target,
           Scratch& scratch)
        : job(job_), sources(sources_), pages(pages_), records(records_),
          n_channels(job.n_channels), width(job.patch[2]), most(round_up(width, W)),
          together(records && Volume(job, nullptr, records).turns() ? rows_together(job) : W),
          pixels(scratch.take<float>(n_channels * rows_together(job) * most)),
          rows(scratch.take<const void*>(n_channels * job.patch[1])),
          windows(scratch.take<ChannelWindow>(n_channels)),
          channels(scratch.take<Channel>(n_channels)), targets(nullptr), mixture(nullptr),
          next(job_, following, scratch), write_direct(nullptr) {
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
            channels[c] = {nullptr, sources[c].weight, records ? records[c].input_shift : 0};
            const Stretch& stretch = windows[c].columns.all[0];
            if (!in_cache && windows[c].columns.n == 1 && stretch.columns.n == 1 &&
                stretch.columns.runs->step) {
                const int64 pixel = PIXELS[sources[c].pixel_type].bytes;
                const Run run = stretch.columns.runs[0];
                const int64 first = run.step < 0 ? run.first - run.length + 1 : run.first;
                channels[c].first_byte = first * pixel;
                channels[c].n_bytes = run.length * pixel;
            }
        }
        const int64 volume = job.patch[0] * job.patch[1] * width * (job.half_output ? 2 : 4);
        Volume* volumes = scratch.take<Volume>(n_channels + 1);
        if (target) targets = volumes;
        for (int c = 0; c < n_channels && target; ++c)
            new (targets + c) Volume(job, target + c * volume, records ? records + c : nullptr);
        if (input) mixture = new (volumes + n_channels) Volume(job, input, records);
        find_inside();
    }

    void write(Part part) const {
        const int64 height = job.patch[1];
        for (int64 z = 0; z < job.patch[0]; ++z) {
            for (int c = 0; c < n_channels; ++c)
                if (windows[c].columns.n == 1)
                    windows[c].find(sources[c], pages.of(c), windows[c].columns.all[0], z, part.first,
                                    int(part.stop - part.first), rows + c * height + part.first);
            for (int64 y = part.first; y < std::min(part.stop, part.first + ROWS_AHEAD); ++y)
                ask_for_row(y);
            for (int64 y = part.first; y < part.stop; y += together)
                write_rows(z, y, int(std::min(together, part.stop - y)), part);
        }
    }

private:
    // Whole vectors of them, of all channels.
    static int64 rows_together(const Job& job) {
        const int64 n = TURNED_FLOATS / (job.n_channels * round_up(job.patch[2], W));
        return std::max<int64>(W, std::min(TURNED_ROWS, n / W * W));
    }
    // While row y is read, for one that will be.
    ALWAYS_INLINE void ask_ahead(int64 z, int64 y, Part part) const {
        if (y + ROWS_AHEAD < part.stop)
            ask_for_row(y + ROWS_AHEAD);
        else if (z == job.patch[0] - 1)
            next.ask();
    }
    ALWAYS_INLINE void ask_for_row(int64 y) const {
        for (int c = 0; c < n_channels; ++c) {
            const Channel& own = channels[c];
            if (!own.n_bytes) continue;
            const char* row = (const char*)rows[c * job.patch[1] + y];
            if (row) prefetch<3>(row + own.first_byte, std::min(own.n_bytes, BYTES_ASKED));
        }
    }
    // Windows on several pages have their rows found piece by piece.
    void read_rows(int64 z, int64 y, int n, int c, float* values, int64 stride) const {
        const ChannelWindow& window = windows[c];
        const void** own = rows + c * job.patch[1] + y;
        for (int64 s = 0; s < window.columns.n; ++s) {
            const Stretch& stretch = window.columns.all[s];
            if (window.columns.n > 1)
                window.find(sources[c], pages.of(c), stretch, z, y, n, own);
            PIXELS[sources[c].pixel_type].read(values, stride, own, n, stretch.columns, width);
        }
    }
    void write_rows(int64 z, int64 y, int n, Part part) const {
        if (write_direct && are_there(y, n)) return (this->*write_direct)(z, y, n, part);
        // what is handed out as it is goes there at once
        const bool at_once = targets && !records && targets->is_direct();
        const int64 stride = at_once ? width : most;
        for (int c = 0; c < n_channels; ++c)
            channels[c].values = at_once ? targets[c].row(z, y) : pixels + c * together * most;
        for (int k = 0; k < n; k += W) {
            const int some = std::min(W, n - k);
            for (int i = 0; i < some; ++i) ask_ahead(z, y + k + i, part);
            for (int c = 0; c < n_channels; ++c)
                read_rows(z, y + k, some, c, channels[c].values + k * stride, stride);
        }
        const Channel* own = channels;
        const auto load = [=](int c, int i, int64 x) {
            return load_vec(own[c].values + i * stride + x);
        };
        for (int c = 0; c < n_channels && targets && !at_once; ++c)
            write_target(z, y, n, c, [=](int i, int64 x) { return load(c, i, x); });
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
        // To a place of the volumes.
        ALWAYS_INLINE void operator()(const vec (&values)[C], int64 to) const {
            for (int c = 0; c < C && targets[0]; ++c)
                put(targets[c] + to,
                    FINISHED ? (values[c] - shift[c]) * scale[c] + offset[c] : values[c]);
            if (!mixture) return;
            vec sum;
            for (int c = 0; c < C; ++c) {
                const vec value = FINISHED ? values[c] - mixed_shift[c] : values[c];
                sum = c == 0 ? weight[c] * value : sum + weight[c] * value;
            }
            put(mixture + to, FINISHED ? sum * mixed_scale + mixed_offset : sum);
        }
    };
    // Where a row of a window inside of its image begins.
    template <class T> const T* row_inside(int c, int64 y) const {
        return (const T*)rows[c * job.patch[1] + y] + windows[c].columns.all[0].columns.runs[0].first;
    }
    // Rows that are in the images as a whole are converted where they are used, once for target and
    // mixture.
    template <class T, int C, bool FINISHED>
    void write_inside(int64 z, int64 y, int n, Part part) const {
        const Finish<C, FINISHED> finish(*this);
        const Volume& volume = mixture ? *mixture : targets[0];
        for (int i = 0; i < n; ++i) {
            ask_ahead(z, y + i, part);
            const int64 to = volume.place_of(z, y + i);
            const T* from[C];
            for (int c = 0; c < C; ++c) from[c] = row_inside<T>(c, y + i);
            vec values[C];
            if (FINISHED && volume.is_mirrored())
                for (int64 x = 0; x < width; x += W) {
                    for (int c = 0; c < C; ++c) values[c] = backwards(load_pixels<T>(from[c] + x));
                    finish(values, to - x - W + 1);
                }
            else
                for (int64 x = 0; x < width; x += W) {
                    for (int c = 0; c < C; ++c) values[c] = load_pixels<T>(from[c] + x);
                    finish(values, to + x);
                }
        }
    }
    // Of the most usual types, stored and handed out.
    void find_inside() {
        if (n_channels > 2 || width % W || job.half_output) return;
        for (int c = 0; c < n_channels; ++c) {
            const Runs& columns = windows[c].columns.all[0].columns;
            if (windows[c].columns.n > 1 || columns.n > 1 || columns.runs[0].step != 1 ||
                sources[c].pixel_type != sources[0].pixel_type)
                return;
        }
        switch (sources[0].pixel_type) {
        case UINT8: return inside_of<uint8_t>();
        case UINT16: return inside_of<uint16_t>();
        case FLOAT32: return inside_of<float>();
        }
    }
    template <class T> void inside_of() {
        if (n_channels == 1)
            inside_of<T, 1>();
        else
            inside_of<T, 2>();
    }
    template <class T, int C> void inside_of() {
        const Volume& volume = mixture ? *mixture : targets[0];
        if (!records)
            write_direct = &Native::write_inside<T, C, false>;
        else if (volume.is_straight() || volume.is_mirrored())
            write_direct = &Native::write_inside<T, C, true>;
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

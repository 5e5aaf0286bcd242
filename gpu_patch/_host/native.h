// The native scale: patches as they are, and the mixture of their channels. W rows at a time.
#pragma once
#include "rows.h"

struct Part {  // rows of a sample's outputs
    int64 first, stop;
};

// Where a channel's window lies in its image.
struct ChannelWindow {
    Axis<int64> z, y;
    Runs columns;

    // Where rows of the window are; null for zeros.
    void find(const ChannelSource& source, int64 in_z, int64 in_y, int n, const void** rows) const {
        const int64 at_z = z(in_z);
        const char* first = at_z < 0 ? nullptr : row_of(source, at_z, 0);
        const int64 row_bytes = source.size[2] * PIXELS[source.pixel_type].bytes;
        for (int i = 0; i < n; ++i) {
            const int64 at_y = y(in_y + i);
            rows[i] = !first || at_y < 0 ? nullptr : first + at_y * row_bytes;
        }
    }
};

// A sample at its native scale: target, (C, Z, Y, X), and input, (Z, Y, X), either of which may be
// null.
class Native {
    const Job& job;
    const ChannelSource* sources;
    const EpilogueRecord* records;
    const int n_channels;
    const int64 width;
    float* pixels;  // of W rows
    ChannelWindow* windows;
    Volume* targets;
    Volume* mixture;

public:
    static size_t bytes(const Job& job) {
        const int64 width = job.patch[2], n = job.n_channels;
        return Scratch::bytes<float>(W * width) + Scratch::bytes<int64>(width) +
               Scratch::bytes<ChannelWindow>(n) + n * Scratch::bytes<Run>(width) +
               Scratch::bytes<Volume>(n + 1) + (n + 1) * Volume::bytes(width);
    }

    Native(const Job& job_, const ChannelSource* sources_, const EpilogueRecord* records_,
           char* input, char* target, Scratch& scratch)
        : job(job_), sources(sources_), records(records_), n_channels(job.n_channels),
          width(job.patch[2]), pixels(scratch.take<float>(W * width)),
          windows(scratch.take<ChannelWindow>(n_channels)), targets(nullptr), mixture(nullptr) {
        int64* map = scratch.take<int64>(width);
        for (int c = 0; c < n_channels; ++c) {
            const Axis<int64> x(sources[c], 2, width, 0, job.n_scales, job.mode);
            Runs columns = {scratch.take<Run>(width), 0};
            if (x.start >= x.range.lo && x.start + width <= x.range.hi)
                columns.fill_inside(x.start, width);
            else {
                for (int64 i = 0; i < width; ++i) map[i] = x(i);
                columns.fill(map, width, 0);
            }
            windows[c] = {Axis<int64>(sources[c], 0, job.patch[0], 0, job.n_scales, job.mode),
                          Axis<int64>(sources[c], 1, job.patch[1], 0, job.n_scales, job.mode),
                          columns};
        }
        const int64 volume = job.patch[0] * job.patch[1] * width * (job.half_output ? 2 : 4);
        Volume* volumes = scratch.take<Volume>(n_channels + 1);
        if (target) targets = volumes;
        for (int c = 0; c < n_channels && target; ++c)
            new (targets + c)
                Volume(job, target + c * volume, records ? records + c : nullptr, scratch);
        if (input) mixture = new (volumes + n_channels) Volume(job, input, records, scratch);
    }

    void write(Part part) const {
        for (int64 z = 0; z < job.patch[0]; ++z)
            for (int64 y = part.first; y < part.stop; y += W)
                write_rows(z, y, int(std::min<int64>(W, part.stop - y)));
    }

private:
    void write_rows(int64 z, int64 y, int n) const {
        const void* rows[W];
        for (int c = 0; c < n_channels; ++c) {
            const bool to_target = targets && !records;
            float* values = to_target ? targets[c].row(z, y, 0) : pixels;
            const int64 stride = to_target ? targets[c].stride() : width;
            windows[c].find(sources[c], z, y, n, rows);
            PIXELS[sources[c].pixel_type].read(values, stride, rows, n, windows[c].columns, width);
            if (mixture) mix(z, y, n, values, stride, c);
            for (int i = 0; i < n && records && !mixture; ++i)
                finish_row(targets[c].row(z, y + i, i), values + i * stride, records[c].shift,
                           records[c].scale, records[c].offset, width);
            if (targets) targets[c].write(z, y, n);
        }
        if (mixture) mixture->write(z, y, n);
    }
    void mix(int64 z, int64 y, int n, const float* values, int64 stride, int c) const {
        const float weight = sources[c].weight;
        const bool first = c == 0, last = c == n_channels - 1;
        for (int i = 0; i < n; ++i, values += stride) {
            float* mixed = mixture->row(z, y + i, i);
            if (!records) {
                (first ? mix_row<true> : mix_row<false>)(mixed, values, weight, width);
                continue;
            }
            float* to = targets ? targets[c].row(z, y + i, i) : nullptr;
            (first  ? last ? mix_and_finish<true, true> : mix_and_finish<true, false>
             : last ? mix_and_finish<false, true>
                    : mix_and_finish<false, false>)(mixed, to, values, weight, records[c], width);
        }
    }
};

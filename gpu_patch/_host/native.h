// The native scale: patches as they are, and the mixture of their channels.
#pragma once
#include "rows.h"

struct Part {  // rows of a sample's outputs
    int64 first, stop;
};

// Where a channel's window lies in its image.
struct ChannelWindow {
    Axis<int64> z, y;
    Runs columns;
};

static size_t native_bytes(const Job& job) {
    const int64 width = job.patch[2], n = job.n_channels;
    return Scratch::bytes<float>(width + W) + Scratch::bytes<int64>(width) +
           Scratch::bytes<ChannelWindow>(n) + n * Scratch::bytes<Run>(width) +
           Scratch::bytes<Volume>(n + 1) + (n + 1) * Volume::bytes(width);
}

// Fill target, (C, Z, Y, X), and input, (Z, Y, X), of which either may be null.
static void native(const Job& job, const ChannelSource* sources, const EpilogueRecord* records,
                   Part part, char* input, char* target, Scratch& scratch) {
    const int n_channels = job.n_channels;
    const int64 width = job.patch[2], value_bytes = job.half_output ? 2 : 4;
    const int64 volume = job.patch[0] * job.patch[1] * width * value_bytes;
    float* pixels = scratch.take<float>(width + W);
    int64* map = scratch.take<int64>(width);
    ChannelWindow* windows = scratch.take<ChannelWindow>(n_channels);
    Volume* outputs = scratch.take<Volume>(n_channels + 1);
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
                      Axis<int64>(sources[c], 1, job.patch[1], 0, job.n_scales, job.mode), columns};
        if (target)
            new (outputs + c) Volume(job, target + c * volume, records ? records + c : nullptr, scratch);
    }
    Volume& mixture = outputs[n_channels];
    if (input) new (&mixture) Volume(job, input, records, scratch);

    for (int64 z = 0; z < job.patch[0]; ++z)
        for (int64 y = part.first; y < part.stop; ++y) {
            const bool is_last = y == part.stop - 1;
            float* mixed = input ? mixture.row(z, y) : nullptr;
            for (int c = 0; c < n_channels; ++c) {
                const int64 in_z = windows[c].z(z), in_y = windows[c].y(y);
                float* to = target ? outputs[c].row(z, y) : pixels;
                float* values = records ? pixels : to;
                if (in_z < 0 || in_y < 0)
                    memset(values, 0, width * sizeof(float));
                else
                    PIXELS[sources[c].pixel_type].read(values, row_of(sources[c], in_z, in_y), windows[c].columns);
                const float shift = records ? records[c].input_shift : 0.0f;
                if (input && c == 0) mix_row<true>(mixed, values, sources[c].weight, shift, width);
                if (input && c > 0) mix_row<false>(mixed, values, sources[c].weight, shift, width);
                if (!target) continue;
                if (records)
                    finish_row(to, values, records[c].shift, records[c].scale, records[c].offset, width);
                outputs[c].written(z, y, is_last);
            }
            if (!input) continue;
            if (records) scale_row(mixed, records->input_scale, records->input_offset, width);
            mixture.written(z, y, is_last);
        }
}

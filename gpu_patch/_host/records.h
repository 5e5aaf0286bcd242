// Records of a batch, out of the columns of its plan and what is known of the images.
#pragma once
#include <vector>

#include "rows.h"

struct ImageSamples {  // of an image
    int64 n, together;  // how many there are, and how many lie behind each other
    int64 bytes;        // from one to the next
};

struct Columns {  // of a plan of N samples
    const ChannelSource* images;  // (n_images, C): of their first samples, at no place
    const ImageSamples* samples;  // (n_images,)
    const int64 *image_idx, *sample_idx, *coords;  // (N, P), (N, P), (N, P, D)
    const int64* channels;                         // (C,)
    const float* weights;                          // (N, C), or null
    const float* values;                           // (N, n_values), null without an epilogue
    const uint8_t* orientation;                    // (N,), or null
};
// Where `turn` of epilogue.py puts pixels of a plane.
static inline void turn(EpilogueRecord& record, int orientation, int64 height, int64 width) {
    const int64 quarters[4][3] = {{0, width, 1},
                                  {(width - 1) * height, 1, -height},
                                  {height * width - 1, -width, -1},
                                  {height - 1, -1, height}};
    const int64* own = quarters[orientation % 4];
    const bool flipped = orientation >= 4;
    record.first = flipped ? own[0] + (height - 1) * own[1] : own[0];
    record.along_y = flipped ? -own[1] : own[1], record.along_x = own[2];
}

class Records {
    const Job& job;
    const Columns& columns;
    const int64* which;  // (B,), of the columns' samples, those of the batch; null: all, in order

    int64 planned(int64 sample) const { return which ? which[sample] : sample; }
    int orientation(int64 sample) const {
        return columns.orientation ? columns.orientation[planned(sample)] : 0;
    }
    bool is_possible(int64 at, int64 limit) const {
        const int64 image = columns.image_idx[at], sample = columns.sample_idx[at];
        if (image < 0 || image >= job.n_images) return false;
        if (sample < 0 || sample >= columns.samples[image].n) return false;
        const bool folds = job.mode == REFLECT || job.mode == WRAP;
        const int64* size = columns.images[image * job.n_channels].size + 3 - job.n_dims;
        for (int d = 0; d < job.n_dims; ++d) {
            const int64 place = columns.coords[at * job.n_dims + d];
            if (place < -limit || place >= limit) return false;
            const int64 patch = job.patch[3 - job.n_dims + d];
            const int64 start = window_start(place, patch, job.n_scales);
            if (folds && (start >= size[d] || start + (patch << job.n_scales) <= 0)) return false;
        }
        return true;
    }

    // What an epilogue does: of VALUES in table.py, the first three of a channel, as is the fourth.
    float value(int field, int64 sample, int channel) const {
        const int at = job.value_at[field];
        if (at < 0) return 0;
        return columns.values[planned(sample) * job.n_values + at + (field < 4 ? channel : 0)];
    }

public:
    Records(const Job& job_, const Columns& columns_, const int64* which_)
        : job(job_), columns(columns_), which(which_) {}

    // Where a channel's place is in the columns.
    int64 place(int64 sample, int channel) const { return job.place(planned(sample), channel); }

    // Whether what is planned, images and their samples are there, places within ±limit, and where
    // borders fold into what is cut out, something is.
    bool are_possible(int64 limit) const {
        for (int64 sample = 0; sample < job.n_samples; ++sample) {
            if (planned(sample) < 0 || planned(sample) >= job.n_planned) return false;
            for (int p = 0; p < job.n_places; ++p)
                if (!is_possible(place(sample, p), limit)) return false;
        }
        return true;
    }

    ChannelSource source(int64 sample, int channel) const {
        const int64 at = place(sample, channel), image = columns.image_idx[at];
        ChannelSource made = columns.images[image * job.n_channels + channel];
        const ImageSamples& own = columns.samples[image];
        made.pixels = (const char*)made.pixels + columns.sample_idx[at] % own.together * own.bytes;
        const int64* coords = columns.coords + at * job.n_dims;
        for (int d = 0; d < job.n_dims; ++d) made.coords[3 - job.n_dims + d] = coords[d];
        if (columns.weights) made.weight = columns.weights[planned(sample) * job.n_channels + channel];
        return made;
    }

    EpilogueRecord epilogue(int64 sample, int channel) const {
        EpilogueRecord made;
        turn(made, orientation(sample), job.patch[1], job.patch[2]);
        float* to[] = {&made.shift,       &made.scale,       &made.offset,
                       &made.input_shift, &made.input_scale, &made.input_offset};
        for (int i = 0; i < 6; ++i) *to[i] = value(i, sample, channel);
        return made;
    }

    // `short_record` of table.py, which specialised.cu reads.
    char* write_short(char* to, int64 sample, int channel) const {
        const ChannelSource own = source(sample, channel);
        const auto put = [&](auto number) {
            memcpy(to, &number, sizeof number);
            to += sizeof number;
        };
        put(own.pixels);
        for (int d = 3 - job.n_dims; d < 3; ++d) put(int32_t(own.size[d]));
        for (int d = 3 - job.n_dims; d < 3; ++d) put(int32_t(own.coords[d]));
        put(own.weight);
        put(int32_t(orientation(sample)));
        for (int i = 0; i < 6 && columns.values; ++i) put(value(i, sample, channel));
        return to;
    }
};

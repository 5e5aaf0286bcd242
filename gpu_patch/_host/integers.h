// Patches of labels: integers, copied exactly, with zeros or the sign in front where they get wider.
#pragma once
#include <algorithm>

#include "native.h"

// A channel of a sample's patch, (Z, Y, X). The output's type is never narrower than the image's.
template <class T> class Integers {
    const Job& job;
    const ChannelSource& source;
    const EpilogueRecord* record;  // of where pixels go; null where nothing turns
    T* out;
    Axis<int64> z_axis, y_axis;
    bool is_inside;
    int64 first;
    int64* columns;  // what each reads, -1 for zero; not filled where all are inside

public:
    static size_t bytes(const Job& job) { return Scratch::bytes<int64>(job.patch[2]); }

    Integers(const Job& job_, const ChannelSource& source_, const EpilogueRecord* record_, T* out_,
             Scratch& scratch)
        : job(job_), source(source_), record(record_), out(out_),
          z_axis(source, 0, job.patch[0], 0, job.n_scales, job.mode),
          y_axis(source, 1, job.patch[1], 0, job.n_scales, job.mode),
          columns(scratch.take<int64>(job.patch[2])) {
        const Axis<int64> x_axis(source, 2, job.patch[2], 0, job.n_scales, job.mode);
        first = x_axis.start;
        is_inside = first >= x_axis.range.lo && first + job.patch[2] <= x_axis.range.hi;
        for (int64 x = 0; x < job.patch[2] && !is_inside; ++x) columns[x] = x_axis(x);
    }

    void write(Part part) const {
        switch (source.pixel_type) {
        case BOOL: case UINT8: return write_as<uint8_t>(part);
        case INT8: return write_as<int8_t>(part);
        case UINT16: return write_as<uint16_t>(part);
        case INT16: return write_as<int16_t>(part);
        case INT32: return write_as<int32_t>(part);
        case UINT32: return write_as<uint32_t>(part);
        default: return write_as<uint64_t>(part);
        }
    }

private:
    template <class Stored> void write_as(Part part) const {
        for (int64 z = 0; z < job.patch[0]; ++z)
            for (int64 y = part.first; y < part.stop; ++y) {
                const int64 at_z = z_axis(z), at_y = y_axis(y);
                const bool is_zero = at_z < 0 || at_y < 0;
                write_row(is_zero ? nullptr : (const Stored*)row_of(source, at_z, at_y), z, y);
            }
    }
    template <class Stored> void write_row(const Stored* row, int64 z, int64 y) const {
        const int64 width = job.patch[2], step = record ? record->along_x : 1;
        const bool is_bool = source.pixel_type == BOOL;
        T* to = out + z * job.patch[1] * width +
                (record ? record->first + y * record->along_y : y * width);
        if (row && is_inside && step == 1 && !is_bool) {
            std::copy_n(row + first, width, to);
            return;
        }
        for (int64 x = 0; x < width; ++x) {
            const int64 at = is_inside ? first + x : columns[x];
            const T value = row && at >= 0 ? T(row[at]) : T(0);
            to[x * step] = is_bool ? T(value != 0) : value;
        }
    }
};

// Records of an epilogue, out of its columns.
#pragma once
#include "cuda.h"

struct Values {  // columns; null is all 0
    const float *shift, *scale, *offset, *input_shift, *input_scale, *input_offset;
};

// `place` is where `turn` puts pixels: first, along Y, along X.
static inline EpilogueRecord record_of(const Values& values, const int64* place, int64 sample,
                                       int64 channel) {
    const auto at = [](const float* column, int64 i) { return column ? column[i] : 0.0f; };
    EpilogueRecord made;
    made.first = place[0], made.along_y = place[1], made.along_x = place[2];
    made.shift = at(values.shift, channel), made.scale = at(values.scale, channel);
    made.offset = at(values.offset, channel);
    made.input_shift = at(values.input_shift, channel);
    made.input_scale = at(values.input_scale, sample);
    made.input_offset = at(values.input_offset, sample);
    return made;
}

// Mean and standard deviation of repeated predictions, as _cuda/moments.cu: the same roundings.
#pragma once
#include "rows.h"

struct MomentsJob {
    int64 n_tiles, n_values;  // values of a tile
    int is_half, number, n_samples, n_threads;
};

// Add values, those of one part of a tile, to their means and sums of squared deviations.
template <class T>
static void add_values(const MomentsJob& job, const T* values, float* means, float* spreads,
                       int64 n) {
    const vec number = all(float(job.number)), others = all(float(job.number - 1));
    for (int64 x = 0; x < n; x += W) {
        const int count = int(std::min<int64>(W, n - x));
        const auto load = [count](auto* from) {
            return count == W ? load_pixels(from) : load_some(from, count);
        };
        const vec value = load(values + x);
        vec mean = value, spread = vec{};
        if (job.number > 1) {
            const vec before = load(means + x), deviation = value - before;
            mean = before + deviation / number;
            spread = load(spreads + x) + (value - mean) * deviation;
        }
        if (job.number == job.n_samples) {
            spread = spread / others;
            for (int i = 0; i < W; ++i) spread[i] = __builtin_sqrtf(spread[i]);
        }
        put_some(means + x, mean, count);
        put_some(spreads + x, spread, count);
    }
}

// Tiles back into images. NumPy twin: gpu_patch/_numpy/stitch.py.
//
// A block is 8 warps; a warp writes one row of one channel of a tile at a time, a block ROWS of
// them. Where several tiles of a batch count at a pixel, the thread of the first of them adds all,
// in their order, and the others do nothing: no atomics, and the same sum however tiles are
// divided into batches. TILE_TYPE is the data type of the tiles; EXCLUSIVE says that one tile alone
// counts at each pixel.
//
// With SUMS, values are summed in float64 instead, all alike: 1 for sums alone, 2 for sums and then
// those of squares. NumPy twin of that: gpu_patch/_numpy/accumulate.py.

constexpr int ROWS = 16;

#if SUMS
typedef double Slab;
#else
typedef float Slab;
#endif

// AxisCover of gpu_patch/geometry.py.
struct AxisTable {
    const int64* starts;
    const int* first;
    const int* stop;
    const float* weights;
    int64 patch;  // pixels of a tile along it
    int64 step;   // pixels of a tile from one to the next along it
};

// Axes are Z, Y, X.
struct StitchSegment {
    Slab* slab;
    AxisTable axes[3];  // in the order of the grid: the slab's, then the others
    int64 slab_size[3];
    int64 base[3];    // pixel of the image that is pixel 0 of the slab, before its ring ends
    int strides[2];   // from a tile to the next along the first axes of the order
    int first, stop;  // the segment's tiles, in that order
    int in_batch;     // where the first of them is in the batch
    int slab_axis;
};

struct StitchTile {
    int segment;
    int index[3];         // in the grid, axes in its order
    int start[3];         // first pixel, of the image
    int low[3], high[3];  // pixels of the image that it may write
};

struct StitchJob {
    int64 patch[3];
    int n_channels;
    unsigned n_row_groups;  // blocks per channel of a tile
    int64 again;            // of SUMS: whether these tiles have been added once before
};

// What happens to values before they are stitched.
struct Linear {
    bool wanted;  // where it is not, values are copied bit by bit
    float scale, offset;

    __device__ __forceinline__ float operator()(float value) const {
        return wanted ? add_rn(mul_rn(value, scale), offset) : value;
    }
};

__device__ __forceinline__ int64 in_slab(const StitchSegment& segment, int axis, int pixel) {
    const int64 place = pixel - segment.base[axis];
    return place < segment.slab_size[axis] ? place : place - segment.slab_size[axis];
}

#if SUMS
#ifdef __CUDACC__
// Keeps subnormal numbers, which a cast under -ftz=true would not.
__device__ __forceinline__ double widen(float value) {
    double result;
    asm("cvt.f64.f32 %0, %1;" : "=d"(result) : "f"(value));
    return result;
}
#else
inline double widen(float value) { return value; }
#endif

// What is summed of a pixel, from what the slab holds on.
struct Sums {
    double values, squares;

    __device__ __forceinline__ void add(float value) {
        const double wide = widen(value);
        values += wide;
        squares += wide * wide;  // exact, and so the same where it is fused
    }
};

// From the sums of a channel to those of its squares.
__device__ __forceinline__ int64 to_squares(const StitchJob& job, const StitchSegment& segment) {
    return job.n_channels * segment.slab_size[0] * segment.slab_size[1] * segment.slab_size[2];
}
#endif

// Axes are those of the order: the slab's, then the others.
__device__ __forceinline__ void blend(const StitchJob& job, const StitchSegment& segment,
                                      const StitchTile& tile, const void* tiles, int channel,
                                      const Linear& linear, const int (&pixel)[3], Slab* to) {
    int first[3], stop[3], at[3];
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
        first[axis] = __ldg(segment.axes[axis].first + pixel[axis]);
        stop[axis] = __ldg(segment.axes[axis].stop + pixel[axis]);
        at[axis] = tile.index[axis];
    }
    const auto place = [&] {
        return at[0] * segment.strides[0] + at[1] * segment.strides[1] + at[2];
    };

    // the last of the tiles before this one that count here
    if (--at[2] < first[2]) {
        at[2] = stop[2] - 1;
        if (--at[1] < first[1]) {
            at[1] = stop[1] - 1;
            --at[0];
        }
    }
    const bool none_before = at[0] < first[0];
    if (!none_before && place() >= segment.first) return;

#pragma unroll
    for (int axis = 0; axis < 3; ++axis) at[axis] = tile.index[axis];
#if SUMS
    const bool is_new = none_before && !job.again;
    double* const squares = to + to_squares(job, segment);
    Sums sums = {is_new ? 0.0 : *to, is_new || SUMS == 1 ? 0.0 : *squares};
#else
    float sum = none_before ? -0.0f : *to;  // adding to -0 changes nothing, not even a -0
#endif
    do {
#if !SUMS
        float weights[3];
#endif
        int64 from = (static_cast<int64>(place() - segment.first + segment.in_batch) *
                          job.n_channels + channel) * job.patch[0] * job.patch[1] * job.patch[2];
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) {
            const AxisTable& table = segment.axes[axis];
            const int inside = pixel[axis] - static_cast<int>(__ldg(table.starts + at[axis]));
#if !SUMS
            weights[axis] = __ldg(table.weights + at[axis] * table.patch + inside);
#endif
            from += inside * table.step;
        }
#if SUMS
        sums.add(load<TILE_TYPE>(tiles, from));
#else
        // the product of Z, Y and X from left to right, as NumPy has it
        const bool slab_is_x = segment.slab_axis == 2;
        const float left = slab_is_x ? weights[2] : weights[0];
        const float last = slab_is_x ? weights[0] : weights[2];
        const float weight = mul_rn(mul_rn(left, weights[1]), last);
        sum = add_rn(sum, mul_rn(weight, linear(load<TILE_TYPE>(tiles, from))));
#endif
        if (++at[2] == stop[2]) {
            at[2] = first[2];
            if (++at[1] == stop[1]) {
                at[1] = first[1];
                ++at[0];
            }
        }
    } while (at[0] < stop[0] && place() < segment.stop);
#if SUMS
    *to = sums.values;
    if (SUMS == 2) *squares = sums.squares;
#else
    *to = sum;
#endif
}

extern "C" __global__ __launch_bounds__(256, 2)
void stitch(const StitchJob* __restrict__ job, const StitchSegment* __restrict__ segments,
            const StitchTile* __restrict__ records, const void* __restrict__ tiles,
            const float* __restrict__ scales, const float* __restrict__ offsets) {
    const int plane = static_cast<int>(blockIdx.x / job->n_row_groups);
    const int first_row = static_cast<int>(blockIdx.x % job->n_row_groups) * ROWS;
    const int channel = plane % job->n_channels;
    const StitchTile& tile = records[plane / job->n_channels];
    const StitchSegment& segment = segments[tile.segment];
    const Linear linear = {scales != nullptr, scales ? scales[channel] : 1.0f,
                           scales ? offsets[channel] : 0.0f};

    const int height = tile.high[1] - tile.low[1];
    const int last_row = min(first_row + ROWS, (tile.high[0] - tile.low[0]) * height);
    for (int row = first_row + threadIdx.y; row < last_row; row += blockDim.y) {
        const int z = tile.low[0] + row / height, y = tile.low[1] + row % height;
        Slab* to = segment.slab + ((channel * segment.slab_size[0] + in_slab(segment, 0, z)) *
                                        segment.slab_size[1] +
                                    in_slab(segment, 1, y)) *
                                       segment.slab_size[2];
#if EXCLUSIVE
        const int64 from = ((plane * job->patch[0] + z - tile.start[0]) * job->patch[1] + y -
                            tile.start[1]) * job->patch[2] - tile.start[2];
#else
        const int slab_axis = segment.slab_axis;
#endif
        for (int x = tile.low[2] + threadIdx.x; x < tile.high[2]; x += blockDim.x) {
            Slab* pixel = to + in_slab(segment, 2, x);
#if EXCLUSIVE
            *pixel = linear(load<TILE_TYPE>(tiles, from + x));
#else
            const int ordered[3] = {slab_axis == 0 ? z : slab_axis == 1 ? y : x,
                                    slab_axis == 0 ? y : z, slab_axis == 2 ? y : x};
            blend(*job, segment, tile, tiles, channel, linear, ordered, pixel);
#endif
        }
    }
}

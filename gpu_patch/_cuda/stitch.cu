// Tiles back into images. NumPy twin: gpu_patch/_numpy/stitch.py.
//
// A block is 8 warps; a warp writes one row of one channel of a tile at a time, a block ROWS of
// them. Where several tiles of a batch count at a pixel, the thread of the first of them adds all,
// in their order, and the others do nothing: no atomics, and the same sum however tiles are
// divided into batches. TILE_TYPE is the data type of the tiles.

constexpr int ROWS = 32;

// AxisCover of gpu_patch/geometry.py.
struct AxisTable {
    const int64* starts;
    const int* first;
    const int* stop;
    const float* weights;
};

// Axes are Z, Y, X.
struct StitchSegment {
    float* slab;
    AxisTable axes[3];
    int64 slab_size[3];
    int64 base[3];    // pixel of the image that is pixel 0 of the slab, before its ring ends
    int strides[3];   // from a tile to the next along an axis, in the order of the grid
    int first, stop;  // the segment's tiles, in that order
    int in_batch;     // where the first of them is in the batch
    int slab_axis;
    int exclusive;  // one tile counts at each pixel
};

struct StitchTile {
    int segment;
    int index[3];         // in the grid
    int start[3];         // first pixel, of the image
    int low[3], high[3];  // pixels of the image that it may write
};

struct StitchJob {
    int patch[3];
    int n_channels;
    unsigned n_row_groups;  // blocks per channel of a tile
};

// What happens to values before they are stitched.
struct Linear {
    bool wanted;  // where it is not, values are copied bit by bit
    float scale, offset;

    __device__ __forceinline__ float operator()(float value) const {
        return wanted ? __fadd_rn(__fmul_rn(value, scale), offset) : value;
    }
};

__device__ __forceinline__ int64 in_slab(const StitchSegment& segment, int axis, int pixel) {
    const int64 place = pixel - segment.base[axis];
    return place < segment.slab_size[axis] ? place : place - segment.slab_size[axis];
}

template <int SLAB_AXIS>
__device__ __forceinline__ void blend(const StitchJob& job, const StitchSegment& segment,
                                      const StitchTile& tile, const void* tiles, int channel,
                                      const Linear& linear, int z, int y, int x, float* to) {
    constexpr int OUTER = SLAB_AXIS, MIDDLE = SLAB_AXIS == 0 ? 1 : 0;
    constexpr int INNER = SLAB_AXIS == 2 ? 1 : 2;
    const int pixel[3] = {z, y, x};
    int first[3], stop[3], at[3];
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
        first[axis] = __ldg(segment.axes[axis].first + pixel[axis]);
        stop[axis] = __ldg(segment.axes[axis].stop + pixel[axis]);
        at[axis] = tile.index[axis];
    }
    const auto place = [&] {
        return at[0] * segment.strides[0] + at[1] * segment.strides[1] + at[2] * segment.strides[2];
    };

    // the last of the tiles before this one that count here
    if (--at[INNER] < first[INNER]) {
        at[INNER] = stop[INNER] - 1;
        if (--at[MIDDLE] < first[MIDDLE]) {
            at[MIDDLE] = stop[MIDDLE] - 1;
            --at[OUTER];
        }
    }
    const bool none_before = at[OUTER] < first[OUTER];
    if (!none_before && place() >= segment.first) return;

#pragma unroll
    for (int axis = 0; axis < 3; ++axis) at[axis] = tile.index[axis];
    float sum = none_before ? -0.0f : *to;  // adding to -0 changes nothing, not even a -0
    do {
        float weight = 1.0f;
        int64 from = static_cast<int64>(place() - segment.first + segment.in_batch) *
                         job.n_channels + channel;
#pragma unroll
        for (int axis = 0; axis < 3; ++axis) {
            const AxisTable& table = segment.axes[axis];
            const int inside = pixel[axis] - static_cast<int>(__ldg(table.starts + at[axis]));
            weight = __fmul_rn(
                weight,
                __ldg(table.weights + static_cast<int64>(at[axis]) * job.patch[axis] + inside));
            from = from * job.patch[axis] + inside;
        }
        sum = __fadd_rn(sum, __fmul_rn(weight, linear(load<TILE_TYPE>(tiles, from))));
        if (++at[INNER] == stop[INNER]) {
            at[INNER] = first[INNER];
            if (++at[MIDDLE] == stop[MIDDLE]) {
                at[MIDDLE] = first[MIDDLE];
                ++at[OUTER];
            }
        }
    } while (at[OUTER] < stop[OUTER] && place() < segment.stop);
    *to = sum;
}

extern "C" __global__ __launch_bounds__(256)
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
        float* to = segment.slab + ((channel * segment.slab_size[0] + in_slab(segment, 0, z)) *
                                        segment.slab_size[1] +
                                    in_slab(segment, 1, y)) *
                                       segment.slab_size[2];
        const int64 from = ((static_cast<int64>(plane) * job->patch[0] + z - tile.start[0]) *
                                job->patch[1] + y - tile.start[1]) *
                               job->patch[2] - tile.start[2];
        for (int x = tile.low[2] + threadIdx.x; x < tile.high[2]; x += blockDim.x) {
            float* pixel = to + in_slab(segment, 2, x);
            if (segment.exclusive)
                *pixel = linear(load<TILE_TYPE>(tiles, from + x));
            else if (segment.slab_axis == 0)
                blend<0>(*job, segment, tile, tiles, channel, linear, z, y, x, pixel);
            else if (segment.slab_axis == 1)
                blend<1>(*job, segment, tile, tiles, channel, linear, z, y, x, pixel);
            else
                blend<2>(*job, segment, tile, tiles, channel, linear, z, y, x, pixel);
        }
    }
}

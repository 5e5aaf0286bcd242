// Mixed channels at several scales around a patch, and the channels at the native scale: the
// general path. NumPy twin: gpu_patch/_numpy/lateral_context.py.
//
// input (B, L, (Z), Y, X), target (B, C, (Z), Y, X) unless it is null; one launch makes both. Any
// patch size, number of scales and channels; every channel of every sample may come from another
// image, of another shape and data type. Two axes are three with a Z of size 1 that is not scaled.
//
// A block makes TILE_Y x TILE_X outputs of one plane of one scale of one sample, one per thread.
// What it reads is the tile's part of the window, extended by the taps' reach. It goes through it
// in chunks of CHUNK_Y x CHUNK_X columns along Z, so that shared memory does not depend on the
// size of anything. Per chunk: filter along Z and mix (plane), along Y (narrow), along X (result).
// The taps of a chunk stand in shared memory, too, and a thread takes several columns at once: as many
// loads are under way, and a tap serves them all.
// Summing chunk by chunk also keeps the rounding error of hundreds of taps small. A pixel is only
// ever multiplied by taps that reach it, so infinities and NaN stay where they belong.

constexpr int TILE_X = 32;
constexpr int TILE_Y = N_THREADS / TILE_X;
constexpr int CHUNK_X = 128;
constexpr int CHUNK_Y = 32;
constexpr int CHUNK_Z = 64;
constexpr int N_OFFSETS = CHUNK_Z + CHUNK_Y + CHUNK_X;
constexpr int TOGETHER = CHUNK_X / 32;  // columns of a thread

struct Job {
    int64 patch[3];
    int n_channels, n_scales, n_dims, mode, half_output, unused;
};

struct Fir {
    int first_tap, n_taps, offset, factor;
};

// The part of one axis that a tile reads.
struct Reach {
    int64 first;  // in the window, of the tile's first tap; may be outside, then it is mirrored
    int size;     // pixels
};

__device__ __forceinline__ Reach reach(const Fir& fir, int64 first_output, int n_outputs) {
    return {first_output * fir.factor + fir.offset, (n_outputs - 1) * fir.factor + fir.n_taps};
}

// The columns that a thread takes at once, so that as many loads are under way: 32 apart. Where a
// chunk has none left it takes the last one again, and nobody reads what comes out.
struct Columns {
    int at[TOGETHER];

    __device__ __forceinline__ explicit Columns(int n_x) {
#pragma unroll
        for (int k = 0; k < TOGETHER; ++k) at[k] = min(static_cast<int>(threadIdx.x % 32) + 32 * k, n_x - 1);
    }
};

// Filter a chunk along Z and add it, weighted, to the plane.
template <int TYPE>
__device__ __forceinline__ void add_chunk(float* plane, const Plane& from,
                                          const float* shift_at, const float* z_taps, bool first,
                                          const int64* z_offsets, int n_z,
                                          const int64* y_offsets, int n_y,
                                          const int64* x_offsets, int n_x) {
    typedef Stored<TYPE> Type;
    const Columns columns(n_x);
    int64 in_row[TOGETHER];
#pragma unroll
    for (int k = 0; k < TOGETHER; ++k) in_row[k] = x_offsets[columns.at[k]];
    const float shift = *shift_at, weight = from.source.weight;
    float* own = plane + threadIdx.x % 32;
#pragma unroll 1
    for (int y = threadIdx.x / 32; y < n_y; y += N_THREADS / 32) {
        float sums[TOGETHER] = {};
#pragma unroll 1
        for (int z = 0; z < n_z; ++z) {
            const int64 row = z_offsets[z] + y_offsets[y];
            typename Type::Wide raw[TOGETHER];
#pragma unroll
            for (int k = 0; k < TOGETHER; ++k) {
                int64 at = row + in_row[k];
                const void* pixels = from.origin(at);
                raw[k] = load_wide<typename Type::Wide>(
                    static_cast<const typename Type::Raw*>(pixels) + at);
            }
#pragma unroll
            for (int k = 0; k < TOGETHER; ++k)
                sums[k] = fmaf(z_taps[z], shifted(Type::to_float(raw[k]), shift), sums[k]);
        }
        // a thread comes back to its own pixels for every channel: no barrier in between
        float* to = own + y * CHUNK_X;
#pragma unroll
        for (int k = 0; k < TOGETHER; ++k)
            to[32 * k] = first ? weight * sums[k] : fmaf(weight, sums[k], to[32 * k]);
    }
}

__device__ __forceinline__ void add_chunk_any(float* plane, const Plane& from,
                                              const float* shift_at,
                                              const float* z_taps, bool first,
                                              const int64* z_offsets, int n_z,
                                              const int64* y_offsets, int n_y,
                                              const int64* x_offsets, int n_x) {
    switch (from.source.pixel_type) {
#define ADD(TYPE)                                                                               \
    case TYPE:                                                                                  \
        add_chunk<TYPE>(plane, from, shift_at, z_taps, first, z_offsets, n_z, y_offsets, n_y,   \
                        x_offsets, n_x);                                                        \
        break;
        ADD(BOOL)
        ADD(UINT8)
        ADD(INT8)
        ADD(UINT16)
        ADD(INT16)
        ADD(FLOAT16)
        ADD(FLOAT32)
#undef ADD
    }
}

// Part of a window: along Z, Y and X.
struct Chunk {
    int64 first_z, first_y, first_x;  // may be outside of the window, then they are mirrored
    int n_z, n_y, n_x;
};

// Element offsets of a chunk along all axes: window's edge and image's border folded into one map.
// Not inlined: its 64-bit divisions would take the registers of the loops around it.
__device__ __noinline__ void fill_offsets(int64* offsets, const Chunk chunk,
                                          const ChannelSource& source, const PageBox* box,
                                          const Job& job, int scale, int z_scale) {
    const Plane plane(source, box, nullptr);
    for (int number = threadIdx.x; number < N_OFFSETS; number += N_THREADS) {
        const int axis = number < CHUNK_Z ? 0 : number < CHUNK_Z + CHUNK_Y ? 1 : 2;
        const int i = number - (axis == 0 ? 0 : axis == 1 ? CHUNK_Z : CHUNK_Z + CHUNK_Y);
        if (i >= (axis == 0 ? chunk.n_z : axis == 1 ? chunk.n_y : chunk.n_x)) continue;
        const int64 first = axis == 0 ? chunk.first_z : axis == 1 ? chunk.first_y : chunk.first_x;
        const int own = axis == 0 ? z_scale : scale;
        const Axis<int64> map(source, axis, job.patch[axis], own, job.n_scales, job.mode);
        offsets[number] = plane.offset(axis, map(mirror(first + i, job.patch[axis] << own)));
    }
}

__device__ float downscaled(const Job& job, const Fir* __restrict__ firs,
                            const float* __restrict__ taps,
                            const ChannelSource* __restrict__ sources,
                            const PageBox* __restrict__ boxes, const int* __restrict__ slots,
                            const EpilogueRecord* __restrict__ record, int scale, int64 z, int64 y,
                            int64 x) {
    DYNAMIC_SHARED(int64, shared);
    int64* z_offsets = shared;
    int64* y_offsets = z_offsets + CHUNK_Z;
    int64* x_offsets = y_offsets + CHUNK_Y;
    float* shift_at = reinterpret_cast<float*>(x_offsets + CHUNK_X);  // the channel's; 8 bytes
    float* plane = shift_at + 2;                                      // [CHUNK_Y][CHUNK_X]
    float* narrow = plane + CHUNK_Y * CHUNK_X;                        // [TILE_Y][CHUNK_X]
    float* z_taps = narrow + TILE_Y * CHUNK_X;                        // of the chunk
    float* y_taps = z_taps + CHUNK_Z;  // [TILE_Y][CHUNK_Y], of a row's taps those in the chunk

    const int z_scale = job.n_dims == 3 ? scale : 0;
    const Fir fir = firs[scale], z_fir = firs[z_scale];
    const float* filter = taps + fir.first_tap;
    const float* z_filter = taps + z_fir.first_tap;
    const int n_tile_y = static_cast<int>(min(static_cast<int64>(TILE_Y), job.patch[1] - y));
    const int n_tile_x = static_cast<int>(min(static_cast<int64>(TILE_X), job.patch[2] - x));
    const Reach z_reach = reach(z_fir, z, 1);
    const Reach y_reach = reach(fir, y, n_tile_y);
    const Reach x_reach = reach(fir, x, n_tile_x);
    const int lane = threadIdx.x % TILE_X, warp = threadIdx.x / TILE_X;
    float* own_taps = y_taps + warp * CHUNK_Y;

    float result = 0.0f;
    for (int x_done = 0; x_done < x_reach.size; x_done += CHUNK_X) {
        const int n_x = min(CHUNK_X, x_reach.size - x_done);
        for (int y_done = 0; y_done < y_reach.size; y_done += CHUNK_Y) {
            const int n_y = min(CHUNK_Y, y_reach.size - y_done);
            // the rows that this warp's output row is made of
            const int row_first = warp * fir.factor - y_done;
            const int from_y = max(row_first, 0), to_y = min(row_first + fir.n_taps, n_y);
            for (int c = 0; c < job.n_channels; ++c) {
                const Plane from(sources[c], boxes + c, slots);
                for (int z_done = 0; z_done < z_reach.size; z_done += CHUNK_Z) {
                    const int n_z = min(CHUNK_Z, z_reach.size - z_done);
                    __syncthreads();  // nobody reads the last offsets, or the last plane, any more
                    fill_offsets(z_offsets,
                                 {z_reach.first + z_done, y_reach.first + y_done,
                                  x_reach.first + x_done, n_z, n_y, n_x},
                                 sources[c], boxes + c, job, scale, z_scale);
                    if (threadIdx.x < n_z) z_taps[threadIdx.x] = __ldg(z_filter + z_done + threadIdx.x);
                    if (lane >= from_y && lane < to_y)
                        own_taps[lane] = __ldg(filter + (lane - row_first));
#if EPILOGUE  // in shared memory: there is no register left for it
                    if (threadIdx.x == 0) *shift_at = input_shift(record + c);
#endif
                    __syncthreads();  // the offsets are there
                    add_chunk_any(plane, from, shift_at, z_taps,
                                  c == 0 && z_done == 0, z_offsets, n_z, y_offsets, n_y,
                                  x_offsets, n_x);
                }
            }
            __syncthreads();  // the plane is mixed
            if (warp < n_tile_y) {
                const Columns columns(n_x);
                float sums[TOGETHER] = {};
#pragma unroll 4
                for (int row = from_y; row < to_y; ++row)
#pragma unroll
                    for (int k = 0; k < TOGETHER; ++k)
                        sums[k] = fmaf(own_taps[row], plane[row * CHUNK_X + columns.at[k]], sums[k]);
#pragma unroll
                for (int k = 0; k < TOGETHER; ++k) {
                    float* at = narrow + lane + (warp * CHUNK_X + 32 * k);
                    *at = y_done == 0 ? sums[k] : *at + sums[k];
                }
            }
        }
        __syncthreads();  // the rows are filtered along Y
        if (warp < n_tile_y && lane < n_tile_x) {
            // taps that reach the chunk from any column of the tile: the same for all threads
            const int first = max(-((n_tile_x - 1) * fir.factor - x_done), 0);
            const int stop = min(n_x + x_done, fir.n_taps), column = lane * fir.factor - x_done;
            float sum = 0.0f;
#pragma unroll 4
            for (int k = first; k < stop; ++k)
                if (static_cast<unsigned>(column + k) < static_cast<unsigned>(n_x))
                    sum = fmaf(__ldg(filter + k), narrow[warp * CHUNK_X + column + k], sum);
            result += sum;
        }
    }
    return result;
}

extern "C" __global__ __launch_bounds__(N_THREADS, 2)
void lateral_context(const Job* __restrict__ job, const Fir* __restrict__ firs,
                     const float* __restrict__ taps, const ChannelSource* __restrict__ all_sources,
                     void* __restrict__ input,
                     void* __restrict__ target PAGES_PARAMETER EPILOGUE_PARAMETER) {
    const int64 depth = job->patch[0], height = job->patch[1], width = job->patch[2];
    const int64 tiles_x = (width + TILE_X - 1) / TILE_X, tiles_y = (height + TILE_Y - 1) / TILE_Y;
    // the largest scale of a sample first: it takes longest, and the smaller ones find its pixels
    // in the cache
    int64 rest = blockIdx.x;
    const int64 tile_x = rest % tiles_x * TILE_X;
    rest /= tiles_x;
    const int64 tile_y = rest % tiles_y * TILE_Y;
    rest /= tiles_y;
    const int64 z = rest % depth;
    rest /= depth;
    const int scale = job->n_scales - 1 - static_cast<int>(rest % job->n_scales);
    const int64 sample = rest / job->n_scales;

    const int n_channels = job->n_channels;
    const ChannelSource* sources = all_sources + sample * n_channels;
    const EpilogueRecord* record = RECORDS + sample * n_channels;
    const int64 y = tile_y + threadIdx.x / TILE_X, x = tile_x + threadIdx.x % TILE_X;

    float result = 0.0f;
    if (scale > 0)
        result = downscaled(*job, firs, taps, sources, PAGES_OF(sample * n_channels), record, scale,
                            z, tile_y, tile_x);
    // only now: to keep it meanwhile would take registers
    if (y >= height || x >= width) return;
    const int64 at = place(record, z, y, x, height, width), volume = depth * height * width;
    if (scale > 0) {
        store(input, (sample * job->n_scales + scale) * volume + at, finished_input(record, result),
              job->half_output);
        return;
    }
    float mixed = 0.0f;
    for (int c = 0; c < n_channels; ++c) {
        const ChannelSource& source = sources[c];
        const Axis<int64> z_axis(source, 0, depth, 0, job->n_scales, job->mode);
        const Axis<int64> y_axis(source, 1, height, 0, job->n_scales, job->mode);
        const Axis<int64> x_axis(source, 2, width, 0, job->n_scales, job->mode);
        const Plane plane(source, PAGES_OF(sample * n_channels + c));
        int64 offset = plane.offset(0, z_axis(z)) + plane.offset(1, y_axis(y)) +
                       plane.offset(2, x_axis(x));
        const void* pixels = plane.origin(offset);
        const float value = load_any(source.pixel_type, pixels, offset);
        if (target)
            store(target, (sample * n_channels + c) * volume + at, finished(record + c, value),
                  job->half_output);
        // no fused multiply-add at the native scale: it must equal NumPy's to the last bit
        const float product =
            mul_rn(source.weight, shifted(value, input_shift(record + c)));
        mixed = c == 0 ? product : add_rn(mixed, product);
    }
    store(input, sample * job->n_scales * volume + at, finished_input(record, mixed),
          job->half_output);
}

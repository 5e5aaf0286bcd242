// Patches at their native scale, (B, C, (Z), Y, X). NumPy twin: gpu_patch/_numpy/gather.py.
//
// A block is 8 warps; a warp copies one row of a patch at a time, a block ROWS of them:
// grid = (ceil(Z * Y / ROWS) * B * C), block = (32, 8). A row's place along Z and Y is found once
// per thread, and most columns are inside the image, where the index map is a comparison.

constexpr int ROWS = 16;

struct GatherJob {
    int64 patch[3];
    int64 n_row_groups;  // blocks per patch
    int cut_scale;       // of upstream's cut
    int mode;
    int half_output;
    int unused;
};

#ifdef INTEGER_BYTES  // of the output, which then holds integers, copied exactly
template <int BYTES> struct IntegerOf;
template <> struct IntegerOf<1> { typedef unsigned char Type; };
template <> struct IntegerOf<2> { typedef unsigned short Type; };
template <> struct IntegerOf<4> { typedef unsigned int Type; };
template <> struct IntegerOf<8> { typedef unsigned long long Type; };
typedef IntegerOf<INTEGER_BYTES>::Type Integer;

// Wider types get zeros or the sign in front; types are never narrower.
__device__ __forceinline__ Integer load_integer(int pixel_type, const void* pixels, int64 at) {
    switch (pixel_type) {
    case BOOL: return static_cast<const unsigned char*>(pixels)[at] != 0;
    case UINT8: return static_cast<const unsigned char*>(pixels)[at];
    case INT8: return static_cast<const signed char*>(pixels)[at];
    case UINT16: return static_cast<const unsigned short*>(pixels)[at];
    case INT16: return static_cast<const short*>(pixels)[at];
    case INT32: return static_cast<const int*>(pixels)[at];
    case UINT32: return static_cast<const unsigned int*>(pixels)[at];
    default: return static_cast<const unsigned long long*>(pixels)[at];
    }
}
#endif

// One pixel of the output; null is zero.
__device__ __forceinline__ void copy(void* out, int64 to, int pixel_type, const void* pixels,
                                     int64 at, const EpilogueRecord* record, bool half) {
#ifdef INTEGER_BYTES
    static_cast<Integer*>(out)[to] = pixels ? load_integer(pixel_type, pixels, at) : 0;
#else
    const float value = pixels ? load_any(pixel_type, pixels, at) : 0.0f;
    store(out, to, finished(record, value), half);
#endif
}

// left to itself the compiler spills, to have more blocks at a time
extern "C" __global__ __launch_bounds__(256, 2)
void gather(const GatherJob* __restrict__ job, const ChannelSource* __restrict__ sources,
            void* __restrict__ out PAGES_PARAMETER EPILOGUE_PARAMETER) {
    const int64 patch_index = blockIdx.x / job->n_row_groups;
    const int64 first_row = blockIdx.x % job->n_row_groups * ROWS;
    const int64 n_rows = job->patch[0] * job->patch[1], n_columns = job->patch[2];
    const int64 last_row = min(first_row + ROWS, n_rows);

    const ChannelSource& source = sources[patch_index];
    const Axis<int64> z_axis(source, 0, job->patch[0], 0, job->cut_scale, job->mode);
    const Axis<int64> y_axis(source, 1, job->patch[1], 0, job->cut_scale, job->mode);
    const Axis<int64> x_axis(source, 2, n_columns, 0, job->cut_scale, job->mode);

    const Plane plane(source, PAGES_OF(patch_index));
    for (int64 row = first_row + threadIdx.y; row < last_row; row += blockDim.y) {
        const int64 z = z_axis(row / job->patch[1]), y = y_axis(row % job->patch[1]);
        const bool has_pixels = z >= 0 && y >= 0;  // always so, except under "zero"
        PlaneRow from(plane, has_pixels ? plane.offset(0, z) + plane.offset(1, y) : 0);
#if EPILOGUE
        const EpilogueRecord* record = records + patch_index;
        const int64 out_plane = patch_index * job->patch[0] + row / job->patch[1];
        const int64 out_row =
            place(record, out_plane, row % job->patch[1], int64(0), job->patch[1], n_columns);
        const int64 step = record->along_x;
#else
        const int64 out_row = (patch_index * n_rows + row) * n_columns;
        constexpr const EpilogueRecord* record = nullptr;
        constexpr int64 step = 1;
#endif
        for (int64 column = threadIdx.x; column < n_columns; column += blockDim.x) {
            const int64 x = x_axis(column);
            int64 at = 0;
            const bool inside = has_pixels && x >= 0;
            const void* pixels = inside ? from.origin(x, at) : nullptr;
            copy(out, out_row + column * step, source.pixel_type, pixels, at, record,
                 job->half_output);
        }
    }
}

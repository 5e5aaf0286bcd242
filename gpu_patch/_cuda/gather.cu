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
            float value = 0.0f;
            if (has_pixels && x >= 0) {
                int64 at;
                const void* pixels = from.origin(x, at);
                value = load_any(source.pixel_type, pixels, at);
            }
            store(out, out_row + column * step, finished(record, value), job->half_output);
        }
    }
}

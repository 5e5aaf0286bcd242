// Boxes of pixels from many places to many places, in one launch. NumPy twin:
// gpu_patch/_numpy/assemble.py.
//
// A block is 8 warps; a warp copies one row of a box at a time, a block ROWS of them. How many
// blocks a box takes depends on its size, so a block looks up which box it is of.

constexpr int ROWS = 32;

// Axes are C, Z, Y, X.
struct BoxCopy {
    const unsigned char* source;  // first pixel; null for zeros, with steps of 0
    unsigned char* destination;
    int64 size[4];
    int64 source_step[4];  // bytes from a pixel to the next; negative where the image is mirrored
    int64 destination_step[3];  // along X they follow each other
    int64 first_block;
    int64 pixel_bytes;
};

template <class Pixel>
__device__ __forceinline__ void copy_row(const unsigned char* from, unsigned char* to, int64 n,
                                         int64 step) {
    for (int64 x = threadIdx.x; x < n; x += blockDim.x)
        reinterpret_cast<Pixel*>(to)[x] =
            from ? *reinterpret_cast<const Pixel*>(from + x * step) : Pixel(0);
}

extern "C" __global__ __launch_bounds__(256)
void assemble(const int64* __restrict__ n_copies, const BoxCopy* __restrict__ copies) {
    // the last box that begins at this block or before it
    int64 found = 0, end = *n_copies;
    while (end - found > 1) {
        const int64 middle = (found + end) / 2;
        if (copies[middle].first_block <= blockIdx.x)
            found = middle;
        else
            end = middle;
    }
    const BoxCopy& copy = copies[found];
    const int64 first_row = (blockIdx.x - copy.first_block) * ROWS;
    const int64 last_row = min(first_row + ROWS, copy.size[0] * copy.size[1] * copy.size[2]);
    for (int64 row = first_row + threadIdx.y; row < last_row; row += blockDim.y) {
        const int64 c = row / (copy.size[1] * copy.size[2]);
        const int64 z = row / copy.size[2] % copy.size[1], y = row % copy.size[2];
        const unsigned char* from = copy.source + c * copy.source_step[0] +
                                    z * copy.source_step[1] + y * copy.source_step[2];
        unsigned char* to = copy.destination + c * copy.destination_step[0] +
                            z * copy.destination_step[1] + y * copy.destination_step[2];
        if (copy.pixel_bytes == 1)
            copy_row<unsigned char>(from, to, copy.size[3], copy.source_step[3]);
        else if (copy.pixel_bytes == 2)
            copy_row<unsigned short>(from, to, copy.size[3], copy.source_step[3]);
        else if (copy.pixel_bytes == 8)
            copy_row<unsigned long long>(from, to, copy.size[3], copy.source_step[3]);
        else
            copy_row<unsigned int>(from, to, copy.size[3], copy.source_step[3]);
    }
}

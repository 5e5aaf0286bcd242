// Mixed channels at several scales around a patch: as lateral_context.cu, compiled for one case.
//
// Constants: N_DIMS, PATCH_Z, PATCH_Y, PATCH_X, N_SCALES, N_CHANNELS, N_PLACES (1 where a sample's
// channels share a place, else N_CHANNELS), PIXEL_TYPE, MODE, HALF_OUTPUT; and, of the host's
// choice, TILE_ROWS, TILE_X, TILE_Z, N_THREADS, SHARED_BYTES. Images of any shapes below 2^31
// pixels, one data type.
//
// A block makes a tile of one scale of one sample. A thread takes columns of the window, mixes the
// channels as it loads them (neighbours load neighbours) and filters along Y in registers: 3 or 4
// outputs of a FIR are alive at a time. The rows that are left go to shared memory, and threads
// filter them along X. In 3D a block goes through the slices of its tile in the same way, with 3
// or 4 planes of outputs alive. Shared memory holds a row split by phase, (x mod f, x / f): then
// reading every f-th pixel is reading neighbours, and no two threads of a warp meet in a bank.

__device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
__device__ constexpr int smaller(int a, int b) { return a < b ? a : b; }

typedef Stored<PIXEL_TYPE>::Raw Raw;

template <int SCALE> struct Taps;
template <> struct Taps<0> {
    static constexpr int COUNT = 1, OFFSET = 0;
    static __device__ __forceinline__ float at(int) { return 1.0f; }
};
// in constant memory: an index known at compile time makes the tap an operand of the arithmetic
#define DEFINE_TAPS(SCALE)                                                                      \
    __constant__ float taps_##SCALE[] = {FIR_TAPS_##SCALE};                                     \
    template <> struct Taps<SCALE> {                                                            \
        static constexpr int COUNT = sizeof(taps_##SCALE) / sizeof(float);                      \
        static constexpr int OFFSET = FIR_OFFSET_##SCALE;                                       \
        static __device__ __forceinline__ float at(int k) { return taps_##SCALE[k]; }           \
    };
#if N_SCALES > 1
DEFINE_TAPS(1)
#endif
#if N_SCALES > 2
DEFINE_TAPS(2)
#endif
#if N_SCALES > 3
DEFINE_TAPS(3)
#endif
#if N_SCALES > 4
DEFINE_TAPS(4)
#endif

// Sizes of a tile and of what it reads; specialised.py computes the same.
template <int SCALE> struct Level {
    static constexpr int FACTOR = 1 << SCALE, N_TAPS = Taps<SCALE>::COUNT;
    static constexpr int Z_FACTOR = N_DIMS == 3 ? FACTOR : 1, Z_TAPS = N_DIMS == 3 ? N_TAPS : 1;
    static constexpr int Z_OFFSET = N_DIMS == 3 ? Taps<SCALE>::OFFSET : 0;
    // 2D: the smaller the factor, the more rows, so that every block reads about as much
    static constexpr int TILE_Y =
        smaller(N_DIMS == 3 ? TILE_ROWS : TILE_ROWS << (N_SCALES - 1 - SCALE), PATCH_Y);
    static constexpr int TILES_Z = ceil_div(PATCH_Z, TILE_Z), TILES_Y = ceil_div(PATCH_Y, TILE_Y);
    static constexpr int TILES_X = ceil_div(PATCH_X, TILE_X);
    static constexpr int TILES = TILES_Z * TILES_Y * TILES_X;
    static constexpr int LIVE = ceil_div(N_TAPS, FACTOR);  // outputs that a pixel contributes to
    static constexpr int N_SLICES = (TILE_Z - 1) * Z_FACTOR + Z_TAPS;
    static constexpr int N_ROWS = (TILE_Y - 1 + LIVE) * FACTOR;  // rounded up to whole groups
    static constexpr int N_COLUMNS = (TILE_X - 1) * FACTOR + N_TAPS;
    // 32 neighbours lie in FACTOR phases at 32 / FACTOR places each: an odd multiple of 32 / FACTOR
    // between phases puts them into 32 banks
    static constexpr int BANKS = 32 / FACTOR;
    static constexpr int PHASE =
        (ceil_div(N_COLUMNS, FACTOR) + BANKS - 1) / (2 * BANKS) * 2 * BANKS + BANKS;
    static constexpr int ROW = FACTOR * PHASE;
    static constexpr int NARROW = SCALE == 0 ? 0 : TILE_Y * ROW;
    static constexpr int N_OFFSETS = N_PLACES * (N_SLICES + N_ROWS + N_COLUMNS);
    static_assert(PHASE * FACTOR >= N_COLUMNS, "a row must fit");
    static_assert(4 * (NARROW + N_OFFSETS) <= SHARED_BYTES, "SHARED_BYTES as in specialised.py");
};

// What a block needs in shared memory.
template <int SCALE> struct Tile {
    typedef Level<SCALE> L;
    float* narrow;  // [TILE_Y][FACTOR][PHASE]: rows filtered along Y
    int* slices;    // [N_PLACES][N_SLICES]: element offsets, window's edge and image's border
    int* rows;      // [N_PLACES][N_ROWS]    folded into them
    int* columns;   // [N_PLACES][N_COLUMNS]

    __device__ __forceinline__ explicit Tile(float* shared) {
        narrow = shared;
        slices = reinterpret_cast<int*>(shared + L::NARROW);
        rows = slices + N_PLACES * L::N_SLICES;
        columns = rows + N_PLACES * L::N_ROWS;
    }
};

// Not inlined: its divisions would take the registers of the loops after it.
__device__ __noinline__ void fill_offsets(int* offsets, int count, const Source& source,
                                          int axis, int patch_size, int scale, int first,
                                          int stride) {
    const Axis<int> map(source, axis, patch_size, scale, N_SCALES, MODE);
    for (int i = threadIdx.x; i < count; i += N_THREADS)
        offsets[i] = map(mirror(first + i, patch_size << scale)) * stride;
}

template <int SCALE>
__device__ __forceinline__ void fill_tile(const Tile<SCALE>& tile, const Source* sources,
                                          int first_z, int first_y, int first_x) {
    typedef Level<SCALE> L;
    constexpr int Z_SCALE = N_DIMS == 3 ? SCALE : 0, OFFSET = Taps<SCALE>::OFFSET;
    for (int p = 0; p < N_PLACES; ++p) {
        const Source& source = sources[p];
        const int height = static_cast<int>(source.size[1]);
        const int width = static_cast<int>(source.size[2]);
        fill_offsets(tile.slices + p * L::N_SLICES, L::N_SLICES, source, 0, PATCH_Z, Z_SCALE,
                     first_z * L::Z_FACTOR + L::Z_OFFSET, height * width);
        fill_offsets(tile.rows + p * L::N_ROWS, L::N_ROWS, source, 1, PATCH_Y, SCALE,
                     first_y * L::FACTOR + OFFSET, width);
        fill_offsets(tile.columns + p * L::N_COLUMNS, L::N_COLUMNS, source, 2, PATCH_X, SCALE,
                     first_x * L::FACTOR + OFFSET, 1);
    }
}

// Mix the channels of one slice and filter it along Y.
template <int SCALE>
__device__ __forceinline__ void filter_columns(const Tile<SCALE>& tile,
                                               const Raw* const (&pixels)[N_CHANNELS],
                                               const float (&weights)[N_CHANNELS], int slice) {
    typedef Level<SCALE> L;
    constexpr int FACTOR = L::FACTOR, LIVE = L::LIVE;
    for (int i = threadIdx.x; i < L::N_COLUMNS; i += N_THREADS) {
        const Raw* column[N_CHANNELS];
#pragma unroll
        for (int c = 0; c < N_CHANNELS; ++c) {
            const int p = N_PLACES == 1 ? 0 : c;
            column[c] = pixels[c] + (tile.slices[p * L::N_SLICES + slice] +
                                     tile.columns[p * L::N_COLUMNS + i]);
        }
        float live[LIVE];  // live[a] is output row group - a
#pragma unroll
        for (int a = 0; a < LIVE; ++a) live[a] = 0.0f;
        float* to = tile.narrow + i % FACTOR * L::PHASE + i / FACTOR;
#pragma unroll 1
        for (int group = 0; group < L::TILE_Y - 1 + LIVE; ++group) {
#pragma unroll
            for (int r = 0; r < FACTOR; ++r) {
                int row[N_PLACES];
#pragma unroll
                for (int p = 0; p < N_PLACES; ++p)
                    row[p] = tile.rows[p * L::N_ROWS + group * FACTOR + r];
                float mixed = 0.0f;
#pragma unroll
                for (int c = 0; c < N_CHANNELS; ++c) {
                    const float value = Stored<PIXEL_TYPE>::to_float(
                        __ldg(column[c] + row[N_PLACES == 1 ? 0 : c]));
                    mixed = c == 0 ? weights[0] * value : fmaf(weights[c], value, mixed);
                }
#pragma unroll
                for (int a = 0; a < LIVE; ++a)  // a pixel meets only the taps that reach it
                    if (a * FACTOR + r < L::N_TAPS)
                        live[a] = fmaf(Taps<SCALE>::at(a * FACTOR + r), mixed, live[a]);
            }
            if (group >= LIVE - 1) to[(group - (LIVE - 1)) * L::ROW] = live[LIVE - 1];
#pragma unroll
            for (int a = LIVE - 1; a > 0; --a) live[a] = live[a - 1];
            live[0] = 0.0f;
        }
    }
}

// One output of a row in shared memory.
template <int SCALE>
__device__ __forceinline__ float filter_row(const float* row) {
    typedef Level<SCALE> L;
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < L::N_TAPS; ++k)
        sum = fmaf(Taps<SCALE>::at(k), row[k % L::FACTOR * L::PHASE + k / L::FACTOR], sum);
    return sum;
}

struct Place {
    int z, y, x;
    __device__ __forceinline__ bool in_patch() const {
        return z < PATCH_Z && y < PATCH_Y && x < PATCH_X;
    }
    __device__ __forceinline__ int index() const { return (z * PATCH_Y + y) * PATCH_X + x; }
};

template <int SCALE>
__device__ __forceinline__ void make_downscaled(const Tile<SCALE>& tile,
                                                const Raw* const (&pixels)[N_CHANNELS],
                                                const float (&weights)[N_CHANNELS], Place first,
                                                void* input, int64 input_start) {
    typedef Level<SCALE> L;
#if N_DIMS == 2
    filter_columns<SCALE>(tile, pixels, weights, 0);
    __syncthreads();  // the rows are complete
    for (int i = threadIdx.x; i < L::TILE_Y * TILE_X; i += N_THREADS) {
        const Place at = {0, first.y + i / TILE_X, first.x + i % TILE_X};
        if (at.in_patch())
            store(input, input_start + at.index(),
                  filter_row<SCALE>(tile.narrow + i / TILE_X * L::ROW + i % TILE_X), HALF_OUTPUT);
    }
#else
    constexpr int LIVE = L::LIVE, N_OWN = ceil_div(L::TILE_Y * TILE_X, N_THREADS);
    float live[LIVE][N_OWN];  // live[a] is output plane slice / FACTOR - a
#pragma unroll
    for (int a = 0; a < LIVE; ++a)
#pragma unroll
        for (int own = 0; own < N_OWN; ++own) live[a][own] = 0.0f;
#pragma unroll 1
    for (int slice = 0; slice < L::N_SLICES; ++slice) {
        filter_columns<SCALE>(tile, pixels, weights, slice);
        __syncthreads();  // the slice's rows are complete
        const int r = slice % L::FACTOR, z = slice / L::FACTOR - (LIVE - 1);
#pragma unroll
        for (int own = 0; own < N_OWN; ++own) {
            const int i = threadIdx.x + own * N_THREADS;
            if (i >= L::TILE_Y * TILE_X) continue;
            const float value =
                filter_row<SCALE>(tile.narrow + i / TILE_X * L::ROW + i % TILE_X);
#pragma unroll
            for (int a = 0; a < LIVE; ++a)
                if (a * L::FACTOR + r < L::N_TAPS)
                    live[a][own] = fmaf(Taps<SCALE>::at(a * L::FACTOR + r), value, live[a][own]);
            const Place at = {first.z + z, first.y + i / TILE_X, first.x + i % TILE_X};
            // its last tap is in this slice
            if (r == (L::N_TAPS - 1) % L::FACTOR && z >= 0 && at.in_patch())
                store(input, input_start + at.index(), live[LIVE - 1][own], HALF_OUTPUT);
        }
        if (r == L::FACTOR - 1) {
#pragma unroll
            for (int own = 0; own < N_OWN; ++own) {
#pragma unroll
                for (int a = LIVE - 1; a > 0; --a) live[a][own] = live[a - 1][own];
                live[0][own] = 0.0f;
            }
        }
        __syncthreads();  // nobody reads the rows any more
    }
#endif
}

// The native scale, mixed and unmixed.
__device__ __forceinline__ void make_native(const Tile<0>& tile,
                                            const Raw* const (&pixels)[N_CHANNELS],
                                            const float (&weights)[N_CHANNELS], Place first,
                                            void* input, int64 input_start, void* target,
                                            int64 target_start) {
    typedef Level<0> L;
    for (int i = threadIdx.x; i < TILE_Z * L::TILE_Y * TILE_X; i += N_THREADS) {
        const int x = i % TILE_X, y = i / TILE_X % L::TILE_Y, z = i / TILE_X / L::TILE_Y;
        const Place at = {first.z + z, first.y + y, first.x + x};
        if (!at.in_patch()) continue;
        float mixed = 0.0f;
#pragma unroll
        for (int c = 0; c < N_CHANNELS; ++c) {
            const int p = N_PLACES == 1 ? 0 : c;
            const int offset = tile.slices[p * L::N_SLICES + z] + tile.rows[p * L::N_ROWS + y] +
                               tile.columns[p * L::N_COLUMNS + x];
            const float value = Stored<PIXEL_TYPE>::to_float(__ldg(pixels[c] + offset));
            if (target)
                store(target, target_start + c * (PATCH_Z * PATCH_Y * PATCH_X) + at.index(), value,
                      HALF_OUTPUT);
            // no fused multiply-add at the native scale: it must equal NumPy's to the last bit
            const float product = __fmul_rn(weights[c], value);
            mixed = c == 0 ? product : __fadd_rn(mixed, product);
        }
        store(input, input_start + at.index(), mixed, HALF_OUTPUT);
    }
}

template <int SCALE>
__device__ __forceinline__ void make_tile(const Source* __restrict__ all_sources, int64 sample,
                                          int tile_index, void* __restrict__ input,
                                          void* __restrict__ target) {
    typedef Level<SCALE> L;
    if constexpr (SCALE > 0)
        if (tile_index >= L::TILES)
            return make_tile<SCALE - 1>(all_sources, sample, tile_index - L::TILES, input, target);

    DYNAMIC_SHARED(float, shared);
    const Tile<SCALE> tile(shared);
    const Source* sources = all_sources + sample * N_CHANNELS;
    const Place first = {tile_index / (L::TILES_Y * L::TILES_X) * TILE_Z,
                         tile_index / L::TILES_X % L::TILES_Y * L::TILE_Y,
                         tile_index % L::TILES_X * TILE_X};
    const Raw* pixels[N_CHANNELS];
    float weights[N_CHANNELS];
#pragma unroll
    for (int c = 0; c < N_CHANNELS; ++c) {
        pixels[c] = static_cast<const Raw*>(sources[c].pixels);
        weights[c] = sources[c].weight;
    }
    fill_tile<SCALE>(tile, sources, first.z, first.y, first.x);
    __syncthreads();  // the offsets are there

    constexpr int64 VOLUME = PATCH_Z * PATCH_Y * PATCH_X;
    const int64 input_start = (sample * N_SCALES + SCALE) * VOLUME;
    if constexpr (SCALE > 0)
        make_downscaled<SCALE>(tile, pixels, weights, first, input, input_start);
    else
        make_native(tile, pixels, weights, first, input, input_start, target,
                    sample * N_CHANNELS * VOLUME);
}

template <int SCALE> __device__ constexpr int tiles_up_to() {
    if constexpr (SCALE > 0)
        return Level<SCALE>::TILES + tiles_up_to<SCALE - 1>();
    else
        return Level<0>::TILES;
}

// grid = samples x tiles; a sample's largest scale comes first, since it takes longest and leaves
// the pixels of the smaller ones in the cache.
// Asked for few blocks at a time, the compiler does not spill where channels have own places.
#if N_PLACES > 2
#define BOUNDS __launch_bounds__(N_THREADS, 2)
#else
#define BOUNDS __launch_bounds__(N_THREADS)
#endif
extern "C" __global__ BOUNDS void specialised(const Source* __restrict__ sources,
                                              void* __restrict__ input,
                                              void* __restrict__ target) {
    constexpr int N_TILES = tiles_up_to<N_SCALES - 1>();
    make_tile<N_SCALES - 1>(sources, blockIdx.x / N_TILES, blockIdx.x % N_TILES, input, target);
}

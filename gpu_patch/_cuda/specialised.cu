// Mixed channels at several scales around a patch: as lateral_context.cu, compiled for one case.
//
// Constants: N_DIMS, PATCH_Z, PATCH_Y, PATCH_X, N_SCALES, N_CHANNELS, N_PLACES (1 where a sample's
// channels share a place, else N_CHANNELS), PIXEL_TYPE, MODE, HALF_OUTPUT; and, of the host's
// choice, TILE_ROWS, TILE_X, TILE_Z, N_THREADS, SHARED_BYTES, LOADS_AHEAD, N_RECORDS. Images of any
// shapes below 2^30 pixels, one data type.
//
// A block makes a tile of one scale of one sample. A thread takes columns of the window, mixes the
// channels as it loads them (neighbours load neighbours) and filters along Y in registers: 3 or 4
// outputs of a FIR are alive at a time. The rows that are left go to shared memory, and threads
// filter them along X. In 3D a block goes through the slices of its tile in the same way, with 3
// or 4 planes of outputs alive. Shared memory holds a row split by phase, (x mod f, x / f): then
// reading every f-th pixel is reading neighbours, and no two threads of a warp meet in a bank. In
// writing they do, which costs half as much again of these few stores, and no time (model).
//
// Instructions limit this, not arithmetic, and most of them would be addresses. So where columns
// are neighbours in the images too (the span), a thread takes several, a constant apart: one
// address serves them all. Columns outside the span that repeat one inside are copied.

__device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
__device__ constexpr int smaller(int a, int b) { return a < b ? a : b; }
__device__ constexpr int larger(int a, int b) { return a < b ? b : a; }

__device__ constexpr int power_of_2_from(int n) {
    int power = 8;
    while (power < n && power < 32) power *= 2;
    return power;
}

// How many rows to ask for before one is used: a power of 2, so that they have fixed registers.
__device__ constexpr int rows_ahead(int loads_per_row, int most) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 750
    constexpr int LOADS = N_CHANNELS > 2 || PAGED ? LOADS_AHEAD / 2 : LOADS_AHEAD;  // or registers spill
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
    constexpr bool IS_WIDE = sizeof(Stored<PIXEL_TYPE>::Raw) == 4;  // they would spill, too
    constexpr int LOADS = IS_WIDE || PAGED ? LOADS_AHEAD / 2 : LOADS_AHEAD;
#else
    constexpr int LOADS = PAGED ? LOADS_AHEAD / 2 : LOADS_AHEAD;  // each has an address of its own
#endif
    int rows = 1;
    while (2 * rows <= most && 2 * rows * loads_per_row <= LOADS) rows *= 2;
    return rows;
}

typedef Stored<PIXEL_TYPE>::Raw Raw;
typedef Stored<PIXEL_TYPE>::Wide Wide;

// What a channel of a sample is made from: `short_record` in table.py.
struct Record {
    const Raw* pixels;   // of that image sample and image channel
    int size[N_DIMS];    // of the image
    int coords[N_DIMS];  // first pixel of the patch
    float weight;
    int orientation;
#if EPILOGUE
    float shift, scale, offset;       // as EpilogueRecord has them
    float input_shift, input_scale, input_offset;
#endif
    __device__ __forceinline__ int length(int axis) const {
        return axis < 3 - N_DIMS ? 1 : size[axis - (3 - N_DIMS)];
    }
    __device__ __forceinline__ int first(int axis) const {
        return axis < 3 - N_DIMS ? 0 : coords[axis - (3 - N_DIMS)];
    }
};

// The records of a batch are a parameter themselves where there are at most N_RECORDS of them, so
// that nothing is uploaded; in the device's memory where N_RECORDS is 0.
#if N_RECORDS
struct Table {
    Record records[N_RECORDS];
};
#define TABLE const __grid_constant__ Table table
#define RECORDS_OF_TABLE table.records
#else
#define TABLE const Record* __restrict__ table
#define RECORDS_OF_TABLE table
#endif

#if HALF_OUTPUT
typedef unsigned short Output;
__device__ __forceinline__ Output to_output(float value) { return float_to_half(value); }
#else
typedef float Output;
__device__ __forceinline__ Output to_output(float value) { return value; }
#endif

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
    // 2D: the smaller the factor, the more strips of rows, so that every block reads about as
    // much, and narrow windows have work for all threads
    static constexpr int STRIPS = N_DIMS == 3 ? 1 : 1 << (N_SCALES - 1 - SCALE);
    static constexpr int TILE_Y = smaller(TILE_ROWS * STRIPS, PATCH_Y);
    static constexpr int TILES_Z = ceil_div(PATCH_Z, TILE_Z), TILES_Y = ceil_div(PATCH_Y, TILE_Y);
    static constexpr int TILES_X = ceil_div(PATCH_X, TILE_X);
    static constexpr int TILES = TILES_Z * TILES_Y * TILES_X;
    static constexpr int LIVE = ceil_div(N_TAPS, FACTOR);  // outputs that a pixel contributes to
    static constexpr int N_SLICES = (TILE_Z - 1) * Z_FACTOR + Z_TAPS;
    // rounded up to whole groups, of which the first rows of one more are asked for
    static constexpr int N_ROWS = (TILE_Y + LIVE) * FACTOR;
    static constexpr int N_COLUMNS = (TILE_X - 1) * FACTOR + N_TAPS;
    static constexpr int LANES = N_THREADS / STRIPS;  // threads that share a strip
    // columns that a thread takes at once: as many as there are for it and registers hold
    static constexpr int TOGETHER = larger(
        1, smaller(smaller(4, 8 / N_CHANNELS), smaller(N_COLUMNS, PATCH_X * FACTOR) / LANES));
    // threads that share the columns which are left of a window inside its images
    static constexpr int FEW = smaller(LANES, power_of_2_from(N_COLUMNS % (TOGETHER * LANES)));
    // 32 neighbours lie in FACTOR phases at 32 / FACTOR places each: an odd multiple of 32 / FACTOR
    // between phases puts them into 32 banks
    static constexpr int BANKS = 32 / FACTOR;
    static constexpr int PHASE =
        (ceil_div(N_COLUMNS, FACTOR) + BANKS - 1) / (2 * BANKS) * 2 * BANKS + BANKS;
    static constexpr int ROW = FACTOR * PHASE;
    static constexpr int NARROW = SCALE == 0 ? 0 : TILE_Y * ROW;
#if PAGED
    static constexpr int N_OFFSETS = N_PLACES * (2 * N_SLICES + 2 * N_ROWS + N_COLUMNS);
#else
    static constexpr int N_OFFSETS = N_PLACES * (N_SLICES + N_ROWS);
#endif
    static_assert(PHASE * FACTOR >= N_COLUMNS, "a row must fit");
    static_assert(4 * (NARROW + N_OFFSETS) <= SHARED_BYTES, "SHARED_BYTES as in specialised.py");
};

// Of a slice in pixels, of a row in bytes. Where images are in pages, with the page in the upper half.
#if PAGED
typedef int64 Offset;
#else
typedef unsigned Offset;
#endif

// What a block needs in shared memory.
template <int SCALE> struct Tile {
    typedef Level<SCALE> L;
    float* narrow;   // [TILE_Y][FACTOR][PHASE]: rows filtered along Y
    Offset* slices;  // [N_PLACES][N_SLICES]: window's edge and image's border
    Offset* rows;    // [N_PLACES][N_ROWS]    folded into them
#if PAGED
    unsigned* columns;  // [N_PLACES][N_COLUMNS]: a page, and a pixel of it in its x_bits
    const PageBox* boxes;
    const int* slots;
#endif

    __device__ __forceinline__ Tile(float* shared, const PageBox* boxes_, const int* slots_) {
        narrow = shared;
        slices = reinterpret_cast<Offset*>(shared + L::NARROW);
        rows = slices + N_PLACES * L::N_SLICES;
#if PAGED
        columns = reinterpret_cast<unsigned*>(rows + N_PLACES * L::N_ROWS);
        boxes = boxes_, slots = slots_;
#endif
    }
    __device__ __forceinline__ const PageBox* box(int place) const {
#if PAGED
        return boxes + place;
#else
        return nullptr;
#endif
    }
};

// Image index of a place in the window, or beyond its edges. Not inlined: its divisions would take
// the registers of what comes after it.
__device__ __noinline__ int fold(Axis<int> map, int in_window, int window) {
    return map(mirror(in_window, window));
}

__device__ __forceinline__ void fill_offsets(Offset* offsets, int count,
                                             const Record& record, const PageBox* box,
                                             int axis, int patch_size, int scale, int first) {
    const Axis<int> map(record, axis, patch_size, scale, N_SCALES, MODE);
#if PAGED
    for (int i = threadIdx.x; i < count; i += N_THREADS) {
        const int64 at = in_pages(*box, axis, fold(map, first + i, patch_size << scale));
        offsets[i] = axis == 0 ? at : at + (at & 0xffffffff) * (sizeof(Raw) - 1);
    }
#else
    const unsigned width = static_cast<unsigned>(record.length(2));
    const unsigned stride =
        width * (axis == 0 ? static_cast<unsigned>(record.length(1)) : sizeof(Raw));
    for (int i = threadIdx.x; i < count; i += N_THREADS)
        offsets[i] = fold(map, first + i, patch_size << scale) * stride;
#endif
}

template <int SCALE>
__device__ __forceinline__ void fill_tile(const Tile<SCALE>& tile, const Record* records,
                                          int first_z, int first_y) {
    typedef Level<SCALE> L;
    constexpr int Z_SCALE = N_DIMS == 3 ? SCALE : 0;
    for (int p = 0; p < N_PLACES; ++p) {
        fill_offsets(tile.slices + p * L::N_SLICES, L::N_SLICES, records[p], tile.box(p), 0,
                     PATCH_Z, Z_SCALE, first_z * L::Z_FACTOR + L::Z_OFFSET);
        fill_offsets(tile.rows + p * L::N_ROWS, L::N_ROWS, records[p], tile.box(p), 1, PATCH_Y,
                     SCALE, first_y * L::FACTOR + Taps<SCALE>::OFFSET);
    }
}

// The columns that a tile reads, counted from its first, and where the images have them.
template <int SCALE> struct Columns {
    typedef Level<SCALE> L;
    static constexpr int WINDOW = PATCH_X * L::FACTOR;
    Axis<int> maps[N_PLACES];
    int before;       // columns of the window before the tile's first
    int first, stop;  // the span: columns that are neighbours in every image

    __device__ __forceinline__ Columns(const Record* records, int first_x) {
        before = first_x * L::FACTOR + Taps<SCALE>::OFFSET;
        int lo = 0, hi = WINDOW;
#pragma unroll
        for (int p = 0; p < N_PLACES; ++p) {
            maps[p] = Axis<int>(records[p], 2, PATCH_X, SCALE, N_SCALES, MODE);
            lo = larger(lo, maps[p].range.lo - maps[p].start);
            hi = smaller(hi, maps[p].range.hi - maps[p].start);
        }
        first = clip(lo - before, L::N_COLUMNS);
        stop = larger(first, clip(hi - before, L::N_COLUMNS));
    }
    __device__ __forceinline__ int span() const { return stop - first; }
    __device__ __forceinline__ bool in_span(int column) const {
        return column >= first && column < stop;
    }
    __device__ __forceinline__ int outside(int i) const { return i < first ? i : i + span(); }
    __device__ __forceinline__ int in_image(int place, int column) const {
        if (in_span(column)) return maps[place].start + before + column;
        return fold(maps[place], before + column, WINDOW);
    }
    // The column of the span that a column outside of it repeats, -1 where there is none. At the
    // window's edges all channels repeat the same one, at an image's borders each its own.
    __device__ __forceinline__ int repeated(int column) const {
        const int source = N_PLACES == 1
                               ? fold(maps[0], before + column, WINDOW) - maps[0].start - before
                               : mirror(before + column, WINDOW) - before;
        return in_span(source) ? source : -1;
    }
};

// Where a row in shared memory has a column.
template <int SCALE>
__device__ __forceinline__ int place_in_row(int column) {
    typedef Level<SCALE> L;
    return column % L::FACTOR * L::PHASE + column / L::FACTOR;
}

#if PAGED
template <int SCALE>
__device__ __forceinline__ void fill_columns(const Tile<SCALE>& tile,
                                             const Columns<SCALE>& columns) {
    typedef Level<SCALE> L;
    for (int p = 0; p < N_PLACES; ++p)
        for (int i = threadIdx.x; i < L::N_COLUMNS; i += N_THREADS) {
            const int64 at = in_pages(tile.boxes[p], 2, columns.in_image(p, i));
            tile.columns[p * L::N_COLUMNS + i] = static_cast<unsigned>(at >> 32)
                                                     << tile.boxes[p].x_bits |
                                                 static_cast<unsigned>(at);
        }
}

// Where a slice of a page has the pixel of a column, but for its row.
template <int SCALE>
__device__ __forceinline__ const char* in_slice(const Tile<SCALE>& tile, const Raw* pixels, int c,
                                                int slice, int page_row, int column) {
    typedef Level<SCALE> L;
    const int p = N_PLACES == 1 ? 0 : c;
    const PageBox& box = tile.boxes[c];
    const unsigned at_x = tile.columns[p * L::N_COLUMNS + column];
    const int64 at_z = tile.slices[p * L::N_SLICES + slice];
    const int page = static_cast<int>(at_z >> 32) + page_row +
                     static_cast<int>(at_x >> box.x_bits);
    const unsigned pixel = static_cast<unsigned>(at_z) + (at_x & ((1u << box.x_bits) - 1));
    return in_slot(box, tile.slots, pixels, page) + static_cast<int64>(pixel) * sizeof(Raw);
}
#endif

// Where COUNT columns, LANES apart, of a slice are.
template <int SCALE, int COUNT> struct Pixels {
    typedef Level<SCALE> L;
    const Tile<SCALE>& tile;
    const int slice, column;
#if PAGED
    const Raw* const (&pixels)[N_CHANNELS];
    const char* start[N_CHANNELS][COUNT];
    int page_row[N_PLACES];  // that `start` is of

    __device__ __forceinline__ Pixels(const Tile<SCALE>& tile_, const Columns<SCALE>& columns,
                                      const Raw* const (&pixels_)[N_CHANNELS], int slice_,
                                      int column_)
        : tile(tile_), slice(slice_), column(column_), pixels(pixels_) {
#pragma unroll
        for (int p = 0; p < N_PLACES; ++p) page_row[p] = -1;
    }
    // A slot is looked up where another page begins.
    __device__ __forceinline__ void ask(Wide (&row)[N_CHANNELS][COUNT], int in_tile) {
#pragma unroll
        for (int p = 0; p < N_PLACES; ++p) {
            const int64 at = tile.rows[p * L::N_ROWS + in_tile];
            if (static_cast<int>(at >> 32) != page_row[p]) {
                page_row[p] = static_cast<int>(at >> 32);
#pragma unroll
                for (int c = p; c < (N_PLACES == 1 ? N_CHANNELS : p + 1); ++c)
#pragma unroll
                    for (int k = 0; k < COUNT; ++k)
                        start[c][k] = in_slice(tile, pixels[c], c, slice, page_row[p],
                                               column + k * L::LANES);
            }
#pragma unroll
            for (int c = p; c < (N_PLACES == 1 ? N_CHANNELS : p + 1); ++c)
#pragma unroll
                for (int k = 0; k < COUNT; ++k)
                    row[c][k] = load_wide<Wide>(reinterpret_cast<const Raw*>(
                        start[c][k] + static_cast<unsigned>(at)));
        }
    }
#else
    const char* start[N_CHANNELS];

    __device__ __forceinline__ Pixels(const Tile<SCALE>& tile_, const Columns<SCALE>& columns,
                                      const Raw* const (&pixels)[N_CHANNELS], int slice_,
                                      int column_)
        : tile(tile_), slice(slice_), column(column_) {
#pragma unroll
        for (int c = 0; c < N_CHANNELS; ++c) {
            const int p = N_PLACES == 1 ? 0 : c;
            start[c] = reinterpret_cast<const char*>(pixels[c] +
                                                     (tile.slices[p * L::N_SLICES + slice] +
                                                      columns.in_image(p, column)));
        }
    }
    __device__ __forceinline__ void ask(Wide (&row)[N_CHANNELS][COUNT], int in_tile) {
#pragma unroll
        for (int c = 0; c < N_CHANNELS; ++c) {
            const int p = N_PLACES == 1 ? 0 : c;
            const Raw* from =
                reinterpret_cast<const Raw*>(start[c] + tile.rows[p * L::N_ROWS + in_tile]);
#pragma unroll
            for (int k = 0; k < COUNT; ++k) row[c][k] = load_wide<Wide>(from + k * L::LANES);
        }
    }
#endif
};

// As input_shift, but read anew, from the cache, where to keep it would spill registers.
__device__ __forceinline__ float input_shift_again(const Record* record) {
#if EPILOGUE && !N_RECORDS && defined(__CUDACC__)
    const float* from = &record->input_shift;
    asm volatile("" : "+l"(from));
    return __ldg(from);
#else
    return input_shift(record);
#endif
}

// Mix the channels of COUNT columns, LANES apart, of one slice and filter them along Y. `lanes`
// threads stand side by side; others take other rows.
template <int SCALE, int COUNT>
__device__ __forceinline__ void filter_columns(const Tile<SCALE>& tile,
                                               const Columns<SCALE>& columns,
                                               const Raw* const (&pixels)[N_CHANNELS],
                                               const float (&weights)[N_CHANNELS],
                                               const Record* record, int slice,
                                               int column, int lanes) {
    typedef Level<SCALE> L;
    constexpr int FACTOR = L::FACTOR, LIVE = L::LIVE;
    const int rows = ceil_div(L::TILE_Y, N_THREADS / lanes);
    const int first_row = threadIdx.x / lanes * rows;
    const int stop_row = smaller(first_row + rows, L::TILE_Y);
    if (first_row >= L::TILE_Y) return;
    Pixels<SCALE, COUNT> from(tile, columns, pixels, slice, column);
    float live[LIVE][COUNT];  // live[a] is output row group - a
#pragma unroll
    for (int a = 0; a < LIVE; ++a)
#pragma unroll
        for (int k = 0; k < COUNT; ++k) live[a][k] = 0.0f;
    // Rows are asked for some time before they are needed.
    constexpr int AHEAD = rows_ahead(COUNT * N_CHANNELS, FACTOR);
    Wide raw[AHEAD][N_CHANNELS][COUNT];
#pragma unroll
    for (int r = 0; r < AHEAD; ++r) from.ask(raw[r], first_row * FACTOR + r);
#pragma unroll 1
    for (int group = first_row; group < stop_row - 1 + LIVE; ++group) {
#pragma unroll
        for (int r = 0; r < FACTOR; ++r) {
            float mixed[COUNT];
#pragma unroll
            for (int c = 0; c < N_CHANNELS; ++c) {
                const float shift =
                    N_CHANNELS > 2 ? input_shift(record + c) : input_shift_again(record + c);
#pragma unroll
                for (int k = 0; k < COUNT; ++k) {
                    const float value =
                        shifted(Stored<PIXEL_TYPE>::to_float(raw[r % AHEAD][c][k]), shift);
                    mixed[k] = c == 0 ? weights[0] * value : fmaf(weights[c], value, mixed[k]);
                }
            }
            from.ask(raw[r % AHEAD], group * FACTOR + r + AHEAD);
#pragma unroll
            for (int a = 0; a < LIVE; ++a)  // a pixel meets only the taps that reach it
                if (a * FACTOR + r < L::N_TAPS)
#pragma unroll
                    for (int k = 0; k < COUNT; ++k)
                        live[a][k] =
                            fmaf(Taps<SCALE>::at(a * FACTOR + r), mixed[k], live[a][k]);
        }
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            if (group - first_row >= LIVE - 1)
                tile.narrow[(group - (LIVE - 1)) * L::ROW +
                            place_in_row<SCALE>(column + k * L::LANES)] = live[LIVE - 1][k];
#pragma unroll
            for (int a = LIVE - 1; a > 0; --a) live[a][k] = live[a - 1][k];
            live[0][k] = 0.0f;
        }
    }
}

// Fill the rows in shared memory with a slice, but for columns that repeat others.
template <int SCALE>
__device__ __forceinline__ void filter_slice(const Tile<SCALE>& tile,
                                             const Columns<SCALE>& columns,
                                             const Raw* const (&pixels)[N_CHANNELS],
                                             const float (&weights)[N_CHANNELS],
                                             const Record* record, int slice) {
    typedef Level<SCALE> L;
    constexpr int ROUND = L::TOGETHER * L::LANES;
    int done = 0;
    for (; done + ROUND <= columns.span(); done += ROUND)
        filter_columns<SCALE, L::TOGETHER>(tile, columns, pixels, weights, record, slice,
                                           columns.first + done + threadIdx.x % L::LANES, L::LANES);
    const int n_left = L::N_COLUMNS - done;
    // most often few: then more threads share the rows of each, and none waits for long
    const int lanes = n_left <= L::FEW ? L::FEW : L::LANES;
    for (int i = threadIdx.x % lanes; i < n_left; i += lanes) {
        const int column = i < columns.first ? i : i + done;
        if (columns.in_span(column) || columns.repeated(column) < 0)
            filter_columns<SCALE, 1>(tile, columns, pixels, weights, record, slice, column, lanes);
    }
}

// Then copy those: a warp takes a row, its threads take columns.
template <int SCALE>
__device__ __forceinline__ void copy_columns(const Tile<SCALE>& tile,
                                             const Columns<SCALE>& columns) {
    typedef Level<SCALE> L;
    for (int i = threadIdx.x % 32; i < L::N_COLUMNS - columns.span(); i += 32) {
        const int column = columns.outside(i), source = columns.repeated(column);
        if (source < 0) continue;
        float* to = tile.narrow + place_in_row<SCALE>(column);
        const float* from = tile.narrow + place_in_row<SCALE>(source);
        for (int row = threadIdx.x / 32; row < L::TILE_Y; row += N_THREADS / 32)
            to[row * L::ROW] = from[row * L::ROW];
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

// Where a plane has its first pixel, and steps along Y and X: turned_places in epilogue.py.
__constant__ int turned[8][3] = {
    {0, PATCH_X, 1},
    {(PATCH_X - 1) * PATCH_Y, 1, -PATCH_Y},
    {PATCH_Y * PATCH_X - 1, -PATCH_X, -1},
    {PATCH_Y - 1, -1, PATCH_Y},
    {(PATCH_Y - 1) * PATCH_X, -PATCH_X, 1},
    {PATCH_X * PATCH_Y - 1, -1, -PATCH_Y},
    {PATCH_X - 1, PATCH_X, -1},
    {0, 1, PATCH_Y},
};

struct Place {
    int z, y, x;
    __device__ __forceinline__ bool in_patch() const {
        return z < PATCH_Z && y < PATCH_Y && x < PATCH_X;
    }
    __device__ __forceinline__ int index(const Record* record) const {
#if EPILOGUE
        const int* to = turned[record->orientation];
        return z * (PATCH_Y * PATCH_X) + to[0] + y * to[1] + x * to[2];
#else
        return (z * PATCH_Y + y) * PATCH_X + x;
#endif
    }
};

template <int SCALE>
__device__ __forceinline__ void make_downscaled(const Tile<SCALE>& tile,
                                                const Columns<SCALE>& columns,
                                                const Raw* const (&pixels)[N_CHANNELS],
                                                const float (&weights)[N_CHANNELS],
                                                const Record* record, Place first,
                                                Output* input) {
    typedef Level<SCALE> L;
#if N_DIMS == 2
    filter_slice(tile, columns, pixels, weights, record, 0);
    __syncthreads();  // the span is complete
    copy_columns(tile, columns);
    __syncthreads();  // the rows are complete
    for (int i = threadIdx.x; i < L::TILE_Y * TILE_X; i += N_THREADS) {
        const Place at = {0, first.y + i / TILE_X, first.x + i % TILE_X};
        if (at.in_patch())
            input[at.index(record)] = to_output(finished_input(
                record, filter_row<SCALE>(tile.narrow + i / TILE_X * L::ROW + i % TILE_X)));
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
        filter_slice(tile, columns, pixels, weights, record, slice);
        __syncthreads();  // the slice's span is complete
        copy_columns(tile, columns);
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
                input[at.index(record)] =
                    to_output(finished_input(record, live[LIVE - 1][own]));
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
__device__ __forceinline__ void make_native(const Tile<0>& tile, const Columns<0>& columns,
                                            const Raw* const (&pixels)[N_CHANNELS],
                                            const float (&weights)[N_CHANNELS],
                                            const Record* record, Place first,
                                            Output* input, Output* target) {
    typedef Level<0> L;
    for (int i = threadIdx.x; i < TILE_Z * L::TILE_Y * TILE_X; i += N_THREADS) {
        const int x = i % TILE_X, y = i / TILE_X % L::TILE_Y, z = i / TILE_X / L::TILE_Y;
        const Place at = {first.z + z, first.y + y, first.x + x};
        if (!at.in_patch()) continue;
        float mixed = 0.0f;
#pragma unroll
        for (int c = 0; c < N_CHANNELS; ++c) {
            const int p = N_PLACES == 1 ? 0 : c;
            const Offset at_y = tile.rows[p * L::N_ROWS + y];
#if PAGED
            const char* row =
                in_slice(tile, pixels[c], c, z, static_cast<int>(at_y >> 32), x) +
                static_cast<unsigned>(at_y);
            const int in_row = 0;
#else
            const char* row = reinterpret_cast<const char*>(pixels[c]) + at_y;
            const int in_row = static_cast<int>(tile.slices[p * L::N_SLICES + z]) +
                               columns.in_image(p, x);
#endif
            const float value = load<PIXEL_TYPE>(row, in_row);
            if (target)
                target[c * (PATCH_Z * PATCH_Y * PATCH_X) + at.index(record)] =
                    to_output(finished(record + c, value));
            // no fused multiply-add at the native scale: it must equal NumPy's to the last bit
            const float product = mul_rn(weights[c], shifted(value, input_shift(record + c)));
            mixed = c == 0 ? product : add_rn(mixed, product);
        }
        input[at.index(record)] = to_output(finished_input(record, mixed));
    }
}

template <int SCALE>
__device__ __forceinline__ void make_tile(const Record* all_records,
                                          const PageBox* __restrict__ boxes,
                                          const int* __restrict__ slots, int64 sample,
                                          int tile_index, Output* __restrict__ input,
                                          Output* __restrict__ target) {
    typedef Level<SCALE> L;
    if constexpr (SCALE > 0)
        if (tile_index >= L::TILES)
            return make_tile<SCALE - 1>(all_records, boxes, slots, sample, tile_index - L::TILES,
                                        input, target);

    DYNAMIC_SHARED(float, shared);
    const Tile<SCALE> tile(shared, boxes + sample * N_CHANNELS, slots);
    const Record* records = all_records + sample * N_CHANNELS;
    const Place first = {tile_index / (L::TILES_Y * L::TILES_X) * TILE_Z,
                         tile_index / L::TILES_X % L::TILES_Y * L::TILE_Y,
                         tile_index % L::TILES_X * TILE_X};
    const Raw* pixels[N_CHANNELS];
    float weights[N_CHANNELS];
#pragma unroll
    for (int c = 0; c < N_CHANNELS; ++c) {
        pixels[c] = records[c].pixels;
        weights[c] = records[c].weight;
    }
    fill_tile(tile, records, first.z, first.y);
    const Columns<SCALE> columns(records, first.x);
#if PAGED
    fill_columns(tile, columns);
#endif
    __syncthreads();  // the offsets are there

    constexpr int64 VOLUME = PATCH_Z * PATCH_Y * PATCH_X;
    input += (sample * N_SCALES + SCALE) * VOLUME;
    if constexpr (SCALE > 0)
        make_downscaled(tile, columns, pixels, weights, records, first, input);
    else
        make_native(tile, columns, pixels, weights, records, first, input,
                    target ? target + sample * N_CHANNELS * VOLUME : nullptr);
}

template <int SCALE> __device__ constexpr int tiles_up_to() {
    if constexpr (SCALE > 0)
        return Level<SCALE>::TILES + tiles_up_to<SCALE - 1>();
    else
        return Level<0>::TILES;
}

// grid = (samples of a group, tiles of a sample, groups). Blocks start in that order: the largest
// scale of a group comes first, since its tiles take longest and what ends a launch should be short;
// a group should be small enough for the smaller scales to find their pixels in the cache.
// Left to itself the compiler spills, to have more blocks at a time: it is told how many are enough.
#if N_PLACES > 2 || PAGED && N_CHANNELS > 2
#define BOUNDS __launch_bounds__(N_THREADS, 1)
#elif N_CHANNELS > 2 || N_PLACES > 1 || PAGED
#define BOUNDS __launch_bounds__(N_THREADS, 512 / N_THREADS)
#elif N_DIMS == 3 && N_THREADS == 256
#define BOUNDS __launch_bounds__(N_THREADS, 768 / N_THREADS)
#else
#define BOUNDS __launch_bounds__(N_THREADS, 640 / N_THREADS)
#endif
extern "C" __global__ BOUNDS void specialised(TABLE, Output* __restrict__ input,
                                              Output* __restrict__ target PAGES_PARAMETER) {
    const unsigned sample = blockIdx.z * gridDim.x + blockIdx.x;
#if N_CHANNELS > 2 || EPILOGUE && !N_RECORDS
    const int tile = blockIdx.y;
#else
    // none is beyond: the remainder tells the compiler, which then leaves out tests of borders; above
    // it would spill
    const int tile = blockIdx.y % tiles_up_to<N_SCALES - 1>();
#endif
    make_tile<N_SCALES - 1>(RECORDS_OF_TABLE, PAGES_OF(0), sample, tile, input, target);
}

// What all kernels share: the table of sources, index maps, stored data types.
//
// The index maps are those of gpu_patch/geometry.py, formula by formula; the layouts are those of
// gpu_patch/table.py. The text is compiled by NVRTC, which has no headers to include, for kernels of
// the CPU (_host/cuda.h), and for the emulated tests; both define the few CUDA names used here.

typedef long long int64;

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(Type, name) extern __shared__ Type name[]
#endif

enum Mode { ZERO, REFLECT, WRAP, PERIODIC };
// The last four are of labels, which are copied as integers alone.
enum PixelType { BOOL, UINT8, INT8, UINT16, INT16, FLOAT16, FLOAT32, INT32, UINT32, INT64, UINT64 };

// Where a channel of a sample comes from. Axes are Z, Y, X; images of two axes have size 1 and
// coordinate 0 along Z.
struct ChannelSource {
    const void* pixels;  // ZYX, of that image sample and image channel
    int64 size[3];       // of the image
    int64 coords[3];     // first pixel of the patch
    int pixel_type;
    float weight;

    __device__ __forceinline__ int64 first(int axis) const { return coords[axis]; }
    __device__ __forceinline__ int64 length(int axis) const { return size[axis]; }
};

// ---- index maps --------------------------------------------------------------------------------
// Int is a 64-bit integer on the general path. The fast path takes 32 bits, where a division is
// several times cheaper, after the host has checked that everything fits.

template <class Int> struct Range { Int lo, hi; };

template <class Int>
__device__ __forceinline__ Int window_start(Int coords, Int size, int scale) {
    return coords + size / 2 - (size << scale) / 2;
}

template <class Int>
__device__ __forceinline__ Int clip(Int value, Int n) {
    return value < 0 ? 0 : value > n ? n : value;
}

// Image indices that the border rule maps onto; start and size are those of upstream's cut.
template <class Int>
__device__ __forceinline__ Range<Int> border_range(Int start, Int size, Int n, int mode) {
    if (mode == ZERO || mode == PERIODIC) return {0, n};
    return {clip(start, n), clip(start + size, n)};
}

template <class Int>
__device__ __forceinline__ Int positive_modulo(Int value, Int n) {
    const Int remainder = value % n;
    return remainder < 0 ? remainder + n : remainder;
}

template <class Int>
__device__ __forceinline__ Int mirror(Int index, Int n) {
    if (index >= 0 && index < n) return index;  // the common case needs no division
    if (n == 1) return 0;
    const Int folded = positive_modulo(index, 2 * (n - 1));
    return folded >= n ? 2 * (n - 1) - folded : folded;
}

template <class Int>
__device__ __forceinline__ Int fold_into(Range<Int> range, Int at, int mode) {
    if (mode == ZERO) return -1;
    const Int n = range.hi - range.lo;
    if (mode == REFLECT) return range.lo + mirror(at - range.lo, n);
    return range.lo + positive_modulo(at - range.lo, n);
}

// Few threads come here, and 64-bit divisions take many registers: not inlined.
__device__ __noinline__ int64 border_index_outside(Range<int64> range, int64 at, int mode) {
    return fold_into(range, at, mode);
}
__device__ __forceinline__ int border_index_outside(Range<int> range, int at, int mode) {
    return fold_into(range, at, mode);
}

// Image index that a virtual coordinate reads, -1 where it reads zero.
template <class Int>
__device__ __forceinline__ Int border_index(Int at, Range<Int> range, int mode) {
    if (at >= range.lo && at < range.hi) return at;  // every rule is the identity there
    return border_index_outside(range, at, mode);
}

// One axis of a window: where it starts and what it maps onto.
template <class Int>
struct Axis {
    Int start;
    Range<Int> range;
    int mode;

    Axis() = default;
    // scale: of the window; cut_scale: of upstream's cut, which says what borders fold into
    template <class Source>
    __device__ __forceinline__ Axis(const Source& source, int axis, Int patch_size, int scale,
                                    int cut_scale, int border_mode) {
        const Int coords = static_cast<Int>(source.first(axis));
        const Int n = static_cast<Int>(source.length(axis));
        start = window_start(coords, patch_size, scale);
        range = border_range(window_start(coords, patch_size, cut_scale),
                             patch_size << cut_scale, n, border_mode);
        mode = border_mode;
    }
    __device__ __forceinline__ Int operator()(Int in_window) const {
        return border_index(start + in_window, range, mode);
    }
};

// ---- pages -------------------------------------------------------------------------------------
// gpu_patch/pages/slot_table.py. Of images larger than memory some pages are there, each in a slot.
// Index maps know nothing of it: only the step from a pixel's index to its address does.

// The pages that a channel of a sample reads: a box of its image's, which may go round the image.
struct PageBox {
    int64 slot_bytes;
    int first_slot;         // where in the table of slots the box's begin
    int grid[3], first[3];  // pages of the image along each axis, and the box's first
    int stride[2];          // in the table, from a page to the next along Z and Y
    int side[3];            // pixels of a page
    int x_bits, unused;     // bits that hold a pixel's place along X in its page
};

// An index along an axis as page of the box, in the upper half, and pixel of the page, in the lower
// one: those of all axes add up to where a pixel is.
__device__ __forceinline__ int64 in_pages(const PageBox& box, int axis, int64 index) {
    const unsigned side = box.side[axis], page = static_cast<unsigned>(index) / side;
    const unsigned in_page = static_cast<unsigned>(index) - page * side;
    int in_box = static_cast<int>(page) - box.first[axis];
    if (in_box < 0) in_box += box.grid[axis];
    int64 pixel = in_page;
    for (int inner = axis + 1; inner < 3; ++inner) pixel *= box.side[inner];
    if (axis < 2) in_box *= box.stride[axis];
    return static_cast<int64>(in_box) << 32 | pixel;
}

// The plane of a slot; `pixels` is that of the first slot.
__device__ __forceinline__ const char* in_slot(const PageBox& box, const int* __restrict__ slots,
                                               const void* pixels, int64 page) {
    return static_cast<const char*>(pixels) +
           __ldg(slots + box.first_slot + page) * box.slot_bytes;
}

#if PAGED
#define PAGES_PARAMETER                                                                         \
    , const PageBox* __restrict__ boxes, const int* __restrict__ slots
#define PAGES_OF(i) boxes + (i), slots
#else
#define PAGED 0
#define PAGES_PARAMETER
#define PAGES_OF(i) static_cast<const PageBox*>(nullptr), nullptr
#endif

// Where the pixels of a channel of a sample are: only here it shows whether they are in pages.
#if PAGED
struct Plane {
    const ChannelSource& source;
    const PageBox& box;
    const int* slots;

    __device__ __forceinline__ Plane(const ChannelSource& source_, const PageBox* box_,
                                     const int* slots_)
        : source(source_), box(*box_), slots(slots_) {}
    // What the index along an axis adds to where a pixel is.
    __device__ __forceinline__ int64 offset(int axis, int64 index) const {
        return in_pages(box, axis, index);
    }
    // Make `at` count from what is returned.
    __device__ __forceinline__ const void* origin(int64& at) const {
        const char* plane = in_slot(box, slots, source.pixels, at >> 32);
        at &= 0xffffffff;
        return plane;
    }
};
// A row of it, which looks a slot up where a page begins.
struct PlaneRow {
    const Plane& plane;
    int64 start;  // what Z and Y add
    int64 first = 0, shift = 0;
    const void* page = nullptr;

    __device__ __forceinline__ PlaneRow(const Plane& plane_, int64 start_)
        : plane(plane_), start(start_) {}
    __device__ __forceinline__ const void* origin(int64 x, int64& at) {
        if (!page || x < first || x >= first + plane.box.side[2]) {
            const int64 in_row = plane.offset(2, x);
            at = start + in_row;
            page = plane.origin(at);
            first = x - (in_row & 0xffffffff);
            shift = at - x;
        }
        at = x + shift;
        return page;
    }
};
#else
struct Plane {
    const ChannelSource& source;

    __device__ __forceinline__ Plane(const ChannelSource& source_, const PageBox*, const int*)
        : source(source_) {}
    __device__ __forceinline__ int64 offset(int axis, int64 index) const {
        return axis == 0   ? index * source.size[1] * source.size[2]
               : axis == 1 ? index * source.size[2]
                           : index;
    }
    __device__ __forceinline__ const void* origin(int64&) const { return source.pixels; }
};
struct PlaneRow {
    const Plane& plane;
    int64 start;

    __device__ __forceinline__ PlaneRow(const Plane& plane_, int64 start_)
        : plane(plane_), start(start_) {}
    __device__ __forceinline__ const void* origin(int64 x, int64& at) const {
        at = start + x;
        return plane.source.pixels;
    }
};
#endif

// ---- arithmetic that equals NumPy's ------------------------------------------------------------
// Rounded each by itself, never fused, subnormal numbers kept: CuPy compiles everything with
// -ftz=true, under which CUDA's own __fmul_rn and the like make them zero.

#ifdef __CUDACC__
#define EXACTLY(operation)                                                   \
    float result;                                                            \
    asm(operation ".f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));       \
    return result;
__device__ __forceinline__ float mul_rn(float a, float b) { EXACTLY("mul.rn") }
__device__ __forceinline__ float add_rn(float a, float b) { EXACTLY("add.rn") }
__device__ __forceinline__ float sub_rn(float a, float b) { EXACTLY("sub.rn") }
#else  // compiled without contraction
inline float mul_rn(float a, float b) { return a * b; }
inline float add_rn(float a, float b) { return a + b; }
inline float sub_rn(float a, float b) { return a - b; }
#endif

// ---- stored data types -------------------------------------------------------------------------

#ifdef __CUDACC__  // without cuda_fp16.h, which is not everywhere where NVRTC is
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ __forceinline__ unsigned short float_to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

// As held in a register from load to use. The compiler must not know that 8 or 16 bits were loaded:
// it would mask them again, and convert them by an instruction at an eighth of the usual rate.
template <class Wide, class Raw>
__device__ __forceinline__ Wide load_wide(const Raw* from) {
    Wide value = __ldg(from);
#ifdef __CUDACC__
    if constexpr (sizeof(Raw) < sizeof(Wide)) asm("" : "+r"(value));
#endif
    return value;
}

// Whole numbers of at most 22 bits, exactly.
__device__ __forceinline__ float small_to_float(int value) {
#if __CUDA_ARCH__ >= 860
    return __int2float_rn(value);
#else  // no conversion at full rate: as the fraction of 2^23 + 2^22
    return __int_as_float(0x4b400000 + value) - 12582912.0f;
#endif
}

// Raw: as stored. Wide: as held in a register, which for less than 32 bits would need masking.
template <int TYPE> struct Stored;
template <> struct Stored<BOOL> {
    typedef unsigned char Raw;
    typedef int Wide;
    static __device__ __forceinline__ float to_float(Wide raw) { return raw ? 1.0f : 0.0f; }
};
template <> struct Stored<UINT8> {
    typedef unsigned char Raw;
    typedef int Wide;
    static __device__ __forceinline__ float to_float(Wide raw) { return small_to_float(raw); }
};
template <> struct Stored<INT8> {
    typedef signed char Raw;
    typedef int Wide;
    static __device__ __forceinline__ float to_float(Wide raw) { return small_to_float(raw); }
};
template <> struct Stored<UINT16> {
    typedef unsigned short Raw;
    typedef int Wide;
    static __device__ __forceinline__ float to_float(Wide raw) { return small_to_float(raw); }
};
template <> struct Stored<INT16> {
    typedef short Raw;
    typedef int Wide;
    static __device__ __forceinline__ float to_float(Wide raw) { return small_to_float(raw); }
};
template <> struct Stored<FLOAT16> {
    typedef unsigned short Raw;
    typedef int Wide;
    static __device__ __forceinline__ float to_float(Wide raw) {
        return half_to_float(static_cast<unsigned short>(raw));
    }
};
template <> struct Stored<FLOAT32> {
    typedef float Raw;
    typedef float Wide;
    static __device__ __forceinline__ float to_float(Wide raw) { return raw; }
};

template <int TYPE>
__device__ __forceinline__ float load(const void* pixels, int64 at) {
    typedef Stored<TYPE> Type;
    return Type::to_float(
        load_wide<typename Type::Wide>(static_cast<const typename Type::Raw*>(pixels) + at));
}

// As load; all threads of a block ask for the same type, so the branch does not diverge.
__device__ __forceinline__ float load_any(int pixel_type, const void* pixels, int64 at) {
    switch (pixel_type) {
    case BOOL: return load<BOOL>(pixels, at);
    case UINT8: return load<UINT8>(pixels, at);
    case INT8: return load<INT8>(pixels, at);
    case UINT16: return load<UINT16>(pixels, at);
    case INT16: return load<INT16>(pixels, at);
    case FLOAT16: return load<FLOAT16>(pixels, at);
    default: return load<FLOAT32>(pixels, at);
    }
}

// ---- on the way out ----------------------------------------------------------------------------
// gpu_patch/epilogue.py. Without EPILOGUE nothing happens to values, and nothing is read for it.

// Of a channel of a sample.
struct EpilogueRecord {
    int64 first, along_y, along_x;  // where a pixel goes in its plane: turned
    float shift, scale, offset;     // of the channel: what gather copies, lateral context's target
    float input_shift;              // of the channel, before it is mixed
    float input_scale, input_offset;  // of the sample's mixture
};

// The last parameter of kernels, and what they give on.
#if EPILOGUE
#define EPILOGUE_PARAMETER , const EpilogueRecord* __restrict__ records
#define RECORDS records
#else
#define EPILOGUE_PARAMETER
#define RECORDS static_cast<const EpilogueRecord*>(nullptr)
#endif

// Where the output has the pixel (z, y, x).
template <class Int>
__device__ __forceinline__ Int place(const EpilogueRecord* record, Int z, Int y, Int x, Int height,
                                     Int width) {
#if EPILOGUE
    return z * height * width + static_cast<Int>(record->first) +
           y * static_cast<Int>(record->along_y) + x * static_cast<Int>(record->along_x);
#else
    return (z * height + y) * width + x;
#endif
}

// A value as it is handed out; no fused multiply-add, so that it equals NumPy's to the last bit.
template <class Record>
__device__ __forceinline__ float finished(const Record* record, float value) {
#if EPILOGUE
    value = sub_rn(value, record->shift);
    return add_rn(mul_rn(value, record->scale), record->offset);
#else
    return value;
#endif
}

// The same for a mixture, whose channels are shifted before they are mixed.
template <class Record>
__device__ __forceinline__ float finished_input(const Record* record, float value) {
#if EPILOGUE
    return add_rn(mul_rn(value, record->input_scale), record->input_offset);
#else
    return value;
#endif
}

// What is subtracted from a channel before it is mixed.
template <class Record>
__device__ __forceinline__ float input_shift(const Record* record) {
#if EPILOGUE
    return record->input_shift;
#else
    return 0.0f;
#endif
}

// Rounded by itself: exact where the shift is near the value, which no sum of products would be.
__device__ __forceinline__ float shifted(float value, float shift) {
#if EPILOGUE
    return sub_rn(value, shift);
#else
    return value;
#endif
}

__device__ __forceinline__ void store(void* out, int64 at, float value, bool half) {
    if (half)
        static_cast<unsigned short*>(out)[at] = float_to_half(value);
    else
        static_cast<float*>(out)[at] = value;
}

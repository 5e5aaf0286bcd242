// The CPU's kernels: one call per batch, parts of samples over threads.
//
// Compiled once for each instruction set, without contraction of products and sums: see build.py.
// Sizes are checked by library.py's callers, those of structs by library.py, places here.
#include "boxes.h"
#include "cells.h"
#include "downscaled.h"
#include "draws.h"
#include "integers.h"
#include "moments.h"
#include "pool.h"
#include "records.h"
#include "stitch.h"

// Batches of few samples have their samples cut into parts, so that all threads have as much to do.
// Parts are few, and of rows enough to be worth it: each computes what continues it anew.
static int64 n_parts(const Job& job) {
    constexpr int64 LEAST_ROWS = 16;
    const int64 most = std::max<int64>(1, job.patch[1] / LEAST_ROWS);
    int64 parts = 1;
    while (parts < most && job.n_samples * parts % job.n_threads &&
           job.n_samples * parts < 4 * job.n_threads)
        ++parts;
    return parts;
}

// Call each(sample, part, scratch) for all of them.
template <class Each> static int over_parts(const Job& job, Each each) {
    const int64 parts = n_parts(job), height = job.patch[1];
    return share(job.n_samples * parts, job.n_threads, [&](int64 i, Scratch& scratch) {
        const int64 part = i % parts;
        each(i / parts, Part{height * part / parts, height * (part + 1) / parts}, scratch);
    });
}

// The sources of the sample that a thread works on after this one, where all threads are there and
// equally fast; null where that is not known: of images by page, and of parts of samples.
static const ChannelSource* next_of(const Job& job, const ChannelSource* sources, int64 sample,
                                    const Pages& pages) {
    const int64 next = sample + job.n_threads;
    const bool is_known = !pages.boxes && next < job.n_samples && n_parts(job) == 1;
    return is_known ? sources + next * job.n_channels : nullptr;
}

#define EXPORT extern "C" __attribute__((visibility("default")))

// Coordinates within it can be added to sizes of windows in 64 bits.
constexpr int64 MOST_COORDS = int64(1) << 56;

// Call use(sources, epilogues or null, boxes or null), each (B, C); nothing is done where places are
// not possible. `which` are the batch's samples, as everywhere below, null for all; `images` is null
// where images are whole, or boxes are known.
template <class Use>
static int with_records(const Job& job, const Columns& columns, const int64* which,
                        const PagedImage* images, Use use) {
    const Records records(job, columns, which);
    if (!records.are_possible(MOST_COORDS)) return IMPOSSIBLE;
    const int64 n = job.n_samples * job.n_channels;
    std::vector<ChannelSource> sources;
    std::vector<EpilogueRecord> epilogues;
    std::vector<PageBox> boxes;
    try {
        sources.reserve(n);
        if (images) boxes.reserve(n);
        if (columns.values) epilogues.reserve(n);
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
    for (int64 i = 0; i < job.n_samples; ++i)
        for (int c = 0; c < job.n_channels; ++c) {
            sources.push_back(records.source(i, c));
            if (columns.values) epilogues.push_back(records.epilogue(i, c));
            if (!images) continue;
            const int64 at = records.place(i, c);
            const PagedImage& image = images[columns.image_idx[at]];
            boxes.push_back(image.whole(columns.sample_idx[at], columns.channels[c]));
        }
    return use(sources.data(), columns.values ? epilogues.data() : nullptr,
               images ? boxes.data() : nullptr);
}

// input (B, L, Z, Y, X), target (B, C, Z, Y, X) or null. taps[s]: of scale s. Of images by page
// `images`, or boxes (B, C); slots of all pages, or of those of the boxes.
EXPORT int lateral_context(const Job* job, const Columns* columns, const int64* which,
                           const float* const* taps, const PagedImage* images,
                           const PageBox* boxes, const int* slots, char* input, char* target) {
    const int64 volume = job->patch[0] * job->patch[1] * job->patch[2] * (job->half_output ? 2 : 4);
    return with_records(*job, *columns, which, images, [&](const ChannelSource* sources,
                                                           const EpilogueRecord* records,
                                                           const PageBox* whole) {
        const Pages every = {images ? whole : boxes, slots};
        return over_parts(*job, [&](int64 sample, Part part, Scratch& scratch) {
            const int64 first = sample * job->n_channels;
            const ChannelSource* own = sources + first;
            const Pages pages = every.of(first);
            const EpilogueRecord* record = records ? records + first : nullptr;
            char* out = input + sample * job->n_scales * volume;
            for (int scale = job->n_scales - 1; scale > 0; --scale) {
                scratch.reset(Downscaled::bytes(*job, scale, part, pages));
                Downscaled made(*job, own, pages, record, part, scale, taps[scale], scratch);
                made.write(out + scale * volume);
            }
            scratch.reset(Native::bytes(*job, pages));
            char* own_target = target ? target + first * volume : nullptr;
            const bool in_cache = job->n_scales > 1;  // the larger scales have read it
            const ChannelSource* following =
                in_cache ? nullptr : next_of(*job, sources, sample, pages);
            Native(*job, own, following, in_cache, pages, record, out, own_target, scratch).write(part);
        });
    });
}

// out (B, C, Z, Y, X); pages as in lateral_context.
EXPORT int gather(const Job* job, const Columns* columns, const int64* which,
                  const PagedImage* images, const PageBox* boxes, const int* slots, char* out) {
    const int64 volume = job->patch[0] * job->patch[1] * job->patch[2] * (job->half_output ? 2 : 4);
    return with_records(*job, *columns, which, images, [&](const ChannelSource* sources,
                                                           const EpilogueRecord* records,
                                                           const PageBox* whole) {
        const Pages pages = {images ? whole : boxes, slots};
        return over_parts(*job, [&](int64 sample, Part part, Scratch& scratch) {
            const int64 first = sample * job->n_channels;
            const EpilogueRecord* record = records ? records + first : nullptr;
            char* own = out + first * volume;
            scratch.reset(Native::bytes(*job, pages));
            const ChannelSource* following = next_of(*job, sources, sample, pages);
            Native(*job, sources + first, following, false, pages.of(first), record, nullptr, own,
                   scratch)
                .write(part);
        });
    });
}

// The same of whole images of integers, which are copied exactly.
template <class T>
static int gather_integers(const Job& job, const Columns& columns, const int64* which, T* out) {
    const int64 volume = job.patch[0] * job.patch[1] * job.patch[2];
    return with_records(job, columns, which, nullptr, [&](const ChannelSource* sources,
                                                          const EpilogueRecord* records,
                                                          const PageBox*) {
        return over_parts(job, [&](int64 sample, Part part, Scratch& scratch) {
            for (int c = 0; c < job.n_channels; ++c) {
                scratch.reset(Integers<T>::bytes(job));
                const int64 i = sample * job.n_channels + c;
                const EpilogueRecord* record = records ? records + i : nullptr;
                Integers<T>(job, sources[i], record, out + i * volume, scratch).write(part);
            }
        });
    });
}
EXPORT int gather_1_bytes(const Job* job, const Columns* columns, const int64* which, uint8_t* out) {
    return gather_integers(*job, *columns, which, out);
}
EXPORT int gather_2_bytes(const Job* job, const Columns* columns, const int64* which, uint16_t* out) {
    return gather_integers(*job, *columns, which, out);
}
EXPORT int gather_4_bytes(const Job* job, const Columns* columns, const int64* which, uint32_t* out) {
    return gather_integers(*job, *columns, which, out);
}
EXPORT int gather_8_bytes(const Job* job, const Columns* columns, const int64* which, uint64_t* out) {
    return gather_integers(*job, *columns, which, out);
}

// What CUDA's kernels read, which run elsewhere: (B, C) each; epilogues may be null.
EXPORT int fill_records(const Job* job, const Columns* columns, const int64* which,
                        ChannelSource* sources, EpilogueRecord* epilogues) {
    const Records records(*job, *columns, which);
    if (!records.are_possible(MOST_COORDS)) return IMPOSSIBLE;
    for (int64 i = 0; i < job->n_samples; ++i)
        for (int c = 0; c < job->n_channels; ++c) {
            *sources++ = records.source(i, c);
            if (epilogues) *epilogues++ = records.epilogue(i, c);
        }
    return DONE;
}
// Those of the specialised kernel, which counts in 32 bits: `limit` is that of coordinates.
EXPORT int fill_short_records(const Job* job, const Columns* columns, const int64* which,
                              int64 limit, char* out) {
    const Records records(*job, *columns, which);
    if (!records.are_possible(limit)) return IMPOSSIBLE;
    for (int64 i = 0; i < job->n_samples; ++i)
        for (int c = 0; c < job->n_channels; ++c) out = records.write_short(out, i, c);
    return DONE;
}

// The boxes of pages that windows up to a scale read, (B, C), and the slots of their pages,
// (B, C, n_pages); these are written where there is room for so many slots, n_pages in any case.
EXPORT int find_boxes(const Job* job, const Columns* columns, const int64* which,
                      const PagedImage* images, int64 scale, int64 room, int64* n_pages,
                      PageBox* boxes, int* slots) {
    const Records records(*job, *columns, which);
    if (!records.are_possible(MOST_COORDS)) return IMPOSSIBLE;
    try {
        const Boxes found(*job, *columns, records, images, int(scale));
        std::copy(found.n_pages, found.n_pages + 3, n_pages);
        const int64 n = job->n_samples * job->n_channels * n_pages[0] * n_pages[1] * n_pages[2];
        return n > room || found.write(boxes, slots) ? DONE : NOT_HELD;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    }
}

// values (B, C, Z, Y, X), moments (B, 2 C, Z, Y, X).
EXPORT int add_sample(const MomentsJob* job, const char* values, float* moments) {
    constexpr int64 PART = 1 << 14;
    const int64 n = job->n_values, parts = (n + PART - 1) / PART;
    return share(job->n_tiles * parts, job->n_threads, [&](int64 i, Scratch&) {
        const int64 tile = i / parts, first = i % parts * PART, at = tile * n + first;
        float* means = moments + 2 * tile * n + first;
        const int64 count = std::min(PART, n - first);
        if (job->is_half)
            add_values(*job, (const half*)values + at, means, means + n, count);
        else
            add_values(*job, (const float*)values + at, means, means + n, count);
    });
}

// values (B, C, Z, Y, X); scales and offsets (C,) or null.
EXPORT int stitch(const StitchJob* job, const StitchTile* tiles, const char* values,
                  const float* scales, const float* offsets) {
    const int64 n_strips = job->n_threads < 2 ? 1 : 2 * job->n_threads;
    return share(job->n_channels * n_strips, job->n_threads, [&](int64 i, Scratch&) {
        const int channel = int(i / n_strips);
        const Strip strip = {i % n_strips, n_strips};
        if (job->is_half)
            write_tiles(*job, tiles, (const half*)values, scales, offsets, channel, strip);
        else
            write_tiles(*job, tiles, (const float*)values, scales, offsets, channel, strip);
    });
}

// sums a ring of (C or 2 C, Z, Y, X), out (C or 2 C, Z, Y, X).
EXPORT int means(const MeansJob* job, const double* sums, float* out) {
    constexpr int64 ROWS = 16;
    const int64 n = job->n_channels * job->size[0] * job->size[1];
    return share((n + ROWS - 1) / ROWS, job->n_threads, [&](int64 i, Scratch&) {
        for (int64 row = i * ROWS; row < std::min(n, (i + 1) * ROWS); ++row)
            write_means(*job, sums, out, row);
    });
}

// index (B,), words (n_blocks,), out (B, n_blocks, 2).
EXPORT int draw(const DrawJob* job, const uint64_t* index, const BlockWords* words, double* out) {
    for (int64 i = 0; i < job->n_samples; ++i)
        for (int64 b = 0; b < job->n_blocks; ++b, out += 2)
            draw_block(out, index[i], job->epoch, words[b], job->seed);
    return DONE;
}

// cells (N, Z, Y, X), near and reaches (N,).
EXPORT int count_near(const CellsJob* job, const float* cells, int64* near, uint8_t* reaches) {
    return share(job->n_cells, job->n_threads, [&](int64 i, Scratch& scratch) {
        scratch.reset(Marks::bytes(*job));
        Marks marks(*job, scratch);
        reaches[i] = marks.fill(cells + i * job->stride);
        near[i] = marks.n_near();
    });
}

// cells (N, Z, Y, X), mean and deviation (N,).
EXPORT int measure_cells(const CellsJob* job, const float* cells, double* mean, double* deviation) {
    const int64 n = job->n_pixels();
    return share(job->n_cells, job->n_threads, [&](int64 i, Scratch&) {
        const float* own = cells + i * job->stride;
        const double middle = sum_of(own, n, [](double value) { return value; }) / n;
        mean[i] = middle;
        deviation[i] = std::sqrt(sum_of(own, n, [=](double value) {
                                     return (value - middle) * (value - middle);
                                 }) / n);
    });
}

// cells (N, Z, Y, X), bits (N,). A cell has fewer pixels than 2^31.
EXPORT int cell_entropies(const CellsJob* job, const float* cells, double* bits) {
    const int64 n = job->n_pixels();
    return share(job->n_cells, job->n_threads, [&](int64 i, Scratch& scratch) {
        scratch.reset(Values::bytes(n));
        bits[i] = Values(cells + i * job->stride, n, scratch).entropy();
    });
}

// cells (N, Z, Y, X), marked (N,): pixels that are not 0.
EXPORT int count_marked(const CellsJob* job, const float* cells, int64* marked) {
    const int64 n = job->n_pixels();
    return share(job->n_cells, job->n_threads, [&](int64 i, Scratch&) {
        const float* own = cells + i * job->stride;
        int64 found = 0;
        for (int64 k = 0; k < n; ++k) found += own[k] != 0.0f;
        marked[i] = found;
    });
}

// What library.py must agree with.
EXPORT int64 struct_bytes(int which) {
    const int64 sizes[] = {sizeof(Job),           sizeof(MomentsJob),     sizeof(StitchJob),
                           sizeof(MeansJob),      sizeof(DrawJob),        sizeof(CellsJob),
                           sizeof(Columns),       sizeof(ChannelSource),  sizeof(EpilogueRecord),
                           sizeof(StitchTile),    sizeof(PageBox),        sizeof(PagedImage)};
    return which >= 0 && which < 12 ? sizes[which] : 0;
}
EXPORT const char* source_digest() { return SOURCE_DIGEST; }
EXPORT int vector_width() { return W; }

// Boxes of pages: of all that an image has, as the CPU's kernels read it, or of those that windows
// read, with the slots of these pages, for CUDA's.
#pragma once
#include "records.h"

struct PagedImage {
    PageBox box;                          // but for what a window decides
    int64_t grid[3], side[3], stride[3];  // along Z, Y, X: pages, their pixels, and their numbers
    int64_t base, together[2], apart[2];  // first page; samples and channels: of a page, of numbers
    const int *slots, *pins;              // of all pages of the pool; of its slots

    int64 first_page(int64 sample, int64 channel) const {
        return base + sample / together[0] * apart[0] + channel / together[1] * apart[1];
    }
    // The box of all pages of a sample and channel, within the slots of all pages of the pool.
    PageBox whole(int64 sample, int64 channel) const {
        PageBox made = box;
        made.first_slot = int(first_page(sample, channel));
        made.stride[0] = int(stride[0]), made.stride[1] = int(stride[1]);
        return made;
    }
};

struct Span {  // of a window: its first and last page, along Z, Y, X
    int64 first[3], last[3];
    bool is_exact;  // whether all between are read
};

// Of windows that go round the image, last pages may be beyond its end. See spans.py.
static Span span_of(const Job& job, const int64* coords, const int64* size, const PagedImage& image,
                    int scale) {
    Span found = {{0, 0, 0}, {0, 0, 0}, true};
    int64 start[3], end[3];
    bool leaves = false, misses = false, is_far = false;
    for (int d = 3 - job.n_dims; d < 3; ++d) {
        start[d] = window_start(coords[d], job.patch[d], scale);
        end[d] = start[d] + (job.patch[d] << scale);
        const int64 centre = coords[d] + job.patch[d] / 2;
        leaves |= start[d] < 0 || end[d] > size[d];
        misses |= start[d] >= size[d] || end[d] <= 0;
        is_far |= centre < 0 || centre >= size[d];
    }
    const bool folds = leaves && (job.mode == WRAP || (job.mode == REFLECT && is_far));
    found.is_exact = !folds && !(job.mode == ZERO && misses);
    for (int d = 3 - job.n_dims; d < 3; ++d) {
        const int64 n = size[d], side = image.side[d], grid = image.grid[d];
        if (job.mode == PERIODIC && leaves) {
            const int64 own = (start[d] % n + n) % n, last = own + end[d] - start[d] - 1;
            const bool is_whole = end[d] - start[d] >= n;
            found.first[d] = is_whole ? 0 : own / side;
            found.last[d] = is_whole ? grid - 1
                                     : std::min(last % n / side + (last >= n ? grid : 0),
                                                found.first[d] + grid - 1);
            continue;
        }
        int64 lo = start[d], hi = end[d] - 1;
        if (folds) {  // anything of what borders fold into
            lo = window_start(coords[d], job.patch[d], job.n_scales);
            hi = clip(lo + (job.patch[d] << job.n_scales), n) - 1, lo = clip(lo, n);
        }
        lo = clip(lo, n - 1), hi = clip(hi, n - 1);
        // mirrored at the first pixel, one pixel more is read
        if (job.mode == REFLECT && leaves) hi = std::min(hi + 1, n - 1);
        found.first[d] = lo / side, found.last[d] = hi / side;
    }
    return found;
}

class Boxes {
    const Job& job;
    const Columns& columns;
    const Records& records;
    const PagedImage* images;
    std::vector<Span> spans;  // (B, P)

public:
    int64 n_pages[3] = {1, 1, 1};  // of a box: as many for all

    Boxes(const Job& job_, const Columns& columns_, const Records& records_,
          const PagedImage* images_, int scale)
        : job(job_), columns(columns_), records(records_), images(images_) {
        spans.reserve(job.n_samples * job.n_places);
        for (int64 i = 0; i < job.n_samples * job.n_places; ++i) {
            const int64 at = records.place(i / job.n_places, int(i % job.n_places));
            const int64 image = columns.image_idx[at];
            const int64* size = columns.images[image * job.n_channels].size;
            int64 coords[3] = {0, 0, 0};
            for (int d = 0; d < job.n_dims; ++d)
                coords[3 - job.n_dims + d] = columns.coords[at * job.n_dims + d];
            spans.push_back(span_of(job, coords, size, images[image], scale));
            for (int d = 0; d < 3; ++d)
                n_pages[d] = std::max(n_pages[d], spans[i].last[d] - spans[i].first[d] + 1);
        }
    }

    // boxes (B, C), slots (B, C, n_pages); whether all that is read is held.
    bool write(PageBox* boxes, int* slots) const {
        const int* const all_slots = slots;
        for (int64 i = 0; i < job.n_samples; ++i)
            for (int c = 0; c < job.n_channels; ++c) {
                const int64 at = records.place(i, c);
                const PagedImage& image = images[columns.image_idx[at]];
                const Span& span = spans[job.place(i, c)];
                const int64 first =
                    image.first_page(columns.sample_idx[at], columns.channels[c]);
                PageBox box = image.box;
                box.first_slot = int(slots - all_slots);
                box.stride[0] = int(n_pages[1] * n_pages[2]), box.stride[1] = int(n_pages[2]);
                for (int d = 3 - job.n_dims; d < 3; ++d) box.first[d] = int(span.first[d]);
                *boxes++ = box;
                for (int64 z = 0; z < n_pages[0]; ++z)
                    for (int64 y = 0; y < n_pages[1]; ++y)
                        for (int64 x = 0; x < n_pages[2]; ++x) {
                            const int64 steps[] = {z, y, x};
                            int64 page = first;
                            for (int d = 0; d < 3; ++d) {
                                // what a window has fewer of, stands for its last ones
                                int64 in = std::min(span.first[d] + steps[d], span.last[d]);
                                if (in >= image.grid[d]) in -= image.grid[d];
                                page += in * image.stride[d];
                            }
                            const int slot = image.slots[page];
                            if (span.is_exact && (slot < 0 || image.pins[slot] < 1)) return false;
                            *slots++ = slot;
                        }
            }
        return true;
    }
};

// Windows whose pixels are in pages: which columns each page has, and where its rows are.
#pragma once
#include <stdexcept>

#include "rows.h"

// Pages that sources are read from, and the slots that they are in: null where images are whole.
struct Pages {
    const PageBox* boxes;
    const int* slots;

    Pages of(int64 i) const { return {boxes ? boxes + i : nullptr, slots}; }
};

// The plane of a slot, which must be there.
static inline const char* in_held(const PageBox& box, const int* slots, const void* pixels,
                                  int64 page) {
    if (slots[box.first_slot + page] < 0) throw std::out_of_range("nobody holds this page");
    return in_slot(box, slots, pixels, page);
}

// Places of a row that lie in one page: all, where there are no pages.
struct Stretch {
    Runs columns;  // counted from the page's first
    int64 page;    // -1 for zeros
};

// All places of a row.
struct Stretches {
    Stretch* all;
    int64 n;

    // How many there may be, with as many runs.
    static int64 most(int64 n_places, const Pages& pages) { return pages.boxes ? n_places : 1; }
    static Stretches in(Scratch& scratch, int64 n_places, const Pages& pages) {
        const Stretches found = {scratch.take<Stretch>(most(n_places, pages)), 1};
        found.all[0] = {{scratch.take<Run>(n_places), 0}, 0};
        return found;
    }
    static size_t bytes(int64 n_places, const Pages& pages) {
        return Scratch::bytes<Stretch>(most(n_places, pages)) + Scratch::bytes<Run>(n_places);
    }

    // `map[p]` is the column that place p reads, -1 for zero.
    void fill(const int64* map, int64 n_places, const PageBox* box) {
        Runs columns = all[0].columns;
        n = 0;
        for (int64 p = 0, q; p < n_places; p = q) {
            int64 page = 0, first = 0;
            q = box ? p + 1 : n_places;
            if (box && map[p] < 0) {
                page = -1;
                while (q < n_places && map[q] < 0) ++q;
            } else if (box) {
                const int64 at = in_pages(*box, 2, map[p]);
                page = at >> 32, first = map[p] - (at & 0xffffffff);
                while (q < n_places && map[q] >= first && map[q] < first + box->side[2]) ++q;
            }
            columns.n = 0;
            columns.fill(map, p, q, first);
            all[n++] = {columns, page};
            columns.runs += columns.n;
        }
    }
};

// Rows of a stretch in a slice of an image: of one page after the other, or of a whole image. What was
// found of a page serves the rows after it.
class StretchRows {
    const ChannelSource* source;
    const PageBox* box;
    const int* slots;
    const char* page = nullptr;
    int64 in_x, of_slice, row_bytes;
    int64 begin = 0, end = 0;  // rows of the image that are in `page`

    void turn_to(int64 y) {
        const int64 of_row = in_pages(*box, 1, y), at = of_slice + of_row;
        begin = y - (of_row & 0xffffffff) / box->side[2], end = begin + box->side[1];
        page = in_x < 0 ? (const char*)source->pixels  // of zeros nothing is read
                        : in_held(*box, slots, source->pixels, (at >> 32) + in_x) +
                              (of_slice & 0xffffffff) * PIXELS[source->pixel_type].bytes;
    }

public:
    StretchRows(const ChannelSource& source_, const Pages& pages, int64 page_along_x, int64 z)
        : source(&source_), box(pages.boxes), slots(pages.slots), in_x(page_along_x),
          of_slice(box ? in_pages(*box, 0, z) : 0),
          row_bytes((box ? box->side[2] : source->size[2]) * PIXELS[source->pixel_type].bytes) {
        if (!box) page = row_of(source_, z, 0), end = source->size[1];
    }

    const char* operator()(int64 y) {
        if (y < begin || y >= end) turn_to(y);
        return page + (y - begin) * row_bytes;
    }
    // Those of y[0] … y[n - 1], from the same byte on, to places that are `step` apart.
    void find(const void** to, int64 step, const int64* y, int64 n, int64 first_byte) {
        for (int64 i = 0; i < n;) {
            if (y[i] < begin || y[i] >= end) turn_to(y[i]);
            const char* const from = page + first_byte;
            const int64 lo = begin, hi = end, bytes = row_bytes;  // in registers
            do
                to[i * step] = from + (y[i] - lo) * bytes;
            while (++i < n && y[i] >= lo && y[i] < hi);
        }
    }
};

// Loads and stores: each is checked, and what it costs is counted.
#pragma once
#include <algorithm>

#include "arithmetic.h"

struct Memory : Arithmetic {
    std::vector<uint8_t> shared, shared_set;

    using Arithmetic::Arithmetic;

    void new_block() {
        shared.assign(size_t(launch.shared_bytes), 0xff);
        shared_set.assign(size_t(launch.shared_bytes), 0);
        words.resize(size_t(launch.shared_bytes) / 4 + 1, Word{-1, -1, 0, 0});
        pass_barrier();
    }
    // What was written before a barrier may be read behind it.
    void pass_barrier() { ++epoch; }

    void access(Warp& warp, const Instruction& what, uint32_t mask) {
        if (what.mode == PARAM) return parameters(warp, what, mask);
        const uint8_t* base = source(warp, what.from[0]);
        for (int i = 0; i < 32; ++i)
            address[i] = (what.wide & 2 ? get<uint64_t>(base, i) : get<uint32_t>(base, i)) +
                         uint64_t(what.immediate);
        int space = what.mode;
        if (space == GENERIC) {
            const uint64_t one = address[__builtin_ctz(mask)];
            space = one >= ENTRY_WINDOW ? ENTRY : one >= SHARED_WINDOW ? SHARED : GLOBAL;
            if (space == SHARED)
                for (uint64_t& place : address) place -= SHARED_WINDOW;
        }
        if (space == GLOBAL)
            transfer(warp, what, global(warp, what, mask), nullptr);
        else if (space == SHARED)
            transfer(warp, what, in_shared(warp, what, mask), shared.data());
        else if (space == CONST && what.op == LD)
            transfer(warp, what, constant(warp, what, mask, launch.const_bytes),
                     const_cast<uint8_t*>(launch.const_memory));
        else if (space == ENTRY && what.op == LD) {
            for (uint64_t& place : address) place -= ENTRY_WINDOW;
            transfer(warp, what, constant(warp, what, mask, launch.parameter_bytes),
                     const_cast<uint8_t*>(launch.parameters));
        }
        else
            report(BAD_SPACE, what, warp.first);
    }

private:
    struct Word { int32_t writer, reader; uint32_t written, read; };  // threads, and when
    static constexpr int SEVERAL = -2;
    std::vector<Word> words;
    uint32_t epoch = 1;
    int64_t last_buffer = 0;
    uint64_t address[32];

    static unsigned bytes_of(const Instruction& what) { return width_of(what.type) * what.n; }

    // How many different pieces of memory a warp touches.
    static unsigned distinct(uint64_t* values, int n) {
        std::sort(values, values + n);
        return unsigned(std::unique(values, values + n) - values);
    }

    Buffer* buffer_of(uint64_t place, unsigned width) {
        const auto holds = [&](const Buffer& b) {
            return place >= b.start && place + width <= b.start + b.size;
        };
        if (launch.n_buffers == 0) return nullptr;
        if (!holds(launch.buffers[last_buffer])) {
            const Buffer* end = launch.buffers + launch.n_buffers;
            const Buffer* next = std::upper_bound(
                launch.buffers + 0, const_cast<Buffer*>(end), place,
                [](uint64_t at, const Buffer& b) { return at < b.start; });
            if (next == launch.buffers || !holds(next[-1])) return nullptr;
            last_buffer = next - 1 - launch.buffers;
        }
        return &launch.buffers[last_buffer];
    }

    // Each returns the lanes whose access may go on.

    uint32_t global(Warp& warp, const Instruction& what, uint32_t mask) {
        uint64_t sectors[32];
        int n = 0;
        uint32_t fine = 0;
        const unsigned width = bytes_of(what);
        const bool stores = what.op == ST;
        Stat& counts = stat(what);
        each_lane(mask, [&](int i) {
            const int thread = warp.first + i;
            const uint64_t place = address[i];
            if (place % width) return report(MISALIGNED, what, thread, place);
            Buffer* buffer = buffer_of(place, width);
            if (!buffer) return report(OUT_OF_BOUNDS, what, thread, place);
            fine |= 1u << i;
            sectors[n++] = place >> 5;
            touch(*buffer, what, thread, place, width);
            const uint64_t sector = (place >> 5) - (buffer->start >> 5);
            uint32_t& by = (stores ? buffer->stored_by : buffer->loaded_by)[sector];
            Totals& totals = *launch.totals;
            if (by == 0) ++(stores ? totals.sectors_stored : totals.sectors_loaded);
            counts.block_sectors += by != uint32_t(block + 1);
            by = uint32_t(block + 1);
        });
        counts.bytes += uint64_t(n) * width;
        counts.sectors += distinct(sectors, n);
        return fine;
    }

    void touch(Buffer& buffer, const Instruction& what, int thread, uint64_t place,
               unsigned width) {
        uint8_t* shadow = buffer.shadow + (place - buffer.start);
        bool twice = false, stale = false, unset = false;
        for (unsigned k = 0; k < width; ++k) {
            uint8_t& byte = shadow[k];
            if (what.op == ST) {
                launch.totals->bytes_stored += !(byte & STORED);
                twice |= (byte & STORED) != 0;
                stale |= (byte & CACHED) != 0;
                byte = uint8_t((byte & ~UNINITIALISED) | STORED);
            } else {
                launch.totals->bytes_loaded += !(byte & LOADED);
                unset |= (byte & UNINITIALISED) != 0;
                stale |= (byte & STORED) != 0 && what.detail;  // by the read-only cache
                byte |= uint8_t(LOADED | (what.detail ? CACHED : 0));
            }
        }
        if (twice) report(WRITTEN_TWICE, what, thread, place);
        if (stale) report(READ_OF_WRITTEN, what, thread, place);
        if (unset) report(UNINITIALISED_GLOBAL, what, thread, place);
    }

    // 8 bytes a lane go by half warps, 16 by quarters; in each, a bank gives one word at a time.
    uint32_t in_shared(Warp& warp, const Instruction& what, uint32_t mask) {
        uint32_t fine = 0;
        unsigned waves = 0, least = 0;
        const unsigned width = bytes_of(what), lanes = 32 * 4 / std::max(width, 4u);
        for (unsigned first = 0; first < 32; first += lanes) {
            uint64_t asked[32 * 2];
            int n = 0;
            each_lane(mask & uint32_t(((1ull << lanes) - 1) << first), [&](int i) {
                const int thread = warp.first + i;
                const uint64_t place = address[i];
                if (place % width) return report(MISALIGNED, what, thread, place);
                if (place + width > uint64_t(launch.shared_bytes))
                    return report(OUT_OF_BOUNDS, what, thread, place);
                fine |= 1u << i;
                for (uint64_t word = place / 4; word <= (place + width - 1) / 4; ++word)
                    asked[n++] = word;
                touch_shared(what, thread, place, width);
            });
            const unsigned n_words = distinct(asked, n);
            unsigned in_bank[32] = {}, most = 0;
            for (unsigned k = 0; k < n_words; ++k)
                most = std::max(most, ++in_bank[asked[k] % 32]);
            waves += most;
            least += most > 0;
        }
        Stat& counts = stat(what);
        counts.waves += waves;
        counts.extra_waves += waves - least;
        counts.bytes += uint64_t(count(fine)) * width;
        return fine;
    }

    void touch_shared(const Instruction& what, int thread, uint64_t place, unsigned width) {
        bool unset = false, race = false;
        const bool stores = what.op == ST;
        for (uint64_t k = place; k < place + width; ++k) {
            unset |= !stores && !shared_set[k];
            if (stores) shared_set[k] = 1;
        }
        for (uint64_t at = place / 4; at <= (place + width - 1) / 4; ++at) {
            Word& word = words[at];
            race |= word.written == epoch && word.writer != thread;
            if (stores) {
                race |= word.read == epoch && word.reader != thread;
                word.written = epoch;
                word.writer = thread;
            } else {
                word.reader = word.read == epoch && word.reader != thread ? SEVERAL : thread;
                word.read = epoch;
            }
        }
        if (unset) report(UNINITIALISED_SHARED, what, thread, place);
        if (race) report(SHARED_RACE, what, thread, place);
    }

    uint32_t constant(Warp& warp, const Instruction& what, uint32_t mask, int64_t n_bytes) {
        uint64_t places[32];
        int n = 0;
        uint32_t fine = 0;
        const unsigned width = bytes_of(what);
        each_lane(mask, [&](int i) {
            const int thread = warp.first + i;
            if (address[i] % width) return report(MISALIGNED, what, thread, address[i]);
            if (address[i] + width > uint64_t(n_bytes))
                return report(OUT_OF_BOUNDS, what, thread, address[i]);
            fine |= 1u << i;
            places[n++] = address[i];
        });
        const unsigned waves = distinct(places, n);  // one address at a time
        stat(what).waves += waves;
        stat(what).extra_waves += waves ? waves - 1 : 0;
        return fine;
    }

    // Memory is null for global memory, whose addresses are those of the host.
    void transfer(Warp& warp, const Instruction& what, uint32_t mask, uint8_t* memory) {
        const unsigned width = width_of(what.type);
        each_lane(mask, [&](int i) {
            uint8_t* at = memory + address[i];
            for (int v = 0; v < what.n; ++v, at += width) {
                if (what.op == ST) {
                    const uint8_t* from = source(warp, what.from[1 + v]);
                    const uint64_t x = width == 8 ? get<uint64_t>(from, i) : get<uint32_t>(from, i);
                    std::memcpy(at, &x, width);
                } else {
                    uint64_t x = 0;
                    std::memcpy(&x, at, width);
                    x = extended(what.type, x);
                    uint8_t* to = warp.registers + what.to[v];
                    if (what.wide & 1)
                        put<uint64_t>(to, i, x);
                    else
                        put<uint32_t>(to, i, uint32_t(x));
                }
            }
        });
    }

    static uint64_t extended(int type, uint64_t x) {
        switch (type) {
        case S8: return uint64_t(int64_t(int8_t(x)));
        case S16: return uint64_t(int64_t(int16_t(x)));
        case S32: return uint64_t(int64_t(int32_t(x)));
        default: return x;
        }
    }

    // Words of functions' parameters stand like registers, one after the other.
    void parameters(Warp& warp, const Instruction& what, uint32_t mask) {
        const unsigned width = width_of(what.type);
        for (int v = 0; v < what.n; ++v) {
            const uint64_t byte = uint64_t(what.immediate) + v * width;
            uint8_t* at = warp.registers + what.target + byte / 4 * 128;
            const unsigned shift = 8 * (byte % 4);
            const uint32_t part = width < 4 ? ((1u << 8 * width) - 1) << shift : ~0u;
            each_lane(mask, [&](int i) {
                uint32_t* word = reinterpret_cast<uint32_t*>(at) + i;
                if (what.op == ST) {
                    const uint8_t* from = source(warp, what.from[1 + v]);
                    const uint64_t x = width == 8 ? get<uint64_t>(from, i) : get<uint32_t>(from, i);
                    word[0] = (word[0] & ~part) | (uint32_t(x) << shift & part);
                    if (width == 8) word[32] = uint32_t(x >> 32);
                } else {
                    const uint64_t low = (word[0] & part) >> shift;
                    const uint64_t x =
                        extended(what.type, width == 8 ? low | uint64_t(word[32]) << 32 : low);
                    uint8_t* to = warp.registers + what.to[v];
                    if (what.wide & 1)
                        put<uint64_t>(to, i, x);
                    else
                        put<uint32_t>(to, i, uint32_t(x));
                }
            });
        }
    }
};

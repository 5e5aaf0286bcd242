// Registers of a warp, 32 lanes each; and the record of what went wrong.
#pragma once
#include <cstring>
#include <type_traits>
#include <vector>

#include "instructions.h"

// A register holds 32 or 64 bits a lane, whatever the type.
template <class T> using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T> inline T get(const uint8_t* reg, int lane) {
    const Bits<T> bits = reinterpret_cast<const Bits<T>*>(reg)[lane];
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

template <class T> inline void put(uint8_t* reg, int lane, T value) {
    Bits<T> bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    reinterpret_cast<Bits<T>*>(reg)[lane] = bits;
}

template <class F> inline void each_lane(uint32_t mask, F work) {
    if (mask == ~0u)
        for (int lane = 0; lane < 32; ++lane) work(lane);
    else
        for (; mask; mask &= mask - 1) work(__builtin_ctz(mask));
}

inline unsigned count(uint32_t mask) { return unsigned(__builtin_popcount(mask)); }

inline unsigned width_of(int type) {
    switch (type) {
    case U8: case S8: return 1;
    case U16: case S16: case F16: return 2;
    case U64: case S64: case F64: return 8;
    default: return 4;
    }
}

// Subnormal numbers become zero, of the same sign.
template <class T> inline T flushed(T value, int ftz) {
    if constexpr (std::is_same_v<T, float>) {
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        if (ftz && (bits & 0x7f800000u) == 0) {
            bits &= 0x80000000u;
            std::memcpy(&value, &bits, 4);
        }
    }
    return value;
}

struct Frame { int32_t at, rejoin; uint32_t lanes; int32_t call; };

struct Warp {
    uint8_t* registers;
    int first;              // thread
    uint32_t lanes, ended;  // that exist, and of these
    std::vector<Frame> stack;
    bool waits, done;
};

// What the parts of the machine share.
struct Watch {
    const Launch& launch;
    int block = 0;

    explicit Watch(const Launch& launch) : launch(launch) {}

    void report(Event event, const Instruction& what, int thread, uint64_t address = 0) {
        int64_t &n = launch.n_found[0], &of_kind = launch.n_found[1 + event];
        if (n < launch.most_found && of_kind < 4)
            launch.found[n++] = {event, int32_t(&what - launch.code), block, thread, address};
        ++of_kind;
    }
    void unknown(const Warp& warp, const Instruction& what) {  // nothing is left out in silence
        report(UNKNOWN, what, warp.first, uint64_t(what.op));
    }
    Stat& stat(const Instruction& what) { return launch.stats[&what - launch.code]; }

    const uint8_t* source(const Warp& warp, int32_t place) const {
        return place >= 0 ? warp.registers + place : launch.constants + ~place;
    }
    uint32_t predicate(const Warp& warp, int32_t place) const {
        uint32_t bits;
        std::memcpy(&bits, source(warp, place), 4);
        return bits;
    }
    void set_predicate(Warp& warp, int32_t place, uint32_t value, uint32_t mask) {
        if (place < 0) return;
        const uint32_t bits = (predicate(warp, place) & ~mask) | (value & mask);
        std::memcpy(warp.registers + place, &bits, 4);
    }
};

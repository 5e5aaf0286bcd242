// What instructions compute, lane by lane.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "lanes.h"

struct Arithmetic : Watch {
    using Watch::Watch;

    // Call `work` with a value of the type; false for one that is not computed with.
    template <class F> bool by_type(int type, F work) {
        switch (type) {
        case U8: work(uint8_t()); return true;
        case S8: work(int8_t()); return true;
        case U16: work(uint16_t()); return true;
        case S16: work(int16_t()); return true;
        case U32: work(uint32_t()); return true;
        case S32: work(int32_t()); return true;
        case U64: work(uint64_t()); return true;
        case S64: work(int64_t()); return true;
        case F32: work(float()); return true;
        case F64: work(double()); return true;
        default: return false;
        }
    }

    template <class T> void compute(Warp& warp, const Instruction& what, uint32_t mask) {
        bool known;
        if constexpr (std::is_floating_point_v<T>)
            known = compute_float<T>(warp, what, mask);
        else
            known = compute_whole<T>(warp, what, mask);
        if (!known) unknown(warp, what);
    }

    void compare(Warp& warp, const Instruction& what, uint32_t mask) {
        uint32_t result = 0;
        const bool known = by_type(what.type, [&](auto type) {
            result = compared<decltype(type)>(what, source(warp, what.from[0]),
                                              source(warp, what.from[1]));
        });
        if (!known) return unknown(warp, what);
        uint32_t other = ~result;
        if (what.detail != NO_JOIN) {
            const uint32_t with = predicate(warp, what.from[2]);
            const auto join = [&](uint32_t a) {
                return what.detail == JOIN_AND ? a & with
                       : what.detail == JOIN_OR ? a | with : a ^ with;
            };
            result = join(result);
            other = join(other);
        }
        set_predicate(warp, what.to[0], result, mask);
        set_predicate(warp, what.to[1], other, mask);
    }

    void convert(Warp& warp, const Instruction& what, uint32_t mask) {
        const uint8_t* from = source(warp, what.from[0]);
        uint8_t* to = warp.registers + what.to[0];
        if (what.from_type == F16 && what.type == F32)
            return each_lane(mask, [&](int i) {
                put<float>(to, i, float(get<_Float16>(from, i)));
            });
        if (what.type == F16 && what.from_type == F32)
            return each_lane(mask, [&](int i) {
                put<_Float16>(to, i, _Float16(get<float>(from, i)));
            });
        bool known = false;
        by_type(what.from_type, [&](auto from_type) {
            by_type(what.type, [&](auto to_type) {
                known = true;
                typedef decltype(from_type) From;
                typedef decltype(to_type) To;
                each_lane(mask, [&](int i) {
                    const From value = flushed(get<From>(from, i), what.ftz);
                    keep(what, to, i, flushed(converted<To>(value, what.mode), what.ftz));
                });
            });
        });
        if (!known) unknown(warp, what);
    }

private:
    template <class T>
    bool compute_float(Warp& warp, const Instruction& what, uint32_t mask) {
        const auto in = [&](int k) {
            const uint8_t* from = source(warp, what.from[k]);
            return [from, ftz = what.ftz](int i) { return flushed(get<T>(from, i), ftz); };
        };
        const auto out = [&](auto value) {
            uint8_t* to = warp.registers + what.to[0];
            each_lane(mask, [&](int i) { put<T>(to, i, flushed(T(value(i)), what.ftz)); });
            return true;
        };
        const auto a = in(0);
        switch (what.op) {
        case NEG: return out([&](int i) { return -a(i); });
        case ABS: return out([&](int i) { return std::fabs(a(i)); });
        case SQRT: return out([&](int i) { return std::sqrt(a(i)); });
        case RCP: return out([&](int i) { return T(1) / a(i); });
        default: break;
        }
        const auto b = in(1);
        switch (what.op) {
        case ADD: return out([&](int i) { return a(i) + b(i); });
        case SUB: return out([&](int i) { return a(i) - b(i); });
        case MUL: return out([&](int i) { return a(i) * b(i); });
        case DIV: return out([&](int i) { return a(i) / b(i); });
        case MIN: return out([&](int i) { return std::fmin(a(i), b(i)); });
        case MAX: return out([&](int i) { return std::fmax(a(i), b(i)); });
        case FMA: {
            const auto c = in(2);
            return out([&](int i) { return std::fma(a(i), b(i), c(i)); });
        }
        default: return false;
        }
    }

    template <class T>
    bool compute_whole(Warp& warp, const Instruction& what, uint32_t mask) {
        // of at least 32 bits, so that products of 16 do not overflow an int
        typedef std::make_unsigned_t<std::common_type_t<T, int>> U;
        const uint8_t *x = source(warp, what.from[0]), *y = source(warp, what.from[1]);
        const auto a = [x](int i) { return get<T>(x, i); };
        const auto b = [y](int i) { return get<T>(y, i); };
        const auto out = [&](auto value) {
            uint8_t* to = warp.registers + what.to[0];
            each_lane(mask, [&](int i) { put<T>(to, i, T(value(i))); });
            return true;
        };
        constexpr uint32_t N_BITS = 8 * sizeof(T);
        switch (what.op) {
        case NEG: return out([&](int i) { return U(0) - U(a(i)); });
        case NOT: return out([&](int i) { return ~U(a(i)); });
        case ABS: return out([&](int i) { return a(i) < T(0) ? U(0) - U(a(i)) : U(a(i)); });
        case ADD: return out([&](int i) { return U(a(i)) + U(b(i)); });
        case SUB: return out([&](int i) { return U(a(i)) - U(b(i)); });
        case MIN: return out([&](int i) { return std::min(a(i), b(i)); });
        case MAX: return out([&](int i) { return std::max(a(i), b(i)); });
        case AND: return out([&](int i) { return a(i) & b(i); });
        case OR: return out([&](int i) { return a(i) | b(i); });
        case XOR: return out([&](int i) { return a(i) ^ b(i); });
        case SHL: return out([&](int i) {
            const uint32_t n = get<uint32_t>(y, i);
            return n >= N_BITS ? U(0) : U(a(i)) << n;
        });
        case SHR: return out([&](int i) {
            const uint32_t n = get<uint32_t>(y, i);
            return n < N_BITS ? a(i) >> n : T(a(i) < T(0) ? -1 : 0);
        });
        case DIV: case REM: return divide<T>(warp, what, mask);
        case MUL: case MAD: return multiply<T>(warp, what, mask);
        case POPC:
            each_lane(mask, [&](int i) {
                put<uint32_t>(warp.registers + what.to[0], i,
                              uint32_t(__builtin_popcountll(std::make_unsigned_t<T>(a(i)))));
            });
            return true;
        default: return false;
        }
    }

    template <class T> bool divide(Warp& warp, const Instruction& what, uint32_t mask) {
        const uint8_t *x = source(warp, what.from[0]), *y = source(warp, what.from[1]);
        uint8_t* to = warp.registers + what.to[0];
        const bool rest = what.op == REM;
        each_lane(mask, [&](int i) {
            const T a = get<T>(x, i), b = get<T>(y, i);
            if (b == 0) {
                report(DIVISION_BY_ZERO, what, warp.first + i);
                put<T>(to, i, T(-1));
            } else if (std::is_signed_v<T> && b == T(-1)) {  // the least number by −1 overflows
                put<T>(to, i, rest ? T(0) : T(std::make_unsigned_t<T>(0) - a));
            } else {
                put<T>(to, i, rest ? T(a % b) : T(a / b));
            }
        });
        return true;
    }

    // The lower or upper half of the product, or all of it; MAD adds to that.
    template <class T> bool multiply(Warp& warp, const Instruction& what, uint32_t mask) {
        if constexpr (sizeof(T) == 1) {
            return false;
        } else {
            constexpr bool SIGNED = std::is_signed_v<T>;
            typedef std::conditional_t<sizeof(T) == 8,
                std::conditional_t<SIGNED, __int128, unsigned __int128>,
                std::conditional_t<sizeof(T) == 4, std::conditional_t<SIGNED, int64_t, uint64_t>,
                                   std::conditional_t<SIGNED, int32_t, uint32_t>>> Wide;
            const uint8_t *x = source(warp, what.from[0]), *y = source(warp, what.from[1]);
            const uint8_t* z = what.op == MAD ? source(warp, what.from[2]) : nullptr;
            uint8_t* to = warp.registers + what.to[0];
            if (what.mode == WIDE && sizeof(T) == 8) return false;
            each_lane(mask, [&](int i) {
                // unsigned 16 bits by 16 overflow no uint32_t
                const Wide product = Wide(get<T>(x, i)) * Wide(get<T>(y, i));
                if constexpr (sizeof(T) < 8) {
                    if (what.mode == WIDE) {
                        typedef std::make_unsigned_t<Wide> U;
                        put<Wide>(to, i, Wide(U(product) + (z ? get<U>(z, i) : U(0))));
                        return;
                    }
                }
                typedef std::make_unsigned_t<T> U;
                const U half = U(what.mode == HI ? product >> (8 * sizeof(T)) : product);
                put<T>(to, i, T(U(half + (z ? get<U>(z, i) : U(0)))));
            });
            return true;
        }
    }

    template <class T>
    uint32_t compared(const Instruction& what, const uint8_t* x, const uint8_t* y) {
        const auto all = [&](auto holds) {
            uint32_t found = 0;
            for (int i = 0; i < 32; ++i)
                found |= uint32_t(holds(flushed(get<T>(x, i), what.ftz),
                                        flushed(get<T>(y, i), what.ftz))) << i;
            return found;
        };
        const auto unordered = [](T a, T b) { return a != a || b != b; };
        switch (what.mode) {
        case EQ: return all([](T a, T b) { return a == b; });
        case NE: return all([&](T a, T b) { return a != b && !unordered(a, b); });
        case LT: return all([](T a, T b) { return a < b; });
        case LE: return all([](T a, T b) { return a <= b; });
        case GT: return all([](T a, T b) { return a > b; });
        case GE: return all([](T a, T b) { return a >= b; });
        case EQU: return all([&](T a, T b) { return a == b || unordered(a, b); });
        case NEU: return all([](T a, T b) { return a != b; });
        case LTU: return all([](T a, T b) { return !(a >= b); });
        case LEU: return all([](T a, T b) { return !(a > b); });
        case GTU: return all([](T a, T b) { return !(a <= b); });
        case GEU: return all([](T a, T b) { return !(a < b); });
        case NUM: return all([&](T a, T b) { return !unordered(a, b); });
        default: return all([&](T a, T b) { return unordered(a, b); });
        }
    }

    template <class To, class From> static To converted(From value, int rounding) {
        if constexpr (std::is_floating_point_v<From>) {
            const From whole = rounding == TO_ZERO_INT ? std::trunc(value)
                               : rounding == DOWN_INT  ? std::floor(value)
                               : rounding == UP_INT    ? std::ceil(value)
                               : rounding == NEAREST_INT || std::is_integral_v<To>
                                   ? std::nearbyint(value)
                                   : value;
            if constexpr (std::is_integral_v<To>) {  // what does not fit becomes the nearest
                typedef std::numeric_limits<To> Limits;
                if (whole != whole) return 0;
                return double(whole) <= double(Limits::min())   ? Limits::min()
                       : double(whole) >= double(Limits::max()) ? Limits::max()
                                                                : To(whole);
            } else {
                return To(whole);
            }
        } else {
            return To(value);
        }
    }

    // Sign or zero fills a register wider than the type.
    template <class T> static void keep(const Instruction& what, uint8_t* to, int i, T value) {
        if constexpr (std::is_floating_point_v<T>)
            put<T>(to, i, value);
        else if (what.wide)
            put<uint64_t>(to, i, std::is_signed_v<T> ? uint64_t(int64_t(value)) : uint64_t(value));
        else
            put<uint32_t>(to, i, uint32_t(value));
    }
};

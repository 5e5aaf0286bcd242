// Runs a grid: blocks one after another, their warps in turn from barrier to barrier.
#include "memory.h"

namespace {

struct Machine : Memory {
    using Memory::Memory;

    void run_block(int number) {
        block = number;
        const int32_t* shape = launch.block;
        const int n_threads = shape[0] * shape[1] * shape[2];
        registers.assign(size_t((n_threads + 31) / 32) * launch.register_bytes, 0xcd);
        warps.resize(size_t((n_threads + 31) / 32));
        new_block();
        for (size_t k = 0; k < warps.size(); ++k) {
            Warp& warp = warps[k];
            warp.registers = registers.data() + k * launch.register_bytes;
            warp.first = int(32 * k);
            const int n = n_threads - warp.first;
            warp.lanes = n >= 32 ? ~0u : (1u << n) - 1;
            warp.ended = 0;
            warp.waits = warp.done = false;
            warp.stack.assign(1, Frame{launch.start, -1, warp.lanes, 0});
            set_up(warp);
        }
        while (!std::all_of(warps.begin(), warps.end(), [](const Warp& w) { return w.done; })) {
            const auto go_on = [&](Warp& warp) {
                if (!warp.done) run(warp);
            };
            if (launch.order & 1)
                std::for_each(warps.rbegin(), warps.rend(), go_on);
            else
                std::for_each(warps.begin(), warps.end(), go_on);
            bool waits = false, ended = false;
            for (Warp& warp : warps) {
                waits |= warp.waits;
                ended |= warp.done;
                warp.waits = false;
            }
            if (waits && ended) report(BARRIER_MISSED, launch.code[launch.start], 0);
            pass_barrier();
        }
    }

private:
    std::vector<uint8_t> registers;
    std::vector<Warp> warps;

    // Special registers stand first: tid, ntid, ctaid, nctaid, of three axes each, and laneid.
    void set_up(Warp& warp) {
        const int32_t *threads = launch.block, *blocks = launch.grid;
        const int at[3] = {block % blocks[0], block / blocks[0] % blocks[1],
                           block / blocks[0] / blocks[1]};
        for (int i = 0; i < 32; ++i) {
            const int t = warp.first + i;
            const int tid[3] = {t % threads[0], t / threads[0] % threads[1],
                                t / threads[0] / threads[1]};
            const auto set = [&](int reg, int value) {
                put<uint32_t>(warp.registers + 128 * reg, i, uint32_t(value));
            };
            for (int axis = 0; axis < 3; ++axis) {
                set(axis, tid[axis]);
                set(3 + axis, threads[axis]);
                set(6 + axis, at[axis]);
                set(9 + axis, blocks[axis]);
            }
            set(12, i);
        }
    }

    // Until the warp waits at a barrier or has ended.
    void run(Warp& warp) {
        for (;;) {
            Frame& top = warp.stack.back();
            if (top.rejoin >= 0 && top.at == top.rejoin) {
                note_end(warp, top.rejoin, top.lanes);
                warp.stack.pop_back();
                continue;
            }
            const Instruction& what = launch.code[top.at];
            uint32_t mask = top.lanes;
            if (what.guard >= 0) {
                const uint32_t guard = predicate(warp, what.guard);
                mask &= what.negated ? ~guard : guard;
            }
            const bool branches = what.op == BRA || what.op == RET;
            if (what.op != EXIT) {
                Stat& counts = stat(what);
                ++counts.runs;
                counts.lanes += count(what.op == BRA ? top.lanes : mask);
                counts.active_runs += mask != 0 || branches;
            }
            if (branches) {
                branch(warp, what, mask);
            } else if (what.op == CALL) {
                ++top.at;
                if (mask) call(warp, what, mask);
            } else if (what.op == EXIT) {
                if (what.target < 0) {
                    warp.done = true;
                    warp.ended = warp.lanes;
                    return;
                }
                come_back(warp);
            } else if (what.op == BAR) {
                if (mask != (warp.lanes & ~warp.ended))
                    report(DIVERGENT_BARRIER, what, warp.first, mask);
                ++launch.totals->barriers;
                ++top.at;
                warp.waits = true;
                return;
            } else {
                ++top.at;
                if (mask) execute(warp, what, mask);
            }
        }
    }

    // Lanes that part here meet again at the immediate post-dominator.
    void branch(Warp& warp, const Instruction& what, uint32_t taken) {
        ++launch.totals->branches;
        Frame& top = warp.stack.back();
        const uint32_t others = top.lanes & ~taken;
        if (!others) {
            top.at = what.target;
            return;
        }
        ++top.at;
        if (!taken) return;
        ++launch.totals->divergent;
        const int next = top.at;
        top.at = what.rejoin;  // `top` is not valid after the first push
        push(warp, next, what.rejoin, others);
        push(warp, what.target, what.rejoin, taken);
    }
    void push(Warp& warp, int at, int rejoin, uint32_t lanes) {
        if (at == rejoin)
            note_end(warp, rejoin, lanes);
        else
            warp.stack.push_back({at, rejoin, lanes, 0});
    }
    void note_end(Warp& warp, int at, uint32_t lanes) {
        const Instruction& what = launch.code[at];
        if (what.op == EXIT && what.target < 0) warp.ended |= lanes;
    }

    void call(Warp& warp, const Instruction& what, uint32_t mask) {
        const Call& made = launch.calls[what.target];
        for (int k = 0; k < made.n_copies; ++k) copy(warp, launch.copies[made.first + k], mask);
        warp.stack.push_back({made.start, -1, mask, what.target});
    }
    void come_back(Warp& warp) {
        const Frame& top = warp.stack.back();
        const Call& made = launch.calls[top.call];
        for (int k = 0; k < made.n_back; ++k)
            copy(warp, launch.copies[made.first + made.n_copies + k], top.lanes);
        warp.stack.pop_back();
    }
    void copy(Warp& warp, const Copy& word, uint32_t mask) {
        each_lane(mask, [&](int i) {
            put<uint32_t>(warp.registers + word.to, i,
                          get<uint32_t>(warp.registers + word.from, i));
        });
    }

    void execute(Warp& warp, const Instruction& what, uint32_t mask) {
        const bool logical = what.type == PRED;
        switch (what.op) {
        case MOV: case CVTA_SHARED: case CVTA_TO_SHARED: return move(warp, what, mask);
        case AND: case OR: case XOR: case NOT:
            if (logical) return combine(warp, what, mask);
            break;
        case CVT: return convert(warp, what, mask);
        case SETP: return compare(warp, what, mask);
        case SELP: return select(warp, what, mask);
        case PACK: case UNPACK: return repack(warp, what, mask);
        case LD: case ST: return access(warp, what, mask);
        case TRAP: return report(TRAPPED, what, warp.first);
        case NOP: return;
        default: break;
        }
        if (!by_type(what.type, [&](auto t) { compute<decltype(t)>(warp, what, mask); }))
            unknown(warp, what);
    }

    void move(Warp& warp, const Instruction& what, uint32_t mask) {
        if (what.type == PRED)
            return set_predicate(warp, what.to[0], predicate(warp, what.from[0]), mask);
        const uint8_t* from = source(warp, what.from[0]);
        uint8_t* to = warp.registers + what.to[0];
        const uint64_t shift = what.op == CVTA_SHARED      ? SHARED_WINDOW
                               : what.op == CVTA_TO_SHARED ? 0 - SHARED_WINDOW
                                                           : 0;
        each_lane(mask, [&](int i) {
            if (width_of(what.type) == 8)
                put<uint64_t>(to, i, get<uint64_t>(from, i) + shift);
            else
                put<uint32_t>(to, i, get<uint32_t>(from, i));
        });
    }
    void combine(Warp& warp, const Instruction& what, uint32_t mask) {
        const uint32_t a = predicate(warp, what.from[0]);
        const uint32_t b = what.op == NOT ? 0 : predicate(warp, what.from[1]);
        const uint32_t result = what.op == AND  ? a & b
                                : what.op == OR ? a | b
                                : what.op == XOR ? a ^ b
                                                 : ~a;
        set_predicate(warp, what.to[0], result, mask);
    }
    void select(Warp& warp, const Instruction& what, uint32_t mask) {
        const uint32_t chosen = predicate(warp, what.from[2]);
        const uint8_t* from[2] = {source(warp, what.from[1]), source(warp, what.from[0])};
        uint8_t* to = warp.registers + what.to[0];
        each_lane(mask, [&](int i) {
            const uint8_t* one = from[chosen >> i & 1];
            if (width_of(what.type) == 8)
                put<uint64_t>(to, i, get<uint64_t>(one, i));
            else
                put<uint32_t>(to, i, get<uint32_t>(one, i));
        });
    }
    // Two halves into a number, or a number into its halves.
    void repack(Warp& warp, const Instruction& what, uint32_t mask) {
        const bool wide = width_of(what.type) == 8;
        const unsigned half = wide ? 32 : 16;
        const uint64_t low = (1ull << half) - 1;
        each_lane(mask, [&](int i) {
            const auto in = [&](int k) { return source(warp, what.from[k]); };
            const auto out = [&](int k, uint64_t value) {
                if (what.to[k] >= 0)
                    put<uint32_t>(warp.registers + what.to[k], i, uint32_t(value));
            };
            if (what.op == UNPACK) {
                const uint64_t x = wide ? get<uint64_t>(in(0), i) : get<uint32_t>(in(0), i);
                out(0, x & low);
                out(1, x >> half);
                return;
            }
            const uint64_t x = (get<uint32_t>(in(0), i) & low) |
                               (get<uint32_t>(in(1), i) & low) << half;
            if (wide)
                put<uint64_t>(warp.registers + what.to[0], i, x);
            else
                out(0, x);
        });
    }
};

}  // namespace

extern "C" void run_grid(const Launch* launch) {
    Machine machine(*launch);
    const int n = launch->grid[0] * launch->grid[1] * launch->grid[2];
    for (int k = 0; k < n; ++k) machine.run_block(launch->order & 2 ? n - 1 - k : k);
}

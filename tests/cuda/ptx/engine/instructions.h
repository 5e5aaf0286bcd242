// Decoded instructions, and what a launch is told and tells: layout.py reads the enums below, and
// has the structs as data types.
#pragma once
#include <cstdint>

enum Op {
    NOP, MOV, ADD, SUB, MUL, MAD, FMA, DIV, REM, MIN, MAX, AND, OR, XOR, NOT, SHL, SHR, NEG, ABS,
    CVT, SETP, SELP, LD, ST, BRA, CALL, RET, EXIT, BAR, SQRT, RCP, PACK, UNPACK, CVTA_SHARED,
    CVTA_TO_SHARED, TRAP, POPC
};
enum Type { PRED, U8, S8, U16, S16, U32, S32, U64, S64, F16, F32, F64 };
// PARAM: parameters of functions, ENTRY: of kernels
enum Space { GENERIC, GLOBAL, SHARED, CONST, PARAM, LOCAL, ENTRY };
enum Compare { EQ, NE, LT, LE, GT, GE, EQU, NEU, LTU, LEU, GTU, GEU, NUM, NAN_ };
enum Half { LO, HI, WIDE };
enum Join { NO_JOIN, JOIN_AND, JOIN_OR, JOIN_XOR };
enum Rounding { NEAREST, NEAREST_INT, TO_ZERO_INT, DOWN_INT, UP_INT };
enum Event {
    OUT_OF_BOUNDS, MISALIGNED, UNINITIALISED_SHARED, UNINITIALISED_GLOBAL, DIVERGENT_BARRIER,
    BARRIER_MISSED, SHARED_RACE, WRITTEN_TWICE, READ_OF_WRITTEN, DIVISION_BY_ZERO, TRAPPED,
    BAD_SPACE, UNKNOWN, N_EVENTS
};
enum Shadow { LOADED = 1, STORED = 2, UNINITIALISED = 4, CACHED = 8 };  // of a byte

// Of what shared memory is addressed from in generic addresses.
constexpr uint64_t SHARED_WINDOW = 0x0100000000000000ull;
// Of what a kernel's parameters are addressed from: module.py has it too.
constexpr uint64_t ENTRY_WINDOW = 0x0200000000000000ull;

struct Instruction {
    int32_t op, type, from_type;
    int32_t mode;      // a Half, Rounding, Compare or Space
    int32_t detail;    // a Join; of a load, whether by the read-only cache
    int32_t ftz;       // subnormal float32 become zero on the way in and out
    int32_t guard;     // offset of a predicate in the registers of a warp, -1 for none
    int32_t negated;   // the guard
    int32_t to[4];     // offsets of registers, ABSENT where there is none
    int32_t from[5];   // likewise; ~offset of a constant
    int32_t n;         // of a vector
    int32_t wide;      // 1: the destination has 64 bits, 2: the address has
    int32_t target;    // instruction, call, or offset of a function's parameter
    int32_t rejoin;    // where lanes that part here meet again
    int64_t immediate;
};
struct Call { int32_t first, n_copies, start, n_back; };
struct Copy { int32_t from, to; };  // of a word of parameters
struct Stat {                       // of an instruction
    uint64_t runs, active_runs, lanes, bytes, sectors, block_sectors, waves, extra_waves;
};
struct Found { int32_t event, at, block, thread; uint64_t address; };
struct Buffer {  // of the device; the sectors tell which block asked for them last
    uint64_t start, size;
    uint8_t* shadow;
    uint32_t *loaded_by, *stored_by;
};
struct Totals {
    int64_t barriers, branches, divergent, bytes_loaded, bytes_stored, sectors_loaded,
        sectors_stored;
};

struct Launch {
    const Instruction* code;
    const Call* calls;
    const Copy* copies;
    const uint8_t* constants;  // operands, for each lane
    const uint8_t* const_memory;
    int64_t const_bytes;
    Buffer* buffers;  // by address
    int64_t n_buffers;
    Stat* stats;
    Found* found;
    int64_t most_found;
    int64_t* n_found;  // how many in `found`, then all by event
    Totals* totals;
    const uint8_t* parameters;  // of the kernel
    int64_t parameter_bytes;
    int64_t register_bytes, shared_bytes;
    int32_t start, grid[3], block[3];
    int32_t order;  // 1: warps in descending order, 2: blocks
};

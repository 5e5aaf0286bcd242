// Random numbers by counter: Philox4x32-10, as draws.py has it.
#pragma once
#include <cstdint>

#include "cuda.h"

struct DrawJob {
    int64 n_samples, n_blocks;
    uint64_t seed;
    int64 epoch;
};
struct BlockWords {  // words of a counter that a block of two numbers adds
    uint64_t third, fourth;
};

// Two numbers in [0, 1), of 53 bits.
static void draw_block(double* out, uint64_t index, uint64_t epoch, BlockWords block, uint64_t seed) {
    uint32_t a = uint32_t(index), b = uint32_t(epoch);
    uint32_t c = uint32_t(block.third | index >> 32), d = uint32_t(block.fourth);
    uint32_t key = uint32_t(seed), other_key = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t first = a * uint64_t(0xD2511F53), second = c * uint64_t(0xCD9E8D57);
        a = uint32_t(second >> 32) ^ b ^ key, b = uint32_t(second);
        c = uint32_t(first >> 32) ^ d ^ other_key, d = uint32_t(first);
        key += 0x9E3779B9, other_key += 0xBB67AE85;
    }
    out[0] = double((uint64_t(a) << 32 | b) >> 11) * 0x1p-53;
    out[1] = double((uint64_t(c) << 32 | d) >> 11) * 0x1p-53;
}

// Emulates a block of CUDA threads, so that a C++ compiler can build the kernels' own text.
//
// Threads of a block are fibers that switch at barriers only: deterministic, in any order
// (`emulation_set_order` shuffles it anew for every block). Shared memory is filled with NaN before
// each block and is a heap block of exactly the size asked for. A barrier that not all threads
// reach is an error. With EMULATE_WITH_THREADS every CUDA thread is an OS thread instead, for
// -fsanitize=address and -fsanitize=thread, which do not follow fibers.
//
// Not modelled: warps in lockstep, coalescing, bank conflicts, alignment, memory ordering, caches.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __constant__ static const
#define __grid_constant__
#define DYNAMIC_SHARED(Type, name) Type* name = reinterpret_cast<Type*>(emulation::shared_memory)

struct dim3 {
    unsigned x, y, z;
};

template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }
template <class T> inline T __ldg(const T* p) { return *p; }
inline float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
inline int __float_as_int(float value) {
    int bits;
    memcpy(&bits, &value, 4);
    return bits;
}

#ifndef EMULATE_WITH_THREADS  // CuPy's own kernels use it; fibers take turns, so this is atomic
template <class T, class U> inline T atomicAdd(T* at, U value) {
    const T before = *at;
    *at += value;
    return before;
}
#endif

// Half precision by integer arithmetic: compilers' _Float16 is not everywhere.
inline float half_to_float(unsigned short bits) {
    const uint32_t sign = uint32_t(bits >> 15) << 31, exponent = bits >> 10 & 31;
    const uint32_t fraction = bits & 1023;
    uint32_t word;
    float value;
    if (exponent == 0) {
        value = std::ldexp(float(fraction), -24);
        memcpy(&word, &value, 4);
        word |= sign;
    } else
        word = sign | (exponent == 31 ? 255u << 23 : (exponent + 112) << 23) | fraction << 13;
    memcpy(&value, &word, 4);
    return value;
}
inline unsigned short float_to_half(float value) {
    uint32_t word;
    memcpy(&word, &value, 4);
    const unsigned short sign = word >> 16 & 0x8000;
    const float size = std::fabs(value);
    if (std::isnan(value)) return sign | 0x7e00;
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size < 6.103515625e-05f) return sign | (unsigned short)(std::nearbyint(size * 16777216.0f));
    word &= 0x7fffffff;
    word += 0xfff + (word >> 13 & 1);  // round to nearest, ties to even
    return sign | (unsigned short)((word >> 13) - (112 << 10));
}

#ifdef EMULATE_WITH_THREADS
inline thread_local dim3 threadIdx;
#else
inline dim3 threadIdx;
#endif
inline dim3 blockIdx, blockDim, gridDim;

namespace emulation {
inline unsigned char* shared_memory = nullptr;

struct SharedMemory {
    size_t size;
    explicit SharedMemory(size_t n) : size(n) { shared_memory = (unsigned char*)malloc(n ? n : 1); }
    ~SharedMemory() { free(shared_memory); }
    void poison() { memset(shared_memory, 0xff, size); }
};

inline dim3 unflatten(unsigned i, dim3 size) {
    return {i % size.x, i / size.x % size.y, i / size.x / size.y};
}
}  // namespace emulation

#ifndef EMULATE_WITH_THREADS
#include <csetjmp>
#include <ucontext.h>

namespace emulation {
enum State { READY, AT_BARRIER, DONE };
constexpr size_t STACK_BYTES = 64 << 10;
constexpr unsigned MOST_THREADS = 1024;

struct Fiber {
    ucontext_t context;  // only to enter the fiber's stack the first time: later by longjmp, which
    jmp_buf resume;      // unlike setcontext makes no system call
    State state;
    bool entered;
    dim3 index;
};

inline Fiber fibers[MOST_THREADS];
inline jmp_buf scheduler;
inline Fiber* current;
inline void (*body)(void*);
inline void* body_argument;
inline uint64_t order_seed = 0;

inline void switch_to_scheduler(State state) {
    Fiber* self = current;
    self->state = state;
    if (!_setjmp(self->resume)) _longjmp(scheduler, 1);
    threadIdx = self->index;
}

inline void fiber_main() {
    for (;;) {  // a fiber serves all blocks, one after the other
        body(body_argument);
        switch_to_scheduler(DONE);
    }
}

inline void run_until_switch(Fiber& fiber) {
    current = &fiber;
    threadIdx = fiber.index;
    if (_setjmp(scheduler)) return;
    if (fiber.entered) _longjmp(fiber.resume, 1);
    fiber.entered = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = malloc(STACK_BYTES);  // kept for the life of the process
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    setcontext(&fiber.context);
}

inline uint64_t next_random(uint64_t& state) {  // xorshift64*
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 2685821657736338717ull;
}

inline const char* run_block(unsigned n, const unsigned* order) {
    for (unsigned i = 0; i < n; ++i) {
        fibers[i].state = READY;
        fibers[i].index = unflatten(i, blockDim);
    }
    for (;;) {
        for (unsigned k = 0; k < n; ++k) run_until_switch(fibers[order[k]]);
        unsigned done = 0;
        for (unsigned i = 0; i < n; ++i) done += fibers[i].state == DONE;
        if (done == n) return nullptr;
        if (done > 0) {
            // their stacks are in the middle of a block: never resume them
            for (unsigned i = 0; i < n; ++i) fibers[i].entered = false;
            return "divergent __syncthreads: some threads of the block returned without it";
        }
    }
}

template <class Body> const char* launch(dim3 grid, dim3 block, size_t shared_bytes, Body run) {
    const unsigned n = block.x * block.y * block.z;
    if (n == 0 || n > MOST_THREADS) return "a block must have 1 to 1024 threads";
    if (shared_bytes > 48 << 10) return "more than 48 KiB of shared memory";
    gridDim = grid, blockDim = block;
    unsigned order[MOST_THREADS];
    for (unsigned i = 0; i < n; ++i) order[i] = i;
    uint64_t random = order_seed;
    body = [](void* argument) { (*static_cast<Body*>(argument))(); };
    body_argument = &run;
    SharedMemory memory(shared_bytes);
    for (unsigned b = 0; b < grid.x * grid.y * grid.z; ++b) {
        if (order_seed)
            for (unsigned i = n - 1; i > 0; --i)
                std::swap(order[i], order[next_random(random) % (i + 1)]);
        blockIdx = unflatten(b, grid);
        memory.poison();
        if (const char* error = run_block(n, order)) return error;
    }
    return nullptr;
}
inline void barrier() { switch_to_scheduler(AT_BARRIER); }
}  // namespace emulation
extern "C" inline void emulation_set_order(uint64_t seed) { emulation::order_seed = seed; }

#else
#include <pthread.h>
#include <thread>
#include <vector>

namespace emulation {
// Two by turns: a thread that is already at the next barrier would otherwise lend its accesses to
// one that has not yet left this, and ThreadSanitizer would take them for ordered.
inline pthread_barrier_t barriers[2];
inline thread_local unsigned n_passed = 0;
inline void barrier() { pthread_barrier_wait(&barriers[n_passed++ % 2]); }

template <class Body> const char* launch(dim3 grid, dim3 block, size_t shared_bytes, Body run) {
    const unsigned n = block.x * block.y * block.z;
    gridDim = grid, blockDim = block;
    for (auto& barrier : barriers) pthread_barrier_init(&barrier, nullptr, n);
    SharedMemory memory(shared_bytes);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < n; ++i)
        threads.emplace_back([&, i] {
            threadIdx = unflatten(i, blockDim);
            for (unsigned b = 0; b < grid.x * grid.y * grid.z; ++b) {
                if (i == 0) blockIdx = unflatten(b, grid), memory.poison();
                barrier();
                run();
                barrier();
            }
        });
    for (auto& thread : threads) thread.join();
    for (auto& barrier : barriers) pthread_barrier_destroy(&barrier);
    return nullptr;
}
}  // namespace emulation
extern "C" inline void emulation_set_order(uint64_t) {}
#endif
#define __syncthreads() emulation::barrier()

namespace emulation {
// The calling convention of cuLaunchKernel: an array of pointers to the arguments.
template <class... A, size_t... I>
const char* call(void (*kernel)(A...), const unsigned* dims, size_t shared_bytes, void** arguments,
                 std::index_sequence<I...>) {
    return launch({dims[0], dims[1], dims[2]}, {dims[3], dims[4], dims[5]}, shared_bytes,
                  [=] { kernel(*static_cast<A*>(arguments[I])...); });
}
template <class... A>
const char* call(void (*kernel)(A...), const unsigned* dims, size_t shared_bytes,
                 void** arguments) {
    return call(kernel, dims, shared_bytes, arguments, std::index_sequence_for<A...>{});
}
}  // namespace emulation

#define EMULATION_EXPORT(kernel)                                                                \
    extern "C" const char* emulation_launch(const unsigned* dims, size_t shared_bytes,          \
                                            void** arguments) {                                 \
        return emulation::call(kernel, dims, shared_bytes, arguments);                          \
    }                                                                                           \
    extern "C" void emulation_order(uint64_t seed) { emulation_set_order(seed); }

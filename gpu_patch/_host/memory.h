// Memory that a thread works in: it grows, and serves one unit of work after the other.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size)
#define ASAN_UNPOISON_MEMORY_REGION(at, size)
#endif

class Scratch {
    char* memory = nullptr;
    size_t size = 0, used = 0;
    static constexpr size_t LINE = 64, KEPT = 16 << 20;

public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    ~Scratch() { release(); }
    // Everything taken so far is given up.
    void reset(size_t n_bytes) {
        used = 0;
        if (n_bytes > size) {
            release();
            memory = (char*)operator new(n_bytes, std::align_val_t{LINE});
            size = n_bytes;
        }
        ASAN_POISON_MEMORY_REGION(memory, size);
    }
    // What a usual batch needs is kept for the next.
    void rest() {
        if (size > KEPT) release();
    }
    template <class T> T* take(size_t n) {
        T* found = (T*)(memory + used);
        used += bytes<T>(n);
        ASAN_UNPOISON_MEMORY_REGION(found, n * sizeof(T));
        return found;
    }
    // What `take` uses up.
    template <class T> static size_t bytes(size_t n) {
        return (n * sizeof(T) + LINE - 1) / LINE * LINE + LINE;
    }

private:
    void release() {
        ASAN_UNPOISON_MEMORY_REGION(memory, size);
        operator delete(memory, std::align_val_t{LINE});
        memory = nullptr, size = 0;
    }
};

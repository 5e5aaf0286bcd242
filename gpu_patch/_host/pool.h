// Threads that share the units of a call. Own ones: OpenMP's clash with PyTorch's, and hang after a
// fork. They are kept from call to call; a forked process starts its own. Who waits looks on for a
// little while before it sleeps: to be woken takes as long as many a patch.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>
#ifndef _WIN32
#include <unistd.h>
#endif

#include "memory.h"

enum Result { DONE = 0, NO_MEMORY = 1, FAILED = 2, IMPOSSIBLE = 3, NOT_HELD = 4 };

static inline int64_t process_number() {
#ifdef _WIN32
    return 0;  // there is no fork
#else
    return getpid();
#endif
}

// Whether something comes true within 100 µs: Python plans the next small batch meanwhile.
template <class Condition> static bool soon(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(100);
    do {
        for (int i = 0; i < 64; ++i) {
            if (condition()) return true;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#else
            asm volatile("yield");
#endif
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

class Pool {
    std::mutex mutex, one_call;
    std::condition_variable wake, done;
    std::vector<std::thread> threads;
    void (*work)(void*) = nullptr;
    void* argument = nullptr;
    int wanted = 0;
    std::atomic<int> busy{0};  // this and the next change under the lock alone
    std::atomic<uint64_t> call{0};

    void serve() {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            lock.unlock();
            soon([&] { return call != seen; });
            lock.lock();
            wake.wait(lock, [&] { return call != seen; });
            seen = call;
            if (wanted == 0) continue;
            --wanted;
            const auto own_work = work;
            void* const own_argument = argument;
            lock.unlock();
            own_work(own_argument);
            lock.lock();
            if (--busy == 0) done.notify_one();
        }
    }
    void grow(size_t n) {
        try {
            while (threads.size() < n) {
                threads.emplace_back([this] { serve(); });
                threads.back().detach();  // nobody waits for them when the process ends
            }
        } catch (const std::system_error&) {
        } catch (const std::bad_alloc&) {
        }  // fewer do as well
    }

public:
    const int64_t owner = process_number();

    // Call f(a) here and on some other threads, at most; it shares the work by itself, and throws
    // nothing.
    void run(void (*f)(void*), void* a, int others) {
        std::unique_lock<std::mutex> calling(one_call, std::try_to_lock);
        if (!calling || others <= 0) return f(a);  // another call has the threads: alone
        {
            std::lock_guard<std::mutex> lock(mutex);
            grow(others);
            work = f, argument = a, ++call;
            wanted = threads.size() < size_t(others) ? int(threads.size()) : others;
            busy = wanted;
        }
        wake.notify_all();
        f(a);
        std::unique_lock<std::mutex> lock(mutex);
        busy -= wanted, wanted = 0;  // those who have not begun need not
        lock.unlock();
        soon([&] { return busy == 0; });
        lock.lock();
        done.wait(lock, [&] { return busy == 0; });
    }
};

static Pool& pool() {
    static std::atomic<Pool*> current{nullptr};
    Pool* found = current.load();
    if (!found || found->owner != process_number()) {  // a parent's threads are not here
        Pool* fresh = new Pool;  // the parent's is left alone: its locks may be held
        if (current.compare_exchange_strong(found, fresh)) return *fresh;
        delete fresh;
    }
    return *current.load();
}

// Call each(unit, scratch) for 0 … n - 1. What one of them throws is the result; the others are
// then left out.
template <class Each> static int share(int64_t n, int n_threads, Each each) {
    struct Shared {
        std::atomic<int64_t> next{0};
        std::atomic<int> result{DONE};
        int64_t n;
        Each* each;
    } shared;
    shared.n = n, shared.each = &each;
    const auto work = [](void* argument) {
        Shared& own = *(Shared*)argument;
        static thread_local Scratch scratch;
        try {
            for (int64_t i; own.result == DONE && (i = own.next++) < own.n;)
                (*own.each)(i, scratch);
            scratch.rest();
        } catch (const std::bad_alloc&) {
            own.result = NO_MEMORY;
        } catch (...) {
            own.result = FAILED;
        }
    };
    const int64_t others = (n < n_threads ? n : n_threads) - 1;
    if (others <= 0)
        work(&shared);
    else
        try {
            pool().run(work, &shared, int(others));
        } catch (const std::bad_alloc&) {
            return NO_MEMORY;
        }
    return shared.result;
}

// A device in host memory: what is allocated, and streams whose work waits until it is waited for.
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace on_cpu {
// One lock for everything; CuPy's threads hold it while they work for the device, too.
extern std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

// ---- what was asked for, for tests to read and to set to zero ----------------------------------

#define ON_CPU_COUNTERS(X)                                                                      \
    X(uploads) X(upload_bytes) X(pageable_uploads) X(downloads) X(download_bytes)               \
    X(device_copies) X(device_copy_bytes) X(fills) X(launches) X(stream_syncs) X(device_syncs)  \
    X(event_syncs) X(implicit_syncs) X(queries) X(event_waits) X(event_records) X(allocations)  \
    X(allocated_bytes) X(pinned_allocations) X(pinned_bytes) X(compilations)

#define ON_CPU_NAME(name) name,
enum Counter { ON_CPU_COUNTERS(ON_CPU_NAME) n_counters };
#undef ON_CPU_NAME
extern int64_t counters[n_counters];

// ---- settings ----------------------------------------------------------------------------------

enum Mode {
    DEFERRED,  // work is done when it is waited for, as late as CUDA may do it
    EAGER,     // work is done when it is submitted
    DROPPED,   // work is not done at all, to time what submits it
};
extern Mode mode;
extern size_t capacity;
extern int n_devices;

// ---- memory ------------------------------------------------------------------------------------

enum Kind { DEVICE, MANAGED, PINNED };
struct Block {
    size_t size;
    Kind kind;
};
void* allocate(size_t size, Kind kind);  // nullptr where there is no room
bool release(void* start);               // false where it was not allocated, or is spoilt
size_t used_bytes();
const Block* find(const void* address, size_t size);  // that the range is inside of
const char* spoilt_guard();                           // a message, once; nullptr where none is

// ---- streams -----------------------------------------------------------------------------------

struct Stream;
struct Place {  // in a stream's work
    std::shared_ptr<Stream> stream;
    uint64_t end = 0;
    bool done() const;
};
struct Work {
    std::function<cudaError_t()> run;
    std::vector<Place> after;
};
struct Stream : std::enable_shared_from_this<Stream> {
    unsigned flags = 0;
    int priority = 0;
    uint64_t submitted = 0, completed = 0;
    std::deque<Work> queue;

    // Submit work that is done after `after`, too.
    void submit(std::function<cudaError_t()> run, std::vector<Place> after = {});
    void run(uint64_t end);  // until so much is completed
    void step();             // one piece of work, here or where this waits for
};
std::shared_ptr<Stream> stream_of(cudaStream_t handle);  // nullptr where there is none
cudaStream_t create_stream(unsigned flags, int priority);
bool destroy_stream(cudaStream_t handle);
void finish();  // all streams

struct Event {
    Place place;
    std::shared_ptr<double> milliseconds = std::make_shared<double>(-1);  // when it was passed
};
Event* event_of(cudaEvent_t handle);
cudaEvent_t create_event();
bool destroy_event(cudaEvent_t handle);
double now();

// ---- errors of work, which show when something waits for it ------------------------------------

cudaError_t fail(cudaError_t error, const std::string& message);  // says so on stderr, too
cudaError_t pending_error();
}  // namespace on_cpu

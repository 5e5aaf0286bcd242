#include "device.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace on_cpu {
namespace {
constexpr unsigned char POISON = 0xff;  // NaN in float32 and float16
constexpr size_t GUARD_BYTES = 4096;

size_t setting(const char* name, size_t otherwise) {
    const char* value = getenv(name);
    return value ? strtoull(value, nullptr, 10) : otherwise;
}

std::map<uintptr_t, Block> blocks;
std::map<cudaStream_t, std::shared_ptr<Stream>> streams;
std::vector<std::shared_ptr<Stream>> destroyed;  // with work left
std::set<Event*> events;
const auto legacy = std::make_shared<Stream>();
const auto per_thread = std::make_shared<Stream>();  // of all threads: one, which CUDA may do
cudaError_t sticky = cudaSuccess;

std::vector<std::shared_ptr<Stream>> all_streams() {
    std::vector<std::shared_ptr<Stream>> all = {legacy, per_thread};
    for (const auto& [_, stream] : streams) all.push_back(stream);
    all.insert(all.end(), destroyed.begin(), destroyed.end());
    return all;
}

bool guard_is_whole(uintptr_t start, const Block& block) {
    static const std::vector<unsigned char> poison(GUARD_BYTES, POISON);
    return !memcmp(reinterpret_cast<void*>(start + block.size), poison.data(), GUARD_BYTES);
}
}  // namespace

std::recursive_mutex mutex;
int64_t counters[n_counters];
Mode mode = Mode(setting("CUDA_ON_CPU_MODE", DEFERRED));
size_t capacity = setting("CUDA_ON_CPU_BYTES", size_t(4) << 30);
int n_devices = int(setting("CUDA_ON_CPU_DEVICES", 1));

// ---- memory ------------------------------------------------------------------------------------

size_t used_bytes() {
    size_t used = 0;
    for (const auto& [_, block] : blocks)
        if (block.kind != PINNED) used += block.size;
    return used;
}

void* allocate(size_t size, Kind kind) {
    if (kind != PINNED && size > capacity - std::min(capacity, used_bytes())) return nullptr;
    void* start = aligned_alloc(512, (size + GUARD_BYTES + 511) / 512 * 512);
    if (!start) return nullptr;
    memset(start, POISON, size + GUARD_BYTES);
    blocks[uintptr_t(start)] = {size, kind};
    counters[kind == PINNED ? pinned_allocations : allocations] += 1;
    counters[kind == PINNED ? pinned_bytes : allocated_bytes] += size;
    return start;
}

bool release(void* start) {
    const auto found = blocks.find(uintptr_t(start));
    if (found == blocks.end()) return false;
    if (!guard_is_whole(found->first, found->second))
        fail(cudaErrorIllegalAddress, "something was written behind the end of memory given back");
    blocks.erase(found);
    free(start);
    return true;
}

const Block* find(const void* address, size_t size) {
    const auto start = uintptr_t(address);
    auto found = blocks.upper_bound(start);
    if (found == blocks.begin()) return nullptr;
    --found;
    const bool inside = start + size <= found->first + found->second.size;
    // the end of a block is inside for nothing that has a size, nor for a mere look
    return inside && start < found->first + std::max<size_t>(found->second.size, 1)
               ? &found->second
               : nullptr;
}

const char* spoilt_guard() {
    for (const auto& [start, block] : blocks)
        if (!guard_is_whole(start, block)) {
            // said once
            memset(reinterpret_cast<void*>(start + block.size), POISON, GUARD_BYTES);
            return "something was written behind the end of memory";
        }
    return nullptr;
}

// ---- streams -----------------------------------------------------------------------------------

bool Place::done() const { return !stream || stream->completed >= end; }

void Stream::submit(std::function<cudaError_t()> run, std::vector<Place> after) {
    if (mode == DROPPED) return void(completed = ++submitted);
    // The legacy stream and the blocking ones wait for each other.
    if (this == legacy.get()) {
        for (const auto& other : all_streams())
            if (other != legacy && !(other->flags & cudaStreamNonBlocking))
                after.push_back({other, other->submitted});
    } else if (!(flags & cudaStreamNonBlocking)) {
        after.push_back({legacy, legacy->submitted});
    }
    after.erase(std::remove_if(after.begin(), after.end(), [](auto& p) { return p.done(); }),
                after.end());
    queue.push_back({std::move(run), std::move(after)});
    ++submitted;
    if (mode == EAGER) this->run(submitted);
}

void Stream::step() {
    if (queue.empty()) return;
    for (const Place& place : queue.front().after)
        if (!place.done()) return place.stream->step();
    const Work work = std::move(queue.front());
    queue.pop_front();
    if (!sticky) work.run();
    ++completed;
}

void Stream::run(uint64_t end) {
    while (completed < end) step();
}

std::shared_ptr<Stream> stream_of(cudaStream_t handle) {
    if (handle == nullptr || handle == cudaStreamLegacy) return legacy;
    if (handle == cudaStreamPerThread) return per_thread;
    const auto found = streams.find(handle);
    return found == streams.end() ? nullptr : found->second;
}

cudaStream_t create_stream(unsigned flags, int priority) {
    const auto stream = std::make_shared<Stream>();
    stream->flags = flags, stream->priority = priority;
    const auto handle = reinterpret_cast<cudaStream_t>(stream.get());
    streams[handle] = stream;
    return handle;
}

bool destroy_stream(cudaStream_t handle) {
    const auto found = streams.find(handle);
    if (found == streams.end()) return false;
    destroyed.push_back(found->second);
    streams.erase(found);
    destroyed.erase(std::remove_if(destroyed.begin(), destroyed.end(),
                                   [](auto& s) { return s->queue.empty(); }),
                    destroyed.end());
    return true;
}

void finish() {
    for (const auto& stream : all_streams()) stream->run(stream->submitted);
    destroyed.clear();
}

Event* event_of(cudaEvent_t handle) {
    const auto event = reinterpret_cast<Event*>(handle);
    return events.count(event) ? event : nullptr;
}

cudaEvent_t create_event() {
    return reinterpret_cast<cudaEvent_t>(*events.insert(new Event).first);
}

bool destroy_event(cudaEvent_t handle) {
    Event* event = event_of(handle);
    if (event) events.erase(event), delete event;
    return event;
}

double now() {
    const auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(since).count();
}

// ---- errors ------------------------------------------------------------------------------------

cudaError_t fail(cudaError_t error, const std::string& message) {
    fprintf(stderr, "cuda_on_cpu: %s\n", message.c_str());
    return sticky = error;
}

cudaError_t pending_error() { return sticky; }

extern "C" {
int64_t* on_cpu_counters() { return counters; }
const char* on_cpu_counter_names() {
#define ON_CPU_NAME(name) #name " "
    return ON_CPU_COUNTERS(ON_CPU_NAME);
#undef ON_CPU_NAME
}
void on_cpu_set_mode(int wanted) {
    Lock lock(mutex);
    finish();
    mode = Mode(wanted);
}
void on_cpu_set_capacity(size_t bytes) { capacity = bytes; }
// Work that nobody has waited for yet.
int64_t on_cpu_pending() {
    Lock lock(mutex);
    int64_t pending = 0;
    for (const auto& stream : all_streams()) pending += stream->queue.size();
    return pending;
}
void on_cpu_forget_error() { sticky = cudaSuccess; }
}
}  // namespace on_cpu

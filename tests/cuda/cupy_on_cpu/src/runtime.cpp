// The functions of libcudart that CuPy needs for arrays, copies, streams and events.
#include <cuda_profiler_api.h>

#include <cstring>

#include "device.h"

using namespace on_cpu;

namespace {
enum Direction { UPLOAD, DOWNLOAD, WITHIN, ON_HOST };

bool on_device(const Block* block) { return block && block->kind != PINNED; }

// What `kind` says, or where the addresses are.
Direction direction(const void* to, const void* from, cudaMemcpyKind kind) {
    switch (kind) {
    case cudaMemcpyHostToDevice: return UPLOAD;
    case cudaMemcpyDeviceToHost: return DOWNLOAD;
    case cudaMemcpyDeviceToDevice: return WITHIN;
    case cudaMemcpyHostToHost: return ON_HOST;
    default:
        const bool to_device = on_device(find(to, 0)), from_device = on_device(find(from, 0));
        return to_device ? (from_device ? WITHIN : UPLOAD) : (from_device ? DOWNLOAD : ON_HOST);
    }
}

void wait(Stream& stream, Counter counter) {
    ++counters[counter];
    stream.run(stream.submitted);
}

// Copies run when their stream comes to them: the memory must still be there.
std::function<cudaError_t()> copy_later(void* to, const void* from, size_t size, bool check_to,
                                        bool check_from) {
    return [=] {
        if ((check_to && !find(to, size)) || (check_from && !find(from, size)))
            return fail(cudaErrorIllegalAddress, "memory was given back before it was copied");
        memmove(to, from, size);
        return cudaSuccess;
    };
}

cudaError_t copy(void* to, const void* from, size_t size, cudaMemcpyKind kind, Stream& stream,
                 bool synchronous) {
    const Direction way = direction(to, from, kind);
    if (size == 0) return pending_error();
    if (((way == UPLOAD || way == WITHIN) && !on_device(find(to, size))) ||
        ((way == DOWNLOAD || way == WITHIN) && !on_device(find(from, size))))
        return cudaErrorInvalidValue;
    switch (way) {
    case UPLOAD: {
        ++counters[uploads], counters[upload_bytes] += size;
        if (find(from, size)) {
            stream.submit(copy_later(to, from, size, true, true));
        } else {
            // Pageable memory is read before the call returns.
            ++counters[pageable_uploads];
            const auto staged = std::make_shared<std::vector<char>>(
                static_cast<const char*>(from), static_cast<const char*>(from) + size);
            stream.submit([=] {
                return copy_later(to, staged->data(), size, true, false)();
            });
        }
        break;
    }
    case DOWNLOAD: {
        ++counters[downloads], counters[download_bytes] += size;
        const bool pinned = find(to, size);
        stream.submit(copy_later(to, from, size, pinned, true));
        // Pageable memory is written before the call returns.
        if (!pinned && !synchronous) wait(stream, implicit_syncs);
        break;
    }
    case WITHIN:
        ++counters[device_copies], counters[device_copy_bytes] += size;
        stream.submit(copy_later(to, from, size, true, true));
        return pending_error();  // for which no call waits
    case ON_HOST: stream.submit(copy_later(to, from, size, false, false));
    }
    if (synchronous) wait(stream, implicit_syncs);
    return pending_error();
}

cudaError_t fill(void* to, int value, size_t size, Stream& stream) {
    if (size == 0) return pending_error();
    if (!on_device(find(to, size))) return cudaErrorInvalidValue;
    ++counters[fills];
    stream.submit([=] {
        if (!find(to, size))
            return fail(cudaErrorIllegalAddress, "memory was given back before it was filled");
        memset(to, value, size);
        return cudaSuccess;
    });
    return pending_error();
}

cudaError_t take(void** to, size_t size, Kind kind) {
    Lock lock(mutex);
    *to = nullptr;
    if (size == 0) return cudaSuccess;
    *to = allocate(size, kind);
    return *to ? cudaSuccess : cudaErrorMemoryAllocation;
}

// Memory is given back when all work is done: CUDA waits, too.
cudaError_t give_back(void* start) {
    Lock lock(mutex);
    if (!start) return cudaSuccess;
    ++counters[implicit_syncs];
    finish();
    return release(start) ? pending_error() : cudaErrorInvalidValue;
}
}  // namespace

#define STREAM_OR_RETURN(handle)                                  \
    Lock lock(mutex);                                             \
    const std::shared_ptr<Stream> stream = stream_of(handle);     \
    if (!stream) return cudaErrorInvalidResourceHandle

#define EVENT_OR_RETURN(handle)                                   \
    Lock lock(mutex);                                             \
    Event* const event = event_of(handle);                        \
    if (!event) return cudaErrorInvalidResourceHandle

extern "C" {
// ---- errors, versions, the device --------------------------------------------------------------

const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorNotSupported: return "cudaErrorNotSupported";
    default: return "cudaErrorUnknown";
    }
}
const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorNotSupported: return "not supported by cuda_on_cpu";
    default: return "see the name, and what cuda_on_cpu printed";
    }
}
cudaError_t cudaGetLastError() { return pending_error(); }

cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) {
    *count = n_devices;
    return n_devices ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device ? cudaErrorInvalidDevice : cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    if (device) return cudaErrorInvalidDevice;
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 << 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 << 10; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = 132; break;
    case cudaDevAttrMemoryPoolsSupported: *value = 1; break;
    case cudaDevAttrUnifiedAddressing: *value = 1; break;
    default: *value = 0;
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    if (device) return cudaErrorInvalidDevice;
    *properties = {};
    strcpy(properties->name, "CUDA on CPU");
    properties->totalGlobalMem = capacity;
    properties->sharedMemPerBlock = 48 << 10;
    properties->sharedMemPerBlockOptin = 227 << 10;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->major = 9;
    properties->multiProcessorCount = 132;
    properties->unifiedAddressing = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
    Lock lock(mutex);
    ++counters[device_syncs];
    finish();
    return pending_error();
}

cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

// ---- memory ------------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** to, size_t size) { return take(to, size, DEVICE); }
cudaError_t cudaMallocManaged(void** to, size_t size, unsigned) { return take(to, size, MANAGED); }
cudaError_t cudaHostAlloc(void** to, size_t size, unsigned) { return take(to, size, PINNED); }
cudaError_t cudaMallocAsync(void** to, size_t size, cudaStream_t handle) {
    STREAM_OR_RETURN(handle);
    return take(to, size, DEVICE);
}
cudaError_t cudaFree(void* start) { return give_back(start); }
cudaError_t cudaFreeHost(void* start) { return give_back(start); }
cudaError_t cudaFreeAsync(void* start, cudaStream_t handle) {
    STREAM_OR_RETURN(handle);
    if (!find(start, 0)) return cudaErrorInvalidValue;
    stream->submit([=] { return release(start) ? cudaSuccess : cudaErrorInvalidValue; });
    return pending_error();
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    Lock lock(mutex);
    *total = capacity, *free = capacity - std::min(capacity, used_bytes());
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
    Lock lock(mutex);
    const Block* block = find(address, 0);
    *attributes = {};
    attributes->type = !block                   ? cudaMemoryTypeUnregistered
                       : block->kind == PINNED  ? cudaMemoryTypeHost
                       : block->kind == MANAGED ? cudaMemoryTypeManaged
                                                : cudaMemoryTypeDevice;
    attributes->device = block ? 0 : -2;
    if (block) attributes->devicePointer = const_cast<void*>(address);
    if (!block || block->kind != DEVICE) attributes->hostPointer = const_cast<void*>(address);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
    STREAM_OR_RETURN(cudaStreamLegacy);
    return copy(to, from, size, kind, *stream, true);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind,
                            cudaStream_t handle) {
    STREAM_OR_RETURN(handle);
    return copy(to, from, size, kind, *stream, false);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t handle) {
    STREAM_OR_RETURN(handle);
    const size_t most = 0x7fffffff;  // cudaDevAttrMaxPitch
    if (width > pitch || width > from_pitch || pitch > most || from_pitch > most)
        return cudaErrorInvalidPitchValue;
    for (size_t row = 0; row < height; ++row) {
        const cudaError_t error =
            copy(static_cast<char*>(to) + row * pitch,
                 static_cast<const char*>(from) + row * from_pitch, width, kind, *stream, false);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t size) {
    STREAM_OR_RETURN(cudaStreamLegacy);
    return fill(to, value, size, *stream);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t handle) {
    STREAM_OR_RETURN(handle);
    return fill(to, value, size, *stream);
}

// ---- streams -----------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned flags, int priority) {
    Lock lock(mutex);
    *handle = create_stream(flags, priority);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
    return cudaStreamCreateWithPriority(handle, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* handle) { return cudaStreamCreateWithFlags(handle, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    Lock lock(mutex);
    return destroy_stream(handle) ? cudaSuccess : cudaErrorInvalidResourceHandle;
}
cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
    STREAM_OR_RETURN(handle);
    return *flags = stream->flags, cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
    STREAM_OR_RETURN(handle);
    return *priority = stream->priority, cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
    STREAM_OR_RETURN(handle);
    return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    STREAM_OR_RETURN(handle);
    wait(*stream, stream_syncs);
    // The legacy stream waits for what was submitted to the others, too.
    if (stream == stream_of(cudaStreamLegacy)) {
        stream->submit([] { return cudaSuccess; });
        stream->run(stream->submitted);
    }
    return pending_error();
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
    STREAM_OR_RETURN(handle);
    ++counters[queries];
    if (stream->queue.empty()) return pending_error();
    stream->step();  // so that whoever polls comes to an end
    return cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned) {
    STREAM_OR_RETURN(handle);
    const Event* event = event_of(event_handle);
    if (!event) return cudaErrorInvalidResourceHandle;
    ++counters[event_waits];
    stream->submit([] { return cudaSuccess; }, {event->place});
    return pending_error();
}

// ---- events ------------------------------------------------------------------------------------

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned) {
    Lock lock(mutex);
    return *handle = create_event(), cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* handle) { return cudaEventCreateWithFlags(handle, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t handle) {
    Lock lock(mutex);
    return destroy_event(handle) ? cudaSuccess : cudaErrorInvalidResourceHandle;
}
cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
    EVENT_OR_RETURN(handle);
    const std::shared_ptr<Stream> stream = stream_of(stream_handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    ++counters[event_records];
    // its own: an earlier record may still wait in a queue
    const auto time = event->milliseconds = std::make_shared<double>(-1);
    event->place = {stream, stream->submitted + 1};
    stream->submit([time] { return *time = now(), cudaSuccess; });
    return pending_error();
}
cudaError_t cudaEventQuery(cudaEvent_t handle) {
    EVENT_OR_RETURN(handle);
    ++counters[queries];
    if (event->place.done()) return pending_error();
    event->place.stream->step();  // so that whoever polls comes to an end
    return cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
    EVENT_OR_RETURN(handle);
    ++counters[event_syncs];
    if (!event->place.done()) event->place.stream->run(event->place.end);
    return pending_error();
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
    Lock lock(mutex);
    const Event *first = event_of(start), *last = event_of(end);
    if (!first || !last || !first->place.stream || !last->place.stream)
        return cudaErrorInvalidResourceHandle;
    if (!first->place.done() || !last->place.done()) return cudaErrorNotReady;
    *milliseconds = float(*last->milliseconds - *first->milliseconds);
    return cudaSuccess;
}
}  // extern "C"

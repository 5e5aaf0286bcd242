"""CUDA devices that the emulation works on: memory, streams, events, and a record of it all.

Work waits in its stream until somebody waits for it, as late as CUDA may do it, so that results
read too early are poison, and memory used again too early shows.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from emulation import limits
from emulation.runtime import GUARD_BYTES, POISON, compiled_kernel

HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3


_running = threading.RLock()
"""One thread at a time does work: whoever finds it done must find all of it done."""


class Action(NamedTuple):
    """What was asked of a device."""

    kind: str
    """"upload", "download", "launch", "synchronize", "wait_event" or "pin"."""
    what: Any
    """Bytes, or the name of a kernel, or of what was waited for."""
    stream: int
    device: int


class OutOfMemoryError(MemoryError):
    def __init__(self, size, total):
        super().__init__(f"Out of memory allocating {size:,} bytes ({total:,} bytes so far).")


class Gpu:
    """State of all devices.

    Attributes
    ----------
    n_devices : int
        How many there are.
    capacity, pinned_capacity : int
        Bytes of each, and of the host's memory that may be pinned.
    log : list of Action
        What was asked so far; a test may clear it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Take out the devices, and put new ones in."""
        self.n_devices, self.capacity, self.pinned_capacity = 1, 1 << 30, 1 << 30
        self.log: list[Action] = []
        self.memories: WeakValueDictionary[int, Memory] = WeakValueDictionary()
        self.pinned: WeakValueDictionary[int, Pinned] = WeakValueDictionary()
        self.events: WeakValueDictionary[int, Event] = WeakValueDictionary()
        self.streams: list[Stream] = []
        self._null: dict[int, Stream] = {}
        self._here = _Here()

    @property
    def device(self) -> int:
        """The current device of this thread."""
        return self._here.devices[-1]

    @property
    def stream(self) -> Stream:
        """The current stream of this thread, on the current device."""
        return self.stream_stack()[-1]

    def stream_of(self, device: int = -1) -> Stream:
        """Return the current stream of this thread, on a device."""
        with Device(None if device < 0 else device):
            return self.stream

    def device_stack(self) -> list[int]:
        return self._here.devices

    def stream_stack(self) -> list[Stream]:
        if self.device not in self._null:
            self._null[self.device] = Stream(null=True)
        return self._here.streams.setdefault(self.device, [self._null[self.device]])

    def record(self, kind: str, what: Any, stream: Stream | None = None) -> None:
        stream = stream or self.stream
        self.log.append(Action(kind, what, stream.ptr, stream.device_id))

    def count(self, kind: str) -> int:
        return sum(action.kind == kind for action in self.log)

    def used_bytes(self, device: int | None = None) -> int:
        device = self.device if device is None else device
        return sum(m.size for m in living(self.memories) if m.device_id == device)

    def finish(self, device: int | None = None) -> None:
        """Do all work that waits."""
        for stream in list(self.streams):
            if device in (None, stream.device_id):
                stream.run()


def living(objects: WeakValueDictionary[int, Any]) -> list[Any]:
    """Return what is there now; other threads may add and drop while it is looked at."""
    # one step of the interpreter, which `values` is not
    references = list(objects.data.copy().values())
    return [found for found in (reference() for reference in references) if found is not None]


class _Here(threading.local):
    def __init__(self) -> None:
        self.devices: list[int] = [0]
        self.streams: dict[int, list[Stream]] = {}


gpu = Gpu()


class Device:
    """`cupy.cuda.Device`."""

    def __init__(self, device: int | None = None) -> None:
        self.id = gpu.device if device is None else int(device)
        assert self.id < gpu.n_devices

    attributes = {  # noqa: RUF012  # of an H200
        "MultiProcessorCount": 132,
        "ClockRate": 1_755_000,
        "MaxSharedMemoryPerMultiprocessor": 228 << 10,
    }

    def __enter__(self):
        gpu.device_stack().append(self.id)
        return self

    def __exit__(self, *_):
        gpu.device_stack().pop()

    def use(self):
        gpu.device_stack()[-1] = self.id

    def synchronize(self):
        gpu.record("synchronize", "device")
        gpu.finish(self.id)


class Stream:
    """`cupy.cuda.Stream`; each waits for itself alone."""

    def __init__(self, null=False, non_blocking=False, ptds=False) -> None:
        self.device_id = gpu.device
        self.ptr = 0 if null else id(self)
        self.completed = self.submitted = 0
        self._queue: deque[Callable[[], None]] = deque()
        self._submitting = threading.Lock()
        self._capturing = False
        gpu.streams.append(self)

    def __enter__(self):
        assert self.device_id == gpu.device, "a stream of another device"
        gpu.stream_stack().append(self)
        return self

    def __exit__(self, *_):
        gpu.stream_stack().pop()

    def submit(self, work: Callable[[], None]) -> None:
        # memory goes back to its pool in the order of the stream, so what is there now still is
        # when the work is done
        alive = living(gpu.memories)

        def check_and_work():
            work()
            if not all(memory.is_intact() for memory in alive):
                raise RuntimeError("something was written behind the end of device memory")

        with self._submitting:  # threads may share a stream, and events count its work
            self._queue.append(check_and_work)
            self.submitted += 1

    def run(self, until: int | None = None) -> None:
        """Do the work that was submitted first."""
        with _running:
            while self._queue and (until is None or self.completed < until):
                work = self._queue.popleft()
                try:
                    work()
                finally:  # not before: an event that is done says that all of it is
                    self.completed += 1

    @property
    def done(self):
        return not self._queue

    def begin_capture(self):
        self._capturing = True

    def end_capture(self):
        self._capturing = False

    def is_capturing(self):
        return self._capturing

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        gpu.record("wait_event", event, self)
        stream, until = event.place
        if stream is not None:
            self.submit(lambda: stream.run(until))

    def synchronize(self):
        gpu.record("synchronize", "stream", self)
        self.run()


def external_stream(ptr: int) -> Stream:
    """`cupy.cuda.ExternalStream`, of a stream of these; 1 is DLPack's name of the default one."""
    if ptr in (0, 1):
        return gpu.stream_stack()[0]
    (found,) = (s for s in gpu.streams if (s.ptr, s.device_id) == (ptr, gpu.device))
    return found


class Event:
    """`cupy.cuda.Event`."""

    def __init__(self, block=False, disable_timing=False, interprocess=False) -> None:
        self.place: tuple[Stream | None, int] = (None, 0)
        self.ptr = id(self)
        gpu.events[self.ptr] = self

    def record(self, stream=None):
        stream = stream or gpu.stream
        self.place = (stream, stream.submitted)

    @property
    def done(self):
        stream, until = self.place
        return stream is None or stream.completed >= until

    def synchronize(self):
        gpu.record("synchronize", "event")
        stream, until = self.place
        if stream is not None:
            stream.run(until)


def event_record(event: int, stream: int) -> None:
    """`cupy.cuda.runtime.eventRecord`."""
    gpu.events[event].record(external_stream(stream))


class Memory:
    """Device memory, filled with poison, and guarded behind its end."""

    def __init__(self, size: int) -> None:
        used = gpu.used_bytes()
        if size > gpu.capacity - used:
            raise OutOfMemoryError(size, used)
        self.size, self.device_id = size, gpu.device
        self._bytes = np.full(size + GUARD_BYTES, POISON, np.uint8)
        self.ptr = self._bytes.ctypes.data
        gpu.memories[self.ptr] = self

    def is_intact(self) -> bool:
        return bool((self._bytes[self.size :] == POISON).all())


class Pinned(bytearray):
    """Pinned host memory."""

    def __init__(self, n_bytes: int) -> None:
        if n_bytes + sum(other.size for other in living(gpu.pinned)) > gpu.pinned_capacity:
            raise limits.CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        super().__init__(n_bytes)
        self.size = n_bytes
        self.ptr = ctypes.addressof((ctypes.c_char * n_bytes).from_buffer(self))
        gpu.pinned[self.ptr] = self
        gpu.record("pin", n_bytes)


def memcpy_async(to: int, source: int, n_bytes: int, kind: int, stream: int) -> None:
    """`cupy.cuda.runtime.memcpyAsync`."""
    _copy_later(to, n_bytes, source, n_bytes, n_bytes, 1, kind, stream)


def memcpy_2d_async(
    to: int, pitch: int, source: int, source_pitch: int, width: int, height: int, kind: int,
    stream: int,
) -> None:  # fmt: skip
    """`cupy.cuda.runtime.memcpy2DAsync`."""
    limits.check_copy(width, height, (pitch, source_pitch))
    _copy_later(to, pitch, source, source_pitch, width, height, kind, stream)


def _copy_later(
    to: int, pitch: int, source: int, source_pitch: int, width: int, height: int, kind: int,
    stream: int,
) -> None:  # fmt: skip
    (queue,) = (s for s in gpu.streams if (s.ptr, s.device_id) == (stream, gpu.device))
    name = {HOST_TO_DEVICE: "upload", DEVICE_TO_HOST: "download", DEVICE_TO_DEVICE: "copy"}[kind]
    gpu.record(name, width * height, queue)

    def copy():
        # looked for only now: it must not have been given back in the meantime
        for place, step, pools in (
            (source, source_pitch, kind == HOST_TO_DEVICE),
            (to, pitch, kind == DEVICE_TO_HOST),
        ):
            n_bytes = step * (height - 1) + width
            found = gpu.pinned if pools else gpu.memories
            if not any(m.ptr <= place and place + n_bytes <= m.ptr + m.size for m in living(found)):
                raise RuntimeError(
                    f"a copy of {n_bytes} bytes leaves its {'pinned' * pools} memory"
                )
        for i in range(height):
            ctypes.memmove(to + i * pitch, source + i * source_pitch, width)

    queue.submit(copy)


class RawKernel:
    """`cupy.RawKernel`."""

    def __init__(self, code, name, options=(), **_) -> None:
        self._code, self._name = code, name

    def compile(self):
        """There is nothing to wait for."""

    def __call__(self, grid, block, args, *, shared_mem=0):
        limits.check_launch(grid, block, args, shared_mem)
        gpu.record("launch", self._name)
        if self._name != "spin":
            kernel = compiled_kernel(self._code, self._name)
            gpu.stream.submit(lambda: kernel(grid, block, args, shared_mem=shared_mem))

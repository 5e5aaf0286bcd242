"""Where slots are, and how pages get there."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_patch.device import SideStream, empty, import_cupy, on_device, out_of_memory
from gpu_patch.device.leases import new_output, note_reader
from gpu_patch.device.pinned import PinnedBuffer, PinnedPool

_MOST_READING = 64
"""Pages that are read at a time by way of pinned memory."""


class SlotMemory(Protocol):
    """Slots on one device.

    Attributes
    ----------
    most_reading : float
        How many pages may be read at a time.
    """

    most_reading: float

    @abstractmethod
    def allocate(self, n_slots: int, slot_bytes: int, margin: int) -> Any:
        """Return the slots, (n_slots, slot_bytes), with a margin behind the last one."""
        raise NotImplementedError

    @abstractmethod
    def host(self, slot: int) -> NDArray[np.uint8]:
        """Return memory of the host to read a page of a slot into: the same until it has ended."""
        raise NotImplementedError

    @abstractmethod
    def ended(self, slot: int, *, arrived: bool) -> None:
        """Take what `host` gave: a page, or nothing of use."""
        raise NotImplementedError

    @abstractmethod
    def publish(self, slots: NDArray[np.int32]) -> None:
        """Let what follows read slots."""
        raise NotImplementedError

    @abstractmethod
    def free_behind(self, slots: NDArray[np.int32]) -> None:
        """Say that what reads slots has been asked for: what follows does not."""
        raise NotImplementedError


class HostSlots(SlotMemory):
    """Slots in host memory, where pages are read to."""

    most_reading = inf
    _slots: NDArray[np.uint8]

    def allocate(self, n_slots: int, slot_bytes: int, margin: int) -> NDArray[np.uint8]:
        n_bytes = n_slots * slot_bytes
        memory = empty((n_bytes + margin,), np.dtype(np.uint8), "cpu", "pages of images")
        self._slots = memory[:n_bytes].reshape(n_slots, slot_bytes)
        return self._slots

    def host(self, slot: int) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self._slots[slot]
        return found

    def ended(self, slot: int, *, arrived: bool) -> None:
        """Do nothing: it is there."""

    def publish(self, slots: NDArray[np.int32]) -> None:
        """Do nothing: they are there."""

    def free_behind(self, slots: NDArray[np.int32]) -> None:
        """Do nothing: they have been read."""


@dataclass
class _Reader:
    """A stream that reads slots.

    Attributes
    ----------
    stream : cupy.cuda.Stream
        Kept: another could have its address.
    last : array of int64
        Number of the last event behind a reading of each slot.
    events : deque of (int, cupy.cuda.Event)
        Those that were neither waited for nor known to have passed, with their numbers.
    """

    stream: Any
    last: NDArray[np.int64]
    events: deque[tuple[int, Any]] = field(default_factory=deque)
    number: int = 0

    def read(self, slots: NDArray[np.int32], event: Any) -> None:
        while self.events and self.events[0][1].done:
            self.events.popleft()
        self.number += 1
        self.events.append((self.number, event))
        self.last[slots] = self.number

    def let_pass(self, slot: int, stream: Any) -> None:
        """Make a stream wait until a slot has been read."""
        last, event = self.last[slot], None
        while self.events and self.events[0][0] <= last:
            event = self.events.popleft()[1]
        if event is not None:
            stream.wait_event(event)


class CudaSlots(SlotMemory):
    """Slots on a CUDA device; pages are copied through pinned memory on a stream of their own.

    Nothing waits for the device on the host. A slot is filled anew behind an event after the last
    kernel that read it.

    Parameters
    ----------
    device : str
        "cuda:N".
    """

    most_reading = _MOST_READING

    def __init__(self, device: str) -> None:
        self._device = device
        self._cupy, self._pinned = _copying(device)
        self._buffers: dict[int, PinnedBuffer] = {}
        self._readers: dict[int, _Reader] = {}
        self._copied: Any = None  # an event behind the last copy

    def allocate(self, n_slots: int, slot_bytes: int, margin: int) -> Any:
        n_bytes = n_slots * slot_bytes
        with on_device(self._device):
            try:
                memory = new_output(self._cupy, (n_bytes + margin,), np.uint8)
            except self._cupy.cuda.memory.OutOfMemoryError as error:
                raise out_of_memory(self._device, "pages of images", error) from error
            self._slots = memory[:n_bytes].reshape(n_slots, slot_bytes)
            # behind those who read the memory before, on the stream that it was taken on
            self._stream = SideStream(self._device, "pages")
        return self._slots

    def host(self, slot: int) -> NDArray[np.uint8]:
        buffer = self._buffers.get(slot)
        if buffer is None:
            with on_device(self._device):
                buffer = self._buffers[slot] = self._pinned.take(self._slots.shape[1])
        return buffer.host[: self._slots.shape[1]]

    def ended(self, slot: int, *, arrived: bool) -> None:
        buffer = self._buffers.pop(slot, None)
        if buffer is None:
            return
        if arrived:

            def copy() -> Any:
                stream = self._cupy.cuda.get_current_stream()
                for reader in self._readers.values():
                    reader.let_pass(slot, stream)
                buffer.copy_to(self._slots[slot])
                return stream

            stream, self._copied = self._stream.run(copy)
            note_reader(self._slots, stream, self._copied)
        self._pinned.give_back(buffer)

    def publish(self, slots: NDArray[np.int32]) -> None:
        if self._copied is not None:  # copies are on one stream: behind the last, all are there
            with on_device(self._device):
                self._cupy.cuda.get_current_stream().wait_event(self._copied)

    def free_behind(self, slots: NDArray[np.int32]) -> None:
        # not when a page leaves: the stream may have a model's work by then
        with on_device(self._device):
            stream = self._cupy.cuda.get_current_stream()
            event = stream.record(self._cupy.cuda.Event(disable_timing=True))
            reader = self._readers.get(stream.ptr)
            if reader is None:
                last = np.zeros(len(self._slots), np.int64)
                reader = self._readers[stream.ptr] = _Reader(stream, last)
            reader.read(slots, event)
            note_reader(self._slots, stream, event)


@cache
def _copying(device: str) -> tuple[Any, PinnedPool]:
    """Return CuPy, and pinned memory; kept, since copies to a device may outlive all images."""
    cupy = import_cupy()
    return cupy, PinnedPool(cupy)


def slots_on(device: str) -> SlotMemory:
    """Return new slots on a device."""
    return HostSlots() if device == "cpu" else CudaSlots(device)

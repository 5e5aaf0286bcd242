"""Pinned memory of the host, from and to which a device copies while the host goes on."""

from __future__ import annotations

from collections import deque
from math import prod
from typing import Any

import numpy as np

from gpu_patch.device.leases import note_reader

_LEAST_BYTES = 1 << 12
_MOST_PITCH = (1 << 31) - 1
"""Bytes from row to row, above which CUDA refuses a copy of several."""


class PinnedBuffer:
    """A stretch of pinned memory.

    Parameters
    ----------
    cupy : module
        CuPy.
    nbytes : int
        Size.

    Attributes
    ----------
    host : numpy.ndarray
        The memory, of uint8.
    copied : cupy.cuda.Event
        Behind the last copy from or to it.

    Raises
    ------
    MemoryError
        Where the host has no room for it.
    """

    def __init__(self, cupy: Any, nbytes: int) -> None:
        self._cuda = cupy.cuda
        self._memory = _pinned_memory(self._cuda, nbytes)
        self.host = np.frombuffer(self._memory, np.uint8, nbytes)
        self.copied = self._cuda.Event(disable_timing=True)

    def copy_to(self, array: Any) -> None:
        """Fill a contiguous array of the device, in the order of the current stream."""
        cuda = self._cuda
        stream = cuda.get_current_stream()
        # asynchronous, since the source is pinned; `set` and `asarray` may wait
        cuda.runtime.memcpyAsync(
            array.data.ptr,
            self._memory.ptr,
            array.nbytes,
            cuda.runtime.memcpyHostToDevice,
            stream.ptr,
        )
        self.copied.record(stream)

    def copy_rows_from(self, array: Any, axis: int, rows: slice) -> None:
        """Take rows along an axis of a contiguous array, in the order of the current stream."""
        stream = self._cuda.get_current_stream()
        row = prod(array.shape[axis + 1 :]) * array.dtype.itemsize
        n_bytes = (rows.stop - rows.start) * row
        to, source = self._memory.ptr, array.data.ptr + rows.start * row
        pitch, count = array.shape[axis] * row, prod(array.shape[:axis])
        to_host = self._cuda.runtime.memcpyDeviceToHost
        if pitch <= _MOST_PITCH:
            copy = self._cuda.runtime.memcpy2DAsync
            copy(to, n_bytes, source, pitch, n_bytes, count, to_host, stream.ptr)
        else:  # one by one: rows of 2 GB are few
            copy = self._cuda.runtime.memcpyAsync
            for i in range(count):
                copy(to + i * n_bytes, source + i * pitch, n_bytes, to_host, stream.ptr)
        self.copied.record(stream)
        note_reader(array, stream)


def rounded_buffer(cupy: Any, nbytes: int) -> PinnedBuffer:
    """Return a new buffer of at least a size; sizes are few, so that one serves many arrays."""
    return PinnedBuffer(cupy, max(_LEAST_BYTES, 1 << (nbytes - 1).bit_length()))


def _pinned_memory(cuda: Any, nbytes: int) -> Any:
    try:
        return cuda.alloc_pinned_memory(nbytes)
    except cuda.runtime.CUDARuntimeError as error:
        raise MemoryError(
            f"the host has no room for {nbytes / 1e6:.1f} MB of pinned memory, from which a device "
            f"copies: free memory of the host ({error})"
        ) from error


class PinnedPool:
    """Buffers that are used again once their copies are done. Any thread may take one.

    Parameters
    ----------
    cupy : module
        CuPy.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._buffers: deque[PinnedBuffer] = deque()

    def take(self, nbytes: int) -> PinnedBuffer:
        """Return a buffer of at least this size, that no copy reads any more.

        It is nobody else's until it is given back, behind a copy or without one.
        """
        for _ in range(len(self._buffers)):
            try:
                buffer = self._buffers.popleft()
            except IndexError:  # other threads were faster
                break
            if not buffer.copied.done:
                self._buffers.append(buffer)
                continue
            if buffer.host.nbytes >= nbytes:
                return buffer
            # too small: it is dropped, and a larger one made
        return rounded_buffer(self._cupy, nbytes)

    def give_back(self, buffer: PinnedBuffer) -> None:
        """Let others have a buffer, behind the last copy from it."""
        self._buffers.append(buffer)

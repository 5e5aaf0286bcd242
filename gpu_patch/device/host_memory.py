"""Memory that is used again instead of being asked from the system for every batch.

Fresh memory costs a page fault every 4 kB, which on small batches takes longer than the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Large buffers are used for so long that fresh ones cost little in comparison.
_LARGEST_BUFFER = 1 << 25
_MOST_BYTES = 1 << 26
_ALIGNMENT = 64


class BufferPool:
    """Lends uninitialised arrays, and lends their memory again once nothing refers to it.

    An array that is lent, and every view of it, DLPack exports included, keeps a lease alive.
    With the lease's end the memory returns. At most 64 MiB lie idle.
    """

    def __init__(self) -> None:
        self._idle: deque[NDArray[np.uint8]] = deque()

    def take(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array with undefined values."""
        kind = np.dtype(dtype)
        nbytes = prod(shape) * kind.itemsize
        buffer = self._find(nbytes)
        if buffer is None:
            buffer = _aligned(nbytes)
        return np.asarray(_Lease(buffer, self._idle, tuple(shape), kind))

    def _find(self, nbytes: int) -> NDArray[np.uint8] | None:
        """Take an idle buffer out of the queue: one that fits, and is not far too large.

        The last used comes first: caches may still hold it.
        """
        for _ in range(len(self._idle)):
            try:
                buffer = self._idle.pop()
            except IndexError:  # another thread was faster
                return None
            if nbytes <= len(buffer) <= 2 * nbytes:
                return buffer
            self._idle.appendleft(buffer)
        return None


def _aligned(nbytes: int) -> NDArray[np.uint8]:
    """Return new memory at a multiple of 64: JAX copies arrays that begin elsewhere."""
    memory = np.empty(nbytes + _ALIGNMENT - 1, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + nbytes]


class _Lease:
    """Owner of a lent array, as NumPy sees it; puts the buffer back when it dies."""

    def __init__(
        self,
        buffer: NDArray[np.uint8],
        idle: deque[NDArray[np.uint8]],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self._buffer = buffer
        self._idle = idle
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": buffer.__array_interface__["data"],
        }

    def __del__(self) -> None:
        if len(self._buffer) > _LARGEST_BUFFER:
            return
        self._idle.append(self._buffer)
        try:
            while sum(map(len, self._idle.copy())) > _MOST_BYTES:
                self._idle.popleft()
        except IndexError:  # another thread was faster
            pass


pool = BufferPool()

"""Memory that is used again instead of being asked from the system for every batch.

Fresh memory costs a page fault every 4 kB, which on small batches takes longer than the work.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
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
        lease = _lease_of(nbytes).from_buffer(buffer)  # type: ignore[arg-type]
        lease.buffer, lease.idle = buffer, self._idle  # type: ignore[attr-defined]
        return np.ndarray(tuple(shape), kind, lease)  # type: ignore[arg-type]

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


def _give_back(lease: Any) -> None:
    if _LARGEST_BUFFER is None:  # the interpreter ends
        return
    if len(lease.buffer) > _LARGEST_BUFFER:
        return
    lease.idle.append(lease.buffer)
    try:
        while sum(map(len, lease.idle.copy())) > _MOST_BYTES:
            lease.idle.popleft()
    except IndexError:  # another thread was faster
        pass


@lru_cache(maxsize=64)
def _lease_of(nbytes: int) -> type[ctypes.Array[ctypes.c_char]]:
    """Return the type of what owns an array that is lent, and puts its buffer back when it dies.

    NumPy takes memory of ctypes in a third of the time that `__array_interface__` takes.
    """
    return type("_Lease", (ctypes.c_char * nbytes,), {"__del__": _give_back})


pool = BufferPool()

"""Memory that is used again instead of being asked from the system for every batch.

Fresh memory costs a page fault every 4 kB, which on small batches takes longer than the work.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_MOST_BYTES = 1 << 27
_UNUSED = 2
"""References to a buffer that nobody uses: a local variable and `getrefcount`'s argument."""


class BufferPool:
    """Lends uninitialised arrays, and lends their memory again once nothing refers to it.

    An array lent is a view of a buffer, and so is every view of it, slices and DLPack exports
    included: while any of them lives, the buffer's reference count is higher than when idle. At
    most 128 MiB are kept.
    """

    def __init__(self) -> None:
        self._buffers: deque[NDArray[np.uint8]] = deque()

    def take(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array with undefined values."""
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        # a buffer is out of the queue while it is looked at, so no other thread can take it too
        for _ in range(len(self._buffers)):
            try:
                buffer = self._buffers.popleft()
            except IndexError:
                break
            fits = nbytes <= len(buffer) <= 2 * nbytes and sys.getrefcount(buffer) == _UNUSED
            array = buffer[:nbytes].view(dtype).reshape(shape) if fits else None
            self._buffers.append(buffer)
            if array is not None:
                return array
        buffer = np.empty(nbytes, np.uint8)
        if nbytes <= _MOST_BYTES:
            self._buffers.append(buffer)
            self._forget_oldest()
        return buffer.view(dtype).reshape(shape)

    def _forget_oldest(self) -> None:
        while sum(len(buffer) for buffer in list(self._buffers)) > _MOST_BYTES:
            self._buffers.popleft()


pool = BufferPool()

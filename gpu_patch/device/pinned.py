"""Pinned memory of the host, from and to which a device copies while the host goes on."""

from __future__ import annotations

from collections import deque
from math import inf, prod
from typing import Any

import numpy as np

from gpu_patch.device.leases import note_reader

_LEAST_BYTES = 1 << 12


class Piece:
    """A piece of pinned memory.

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
    """

    def __init__(self, cupy: Any, nbytes: int) -> None:
        self._cuda = cupy.cuda
        self._memory = self._cuda.alloc_pinned_memory(nbytes)
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
        cuda = self._cuda
        stream = cuda.get_current_stream()
        row = prod(array.shape[axis + 1 :]) * array.dtype.itemsize
        n_bytes = (rows.stop - rows.start) * row
        cuda.runtime.memcpy2DAsync(
            self._memory.ptr,
            n_bytes,
            array.data.ptr + rows.start * row,
            array.shape[axis] * row,
            n_bytes,
            prod(array.shape[:axis]),
            cuda.runtime.memcpyDeviceToHost,
            stream.ptr,
        )
        self.copied.record(stream)
        note_reader(array, stream)


def rounded_piece(cupy: Any, nbytes: int) -> Piece:
    """Return a new piece of at least a size; sizes are few, so that one serves many arrays."""
    return Piece(cupy, max(_LEAST_BYTES, 1 << (nbytes - 1).bit_length()))


class Staging:
    """Pieces that are used again once their copies are done. Any thread may take one.

    Parameters
    ----------
    cupy : module
        CuPy.
    most : int, optional
        How many there may be before one is waited for; without it none ever is.
    """

    def __init__(self, cupy: Any, most: float = inf) -> None:
        self._cupy, self._most = cupy, most
        self._pieces: deque[Piece] = deque()

    def take(self, nbytes: int) -> Piece:
        """Return a piece of at least this size, that no copy reads any more.

        It is nobody else's until it is given back, behind a copy or without one.
        """
        for _ in range(len(self._pieces)):
            must_wait = len(self._pieces) >= self._most
            try:
                piece = self._pieces.popleft()
            except IndexError:  # other threads were faster
                break
            if must_wait:
                piece.copied.synchronize()
            elif not piece.copied.done:
                self._pieces.append(piece)
                continue
            if piece.host.nbytes >= nbytes:
                return piece
            # else it is too small, and let go
        return rounded_piece(self._cupy, nbytes)

    def give_back(self, piece: Piece) -> None:
        """Let others have a piece, behind the last copy from it."""
        self._pieces.append(piece)

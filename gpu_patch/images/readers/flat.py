"""Parts of arrays that lie in a file as they do in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHORTEST_READ = 1 << 16


def read_plain(
    descriptor: int, offset: int, shape: Sequence[int], dtype: np.dtype[Any], key: Sequence[slice]
) -> NDArray[Any]:
    """Read a part of a C-contiguous array.

    By reads and not through a memory map: where somebody cuts a mapped file short, the next look
    at it kills the process.

    Parameters
    ----------
    descriptor : int
        Of the open file.
    offset : int
        Where the array begins.
    shape, dtype : tuple of int, numpy.dtype
        Of the whole array.
    key : sequence of slice
        One with start and stop per axis.
    """
    # Short reads are slow. Axes from `inner` on are read in one piece: as a whole where that is
    # little, and the wanted part is cut out of it afterwards.
    inner, run = len(shape), dtype.itemsize
    while inner and run < _SHORTEST_READ:
        inner -= 1
        run *= shape[inner]
    while inner and key[inner] == slice(0, shape[inner]):
        inner -= 1
    first = key[inner].start if shape else 0
    count = key[inner].stop - first if shape else 1
    step = prod(shape[inner + 1 :])
    rest = (slice(None), *key[inner + 1 :])
    out = np.empty([part.stop - part.start for part in key], dtype)
    found = out.reshape(-1, *out.shape[inner:])
    whole = found.shape[2:] == tuple(shape[inner + 1 :])
    piece = None if whole else np.empty((count, *shape[inner + 1 :]), dtype)
    file = io.FileIO(descriptor, closefd=False)
    outer = product(*(range(part.start, part.stop) for part in key[:inner]))
    for i, place in enumerate(outer):
        flat = np.ravel_multi_index(place, tuple(shape[:inner])) if inner else 0
        begin = (int(flat) * shape[inner] + first) * step if shape else 0
        _fill(file, found[i] if piece is None else piece, offset + begin * dtype.itemsize)
        if piece is not None:
            found[i] = piece[rest]
    return out


def check_length(length: int, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Raise where a file is too short for an array that begins at `offset`."""
    missing = offset + prod(shape) * dtype.itemsize - length
    if missing > 0:
        raise ValueError(f"it ends {missing} bytes too early")


def _fill(file: io.FileIO, piece: NDArray[Any], offset: int) -> None:
    view = piece.reshape(-1).view(np.uint8).data
    file.seek(offset)
    while view:
        # some systems return at most 2 GiB from one read
        count = file.readinto(view)
        if not count:
            raise ValueError(f"it ends {len(view)} bytes too early")
        view = view[count:]

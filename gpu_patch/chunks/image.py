"""An image that is read by chunk, when something needs it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import count
from math import prod
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_patch.chunks.per_process import PerProcess
from gpu_patch.finite import count_not_finite

_numbers = count()
_LEAST_BYTES = 1 << 17
"""Smaller chunks of a file are kept several at a time: each costs some work of its own."""


class RegionReader(Protocol):
    """What an image is read from."""

    shape: tuple[int, ...]
    """SC(Z)YX."""
    dtype: np.dtype[Any]
    """As the pixels are kept: a stored data type."""
    chunk_shape: tuple[int, ...]
    """SC(Z)YX; reading a part of a chunk costs all of it."""

    @abstractmethod
    def read(self, region: Sequence[slice], out: NDArray[Any]) -> None:
        """Fill `out` with a region of the image.

        Parameters
        ----------
        region : sequence of slice
            One per axis, with start and stop.
        out : array
            Of the region's shape and the image's data type, C-contiguous or not.
        """
        raise NotImplementedError


class ChunkedImage:
    """An image SC(Z)YX whose chunks come and go; operations take it in place of an array.

    Parameters
    ----------
    reader : RegionReader
        What it is read from, one chunk at a time.
    cache : PageCache
        Where its pages are kept.
    name : str
        What error messages call it.

    Attributes
    ----------
    number : int
        Tells it from all others of this process.
    shape, dtype : tuple of int, numpy.dtype
        Of the whole image.
    chunk_shape : tuple of int
        SC(Z)YX; the reader's, or a multiple of it where that would be small. Chunks at the end
        of an axis may be shorter.
    """

    def __init__(self, reader: RegionReader, cache: Any, name: str = "array") -> None:
        self.reader, self.name = reader, name
        self.cache: Any = cache  # a PageCache, whose module imports this one
        self.number = next(_numbers)
        self.shape, self.dtype = tuple(reader.shape), np.dtype(reader.dtype)
        self.chunk_shape = kept_chunk_shape(self.shape, reader.chunk_shape, self.dtype.itemsize)
        self._reading: PerProcess[Any] = PerProcess()
        self._not_finite: dict[tuple[int, ...], int] = {}
        cache.add(self)

    def __repr__(self) -> str:
        return f"ChunkedImage({self.name!r}, shape={self.shape}, dtype={self.dtype})"

    def __reduce__(self) -> tuple[Any, ...]:
        # without what this process has read
        return ChunkedImage, (self.reader, self.cache, self.name)

    @property
    def ndim(self) -> int:
        """Number of axes: 4 for SCYX, 5 for SCZYX."""
        return len(self.shape)

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole image."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_as_stored(self) -> bool:
        """Whether chunks are kept as the file has them, one by one."""
        return self.chunk_shape == tuple(self.reader.chunk_shape)

    @property
    def largest_chunk_bytes(self) -> int:
        """Bytes of a whole chunk."""
        return prod(self.chunk_shape) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes that are in memory now."""
        n_bytes: int = self.cache.bytes_of(self)
        return n_bytes

    @property
    def n_not_finite(self) -> int:
        """Values that are NaN or infinite, of what this process has read so far."""
        return sum(self._not_finite.copy().values())

    def read_region(self, region: Sequence[slice], out: NDArray[Any]) -> None:
        """Fill `out` with any region; one thread at a time reads, unless the reader is for more.

        Parameters
        ----------
        region : sequence of slice
            One per axis, with start and stop.
        out : array
            Of the region's shape and the image's data type.
        """
        many = getattr(self.reader, "for_threads", False)
        with nullcontext() if many else self._reading.get(Lock):
            self.reader.read(region, out)

    def count(self, part: tuple[int, ...], pixels: NDArray[Any]) -> None:
        """Count what is not finite of a part of the image, for `n_not_finite`.

        Parameters
        ----------
        part : tuple of int
            Names the part: it counts once, however often it is read.
        pixels : array
            Its pixels.
        """
        if self.dtype.kind == "f":
            self._not_finite[part] = count_not_finite(pixels)


def kept_chunk_shape(
    shape: Sequence[int], chunk_shape: Sequence[int], itemsize: int, least: int | None = None
) -> tuple[int, ...]:
    """Return the chunks to keep: multiples of a file's chunks, none of less than `least` bytes.

    They grow along the shortest spatial side first, so that a few cover a window.
    """
    if len(chunk_shape) != len(shape) or min(chunk_shape) < 1:
        raise ValueError(
            f"chunk_shape must have {len(shape)} lengths of at least 1, one per axis of the shape "
            f"{tuple(shape)}, found {tuple(chunk_shape)}"
        )
    kept = [min(c, n) for c, n in zip(chunk_shape, shape, strict=True)]
    while prod(kept) * itemsize < (_LEAST_BYTES if least is None else least):
        short = [axis for axis in range(2, len(shape)) if kept[axis] < shape[axis]]
        if not short:
            break
        axis = min(short, key=lambda axis: kept[axis])
        kept[axis] = min(2 * kept[axis], shape[axis])
    return tuple(kept)

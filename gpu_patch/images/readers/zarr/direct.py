"""Chunks of a Zarr that are not compressed, read from their files straight to where they belong.

What the system has of a file in memory is copied at once. The rest it is told to fetch meanwhile,
and whoever needs it copies it. Threads that did so would take turns with Python's others, which
costs more than the copy. Tensorstore copies pixels twice before they are where they belong.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.readers.base import FastReader
from gpu_patch.images.readers.info import ImageInfo
from gpu_patch.images.readers.zarr.place import METADATA
from gpu_patch.pages.reading import Copying

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
_AT_ONCE = getattr(os, "RWF_NOWAIT", 0)
"""Of a read: what would have to be waited for is not read. Linux has it, for most file systems."""
_MOST_BYTES = 1 << 30
"""Of a chunk: larger ones are not read in one go."""
_ADVISED = 1 << 17
"""Bytes that the system fetches for one advice, of which it may leave some out beyond."""

_Chunk = tuple[str, tuple[slice, ...], tuple[slice, ...]]
"""Its file, where it is in a region, and which of its pixels are there."""


class DirectChunks(FastReader):
    """Regions SC(Z)YX of a Zarr array whose chunks are files of nothing but pixels.

    Parameters
    ----------
    folder : Path
        Where the array is.
    array : zarr.Array
        The array.
    info : ImageInfo
        What is to be read of it.
    is_as_opened : callable
        Tells whether the array is still the one that was opened.
    fill_missing : bool
        Whether chunks that are not there are the fill value, or an error.
    """

    def __init__(
        self,
        folder: Path,
        array: Any,
        info: ImageInfo,
        is_as_opened: Callable[[], bool],
        *,
        fill_missing: bool,
    ) -> None:
        self._folder, self._is_as_opened = str(folder.absolute()), is_as_opened
        self._name = array.metadata.encode_chunk_key
        self._chunks = tuple(map(int, array.chunks))
        self._dtype = info.resident_dtype
        self._chunk_bytes = prod(self._chunks) * self._dtype.itemsize
        # zarr-python takes 0 where the format does not say a value
        self._missing = (array.fill_value or 0) if fill_missing else None
        # of each stored axis, which of a region's it is; None for those of one pixel
        letters = [axis for axis in info.axes if info.size(axis) > 1]
        samples = "T" if "T" in letters else "S"
        canonical = [samples if axis == "S" else axis for axis in info.canonical_axes]
        order = iter([canonical.index(axis) for axis in letters])
        self._axis_of = [None if n == 1 else next(order) for n in array.shape]
        # what makes a view with the stored axes out of one with a region's
        kept = [i for i, axis in enumerate(canonical) if axis in letters]
        self._kept = tuple(slice(None) if i in kept else 0 for i in range(len(canonical)))
        self._turned = [kept.index(axis) for axis in self._axis_of if axis is not None]
        self._spread = tuple(np.newaxis if n == 1 else slice(None) for n in array.shape)

    def begin(self, region: Sequence[slice], out: NDArray[Any]) -> Copying | None:
        if not self._is_as_opened():
            return None
        stored = out[(*self._kept, ...)].transpose(self._turned)[self._spread]
        return Copying(partial(self._copy, stored, list(self._chunks_of(region))))

    def _chunks_of(self, region: Sequence[slice]) -> Iterator[_Chunk]:
        """Yield the chunks of a region."""
        axes = [
            _along(slice(0, 1) if axis is None else region[axis], n)
            for axis, n in zip(self._axis_of, self._chunks, strict=True)
        ]
        for parts in product(*axes):
            place, where, cut = zip(*parts, strict=True)
            yield f"{self._folder}/{self._name(place)}", where, cut

    def _copy(self, stored: NDArray[Any], chunks: list[_Chunk], at_once: bool) -> bool:
        """Copy chunks, which are left out of the list then; tell whether all were copied."""
        chunks[:] = [chunk for chunk in chunks if not self._copy_one(stored, chunk, at_once)]
        return not chunks

    def _copy_one(self, stored: NDArray[Any], chunk: _Chunk, at_once: bool) -> bool:
        path, where, cut = chunk
        own = stored[where]
        is_whole = own.shape == self._chunks and own.flags.c_contiguous
        pixels = own if is_whole else np.empty(self._chunks, self._dtype)
        try:
            file = os.open(path, _FLAGS)
        except FileNotFoundError:
            if self._missing is None:
                raise
            own[...] = self._missing
            return True
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_size != self._chunk_bytes:
                raise ValueError(f"{path} has {found.st_size} bytes")
            try:
                n_bytes = os.preadv(file, [pixels], 0, _AT_ONCE if at_once else 0)  # type: ignore[list-item]
            except BlockingIOError:  # nothing is in memory
                n_bytes = 0
            if n_bytes != self._chunk_bytes:
                if not at_once:
                    raise ValueError(f"{path} has only {n_bytes} bytes")
                _advise(file, self._chunk_bytes)
                return False
        finally:
            os.close(file)
        if not is_whole:
            own[...] = pixels[cut]
        return True


def _advise(file: int, n_bytes: int) -> None:
    """Have the system fetch a file."""
    with suppress(OSError):  # it need not be able to
        for first in range(0, n_bytes, _ADVISED):
            os.posix_fadvise(file, first, _ADVISED, os.POSIX_FADV_WILLNEED)


def direct_chunks(
    folder: Path,
    array: Any,
    info: ImageInfo,
    is_as_opened: Callable[[], bool],
    *,
    fill_missing: bool,
) -> DirectChunks | None:
    """Return what reads chunks that are files of nothing but pixels.

    None where they are not, or the file system does not tell what it has in memory.

    Parameters
    ----------
    folder, array, info, is_as_opened, fill_missing
        See `DirectChunks`.
    """
    if array.shards or not _is_plain(array) or not _tells(folder):
        return None
    if prod(array.chunks) * array.dtype.itemsize > _MOST_BYTES:
        return None
    if np.dtype(array.dtype) != info.resident_dtype:
        return None
    if info.size("S") > 1 < info.size("T"):
        return None
    if [n for n in array.shape if n > 1] != [n for n in info.shape if n > 1]:
        return None  # some channels are left out
    return DirectChunks(folder, array, info, is_as_opened, fill_missing=fill_missing)


def _is_plain(array: Any) -> bool:
    """Tell whether chunks are pixels in C order, with this machine's order of bytes."""
    metadata = array.metadata
    if metadata.zarr_format == 2:
        return not metadata.compressor and not metadata.filters and metadata.order == "C"
    first, *others = (codec.to_dict() for codec in metadata.codecs)
    endian = first.get("configuration", {}).get("endian", sys.byteorder)
    return first["name"] == "bytes" and endian == sys.byteorder and not others


def _tells(folder: Path) -> bool:
    """Tell whether files of a folder can be read as far as they are in memory."""
    for name in METADATA:
        with suppress(OSError), (folder / name).open("rb") as file:
            with suppress(BlockingIOError):
                os.preadv(file.fileno(), [bytearray(1)], 0, _AT_ONCE)
            return _AT_ONCE > 0
    return False


def _along(part: slice, n: int) -> list[tuple[int, slice, slice]]:
    """Return the chunks of n pixels that a part of an axis touches.

    Each with where it is in that part, and which of its pixels these are.
    """
    start, stop, found = part.start, part.stop, []
    for i in range(start // n, -(-stop // n)):
        lo, hi = max(i * n, start), min((i + 1) * n, stop)
        found.append((i, slice(lo - start, hi - start), slice(lo - i * n, hi - i * n)))
    return found

"""Zarr arrays read by tensorstore: straight into memory that is given, by threads of its own.

zarr-python takes several times as long for a chunk. What tensorstore cannot do is left to it:
archives, types that are converted, errors that name file and chunk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.readers.base import FastReader
from gpu_patch.images.readers.info import ImageInfo
from gpu_patch.optional import if_installed, imported

_OPTIONS = {"recheck_cached_data": False, "recheck_cached_metadata": False}
_CONTEXT = {"cache_pool": {"total_bytes_limit": 0}}
"""Whoever reads keeps what it reads."""

_used_by: int | None = None
"""The process that used tensorstore first: in one that is forked from it, it would abort."""


class FastRegions(FastReader):
    """Regions SC(Z)YX of a Zarr array, read by tensorstore.

    Parameters
    ----------
    store : tensorstore.TensorStore
        The array, with the axes SC(Z)YX.
    may_read : callable
        Takes a region; tells whether its chunks are what they should be, at first sight.
    """

    def __init__(self, store: Any, may_read: Callable[[Sequence[slice]], bool]) -> None:
        self._store, self._may_read = store, may_read
        self._array = imported("tensorstore", "reading Zarr by tensorstore").array

    def begin(self, region: Sequence[slice], out: NDArray[Any]) -> Any | None:
        if _used_by != os.getpid() or not self._may_read(region):
            return None
        part = self._store[tuple(region)]
        return self._array(out).write(part.translate_to[(0,) * part.rank])


def open_fast(
    folder: Path,
    zarr_format: int,
    info: ImageInfo,
    stored_shape: Sequence[int],
    may_read: Callable[[Sequence[slice]], bool],
    *,
    fill_missing: bool,
) -> FastRegions | None:
    """Open an array with tensorstore, where that gives the same as zarr-python.

    Parameters
    ----------
    folder : Path
        Where it is.
    zarr_format : int
        2 or 3.
    info : ImageInfo
        What is to be read of it.
    stored_shape : sequence of int
        Its shape.
    may_read : callable
        See `FastRegions`.
    fill_missing : bool
        Whether chunks that are not there are the fill value, or an error.
    """
    global _used_by
    tensorstore = if_installed("tensorstore")
    if tensorstore is None or _used_by not in (None, os.getpid()):
        return None
    if info.size("S") > 1 < info.size("T"):
        return None
    _used_by = os.getpid()
    spec = {
        "driver": "zarr3" if zarr_format == 3 else "zarr",
        "kvstore": {"driver": "file", "path": str(folder.absolute())},
        "fill_missing_data_reads": fill_missing,
        "context": _CONTEXT,
        **_OPTIONS,
    }
    try:
        store = tensorstore.open(spec, read=True, open=True).result()
        same = tuple(store.shape) == tuple(stored_shape)
        if not same or np.dtype(store.dtype.numpy_dtype) != info.resident_dtype:
            return None
    except (ValueError, NotImplementedError, OSError):  # what it does not know, zarr-python may
        return None
    canonical = _canonical(tensorstore, store, info)
    return FastRegions(canonical, may_read) if canonical is not None else None


def _canonical(tensorstore: Any, store: Any, info: ImageInfo) -> Any | None:
    """Return an array with the axes SC(Z)YX."""
    store = store[tuple(slice(None) if n > 1 else 0 for n in store.shape)]
    letters = [axis for axis in info.axes if info.size(axis) > 1]
    if tuple(store.shape) != tuple(info.size(axis) for axis in letters):
        return None  # some channels are left out
    samples = "T" if "T" in letters else "S"
    wanted = [samples if axis == "S" else axis for axis in info.canonical_axes]
    store = store.transpose([letters.index(axis) for axis in wanted if axis in letters])
    index = [slice(None) if axis in letters else tensorstore.newaxis for axis in wanted]
    return store[tuple(index)]


def first_bytes(path: str, n: int) -> tuple[int, bytes] | None:
    """Return the length of a file, and its beginning; None where it is no file.

    Parameters
    ----------
    path : str
        The file. A pipe is not waited for.
    n : int
        How many bytes to read.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            return None
        return found.st_size, os.read(file, n)
    finally:
        os.close(file)

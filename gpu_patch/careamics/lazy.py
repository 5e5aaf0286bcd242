"""Images that careamics leaves in their files: Zarr, CZI and files one by one, read by region."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.careamics.recognise import careamics_class, replaced
from gpu_patch.chunks import RegionReader
from gpu_patch.chunks.per_process import PerProcess
from gpu_patch.images.readers import ImageReader, Options, checked_path, tiff, zarr
from gpu_patch.images.readers.array import ArrayReader
from gpu_patch.images.regions import FileRegions

_CZI_TYPES = {frozenset({"Gray8"}): "uint8", frozenset({"Gray16"}): "uint16"}
_CZI_SIDE = 1024
"""Sides of what is read of a CZI's plane at a time: about a tile of most microscopes."""


def is_lazy(theirs: Any) -> bool:
    """Tell whether a stack is one that careamics leaves in its file, without methods of its own."""
    base = careamics_class(theirs, tuple(_READERS))
    return base is not None and not replaced(theirs, base)


def regions_of(theirs: Any) -> RegionReader:
    """Return what reads regions of a stack that is lazy, which stays as it is."""
    base = careamics_class(theirs, tuple(_READERS))
    assert base is not None
    return _READERS[base.__name__](theirs)


class StackRegions(RegionReader):
    """Regions as careamics' own stack reads them, of a copy in each process.

    Parameters
    ----------
    stack : careamics image stack
        A file that is loaded as a whole is let go after each read.
    chunk_shape : sequence of int
        SC(Z)YX.
    dtype : data type
        Holds all its values.
    """

    def __init__(self, stack: Any, chunk_shape: Sequence[int], dtype: DTypeLike) -> None:
        self._stack = stack
        self.shape, self.chunk_shape = tuple(stack.data_shape), tuple(chunk_shape)
        self.dtype = np.dtype(dtype)
        self._own: PerProcess[Any] = PerProcess()

    def __reduce__(self) -> tuple[Any, ...]:
        return StackRegions, (self._stack, self.chunk_shape, self.dtype)

    def read(self, region: Sequence[slice], out: NDArray[Any]) -> None:
        """Fill `out` with a region."""
        samples, channels, *spatial = region
        stack = self._own.get(partial(copy.copy, self._stack))
        whole_file = hasattr(stack, "load")
        if whole_file:
            stack.load()
        try:
            for i, sample in enumerate(range(samples.start, samples.stop)):
                out[i] = stack.extract_patch(
                    sample,
                    list(range(channels.start, channels.stop)),
                    [part.start for part in spatial],
                    [part.stop - part.start for part in spatial],
                )
        finally:
            if whole_file:
                stack.close()


def _of_zarr(theirs: Any) -> FileRegions:
    # what was never written is the fill value, as for careamics
    options = Options(theirs.original_axes, allow_missing_chunks=True)
    array = theirs._array
    root = getattr(array.store, "root", None)
    if isinstance(root, Path):
        return _in_file(partial(_opened, zarr.open_all, root / array.path, options))
    return _in_file(partial(ArrayReader, array, str(theirs.source), options))


def _of_czi(theirs: Any) -> StackRegions:
    pixels = frozenset(theirs._czi.pixel_types.values())
    size = [min(n, _CZI_SIDE) for n in theirs.data_shape[-2:]]
    chunk_shape = (1,) * (len(theirs.data_shape) - 2) + tuple(size)
    return StackRegions(theirs, chunk_shape, _CZI_TYPES.get(pixels, "float32"))


def _of_file(theirs: Any) -> RegionReader:
    return _of_tiff(theirs) or StackRegions(theirs, theirs.data_shape, "float32")


def _of_tiff(theirs: Any) -> FileRegions | None:
    """Return a reader of parts of the file, where it is one that gives the same image."""
    read = theirs.read_func
    if (read.__module__.partition(".")[0], read.__name__) != ("careamics", "read_tiff"):
        return None
    options = Options(theirs.axes, 0, 0, allow_missing_chunks=True, keep_alpha=True)
    try:
        regions = _in_file(partial(_opened, tiff.open_all, theirs.source, options))
    except (ImportError, OSError, TypeError, ValueError):  # careamics will say what is wrong
        return None
    return regions if regions.shape == tuple(theirs.data_shape) else None


def _opened(
    open_all: Callable[[Path, Options], list[ImageReader]], path: Path, options: Options
) -> ImageReader:
    (reader,) = open_all(checked_path(path), options)
    return reader


def _in_file(open_again: Callable[[], ImageReader]) -> FileRegions:
    return FileRegions(open_again(), open_again)


_READERS: dict[str, Callable[[Any], RegionReader]] = {
    "ZarrImageStack": _of_zarr,
    "CziImageStack": _of_czi,
    "FileImageStack": _of_file,
}
"""By careamics' classes."""

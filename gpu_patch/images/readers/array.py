"""Arrays, of NumPy or of whoever has shape, dtype and slices; what a function of the user reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch import device as devices
from gpu_patch.checks import shorten
from gpu_patch.images.readers.base import ImageReader, Key
from gpu_patch.images.readers.info import Options, described


class ArrayReader(ImageReader):
    """An array that is there already, or that its own package reads in parts.

    Parameters
    ----------
    array : array_like
        Kept until `close`.
    source : str
        What error messages call it.
    options : Options
        Its axes must be among them.
    files : tuple of Path, default ()
        Files that it was read from, beside those that it says itself.
    """

    kind = "an array"

    def __init__(
        self, array: Any, source: str, options: Options, files: tuple[Path, ...] = ()
    ) -> None:
        files += files_of(array)
        known = isinstance(getattr(array, "dtype", None), np.dtype)
        if not known or hasattr(array, "__cuda_array_interface__"):
            array = devices.as_array(array)
        shape = tuple(map(int, array.shape))
        chunks: Any = getattr(array, "chunks", None)
        in_chunks = isinstance(chunks, tuple) and all(isinstance(n, int) for n in chunks)
        chunk_shape = chunks if in_chunks else (1,) * len(shape)
        dtype = np.dtype(array.dtype)
        info = described(
            source, "array", "", shape, options, dtype=dtype, chunk_shape=chunk_shape, files=files
        )
        super().__init__(info, None)
        self._array = array

    @property
    def resident(self) -> Any:
        """The array, unless it is another package's."""
        plain = type(self._array) is np.ndarray or devices.is_cuda_array(self._array)
        return self._array if plain else None

    def close(self) -> None:
        """Let go of the array."""
        self._array = None

    def _select(self, key: Key) -> NDArray[Any]:
        return np.asarray(self._array[key])


def open_by(read_func: Callable[[Path], Any], path: Path, options: Options) -> list[ImageReader]:
    """Return what a function of the user reads from a file."""
    try:
        array = read_func(path)
    except Exception as error:
        error.add_note(f"while read_func={shorten(read_func)} was reading {path}")
        raise
    return [ArrayReader(array, str(path), options, (path,))]


def files_of(array: Any) -> tuple[Path, ...]:
    """Return the file or folder that an array is in: of `numpy.memmap`, zarr and h5py."""
    if isinstance(array, np.ndarray):
        while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
            array = array.base
        found = getattr(array, "filename", None)
    else:
        found = getattr(getattr(array, "store", None), "root", None)
        if found is None:
            found = getattr(getattr(array, "file", None), "filename", None)
        elif isinstance(inside := getattr(array, "path", None), str):
            found = Path(found) / inside
    return (Path(os.path.realpath(found)),) if isinstance(found, (str, Path)) else ()

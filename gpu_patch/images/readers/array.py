"""Arrays, of NumPy or of whoever has shape, dtype and slices; what a function of the user reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch import device as devices
from gpu_patch.errors import shorten
from gpu_patch.images.readers._base import ImageInfo, ImageReader, Key, Options, unknown_axes


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
    """

    kind = "an array"

    def __init__(self, array: Any, source: str, options: Options) -> None:
        known = isinstance(getattr(array, "dtype", None), np.dtype)
        if not known or hasattr(array, "__cuda_array_interface__"):
            array = devices.as_array(array)
        shape = tuple(map(int, array.shape))
        if options.axes is None:
            raise unknown_axes(source, shape)
        chunks: Any = getattr(array, "chunks", None)
        in_chunks = isinstance(chunks, tuple) and all(isinstance(n, int) for n in chunks)
        chunk_shape = chunks if in_chunks else (1,) * len(shape)
        info = ImageInfo(source, "array", shape, options.axes, np.dtype(array.dtype), chunk_shape)
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
    return [ArrayReader(array, str(path), options)]

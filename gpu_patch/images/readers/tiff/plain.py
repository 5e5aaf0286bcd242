"""Pixels of a TIFF that lie in one piece: once they are found, tifffile is not needed any more."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.readers.flat import check_length, read_plain


class PlainPixels:
    """The pixels of a series, in a file that is open while it is used.

    tifffile's own objects are hundreds for each file; of many files they would cost the garbage
    collector more time the more there are.

    Parameters
    ----------
    series : tifffile.TiffPageSeries
        The series.
    offset : int
        Where its pixels begin.
    """

    def __init__(self, series: Any, offset: int) -> None:
        tiff = series.keyframe.parent
        self._path, self._offset = Path(tiff.filehandle.path), offset
        self._shape, self._dtype = tuple(map(int, series.shape)), np.dtype(series.dtype)
        self._stored = np.dtype(tiff.byteorder + self._dtype.char)
        self._file: io.FileIO | None = None

    @property
    def closed(self) -> bool:
        """Whether the file is not open."""
        return self._file is None

    def open(self) -> None:
        """Open the file."""
        self._file = io.FileIO(self._path)

    def close(self) -> None:
        """Close it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def check(self) -> None:
        """Raise where the open file is too short."""
        length = os.fstat(self._descriptor).st_size
        check_length(length, self._offset, self._shape, self._dtype)

    def read(self, key: Sequence[slice]) -> NDArray[Any]:
        """Return a part of the series from the open file."""
        block = read_plain(self._descriptor, self._offset, self._shape, self._stored, key)
        return block.astype(self._dtype, copy=False)

    @property
    def _descriptor(self) -> int:
        assert self._file is not None
        return self._file.fileno()

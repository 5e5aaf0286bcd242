""".npy files, read in parts and never unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.lib import format as npy
from numpy.typing import NDArray

from gpu_patch.images.readers.base import ImageReader, Key
from gpu_patch.images.readers.choices import checked_level, chosen_scenes
from gpu_patch.images.readers.flat import check_length, read_plain
from gpu_patch.images.readers.info import Options, described
from gpu_patch.images.readers.paths import reading


class NpyReader(ImageReader):
    """An array that `numpy.save` wrote.

    Parameters
    ----------
    path : Path
        The file.
    options : Options
        Its axes must be among them.
    """

    kind = "a NumPy file"

    def __init__(self, path: Path, options: Options) -> None:
        checked_level(path, options.level, 1)
        chosen_scenes(path, options.scene, [""])
        with reading(path, self.kind), path.open("rb") as file:
            version = npy.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"its version {version} holds no plain numbers")
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, self._reversed, dtype = header(file)
            if dtype.hasobject:
                raise ValueError("it holds Python objects, which are never loaded")
            self._offset = file.tell()
        # an array in Fortran's order is stored as its transpose
        chunk_shape = (1,) * (len(shape) - 1) + shape[-1:]
        if self._reversed:
            chunk_shape = chunk_shape[::-1]
        info = described(
            str(path),
            "npy",
            "",
            shape,
            options,
            dtype=dtype,
            chunk_shape=chunk_shape,
            files=(path,),
        )
        super().__init__(info, path)
        self._path = path

    def check(self) -> None:
        """Raise where the file is too short."""
        with reading(self._path, self.kind):
            length = self._path.stat().st_size
            check_length(length, self._offset, self.info.shape, self.info.dtype)

    def _select(self, key: Key) -> NDArray[Any]:
        with self._path.open("rb") as file:
            descriptor, info = file.fileno(), self.info
            if not self._reversed:
                return read_plain(descriptor, self._offset, info.shape, info.dtype, key)
            flipped = read_plain(descriptor, self._offset, info.shape[::-1], info.dtype, key[::-1])
            return flipped.T


def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the file's one image."""
    return [NpyReader(path, options)]

"""Readers, one file per format; each imports its package only where a file needs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gpu_patch.images.readers import array, bioio, czi, lif, nd2, npy, picture, sequence, tiff, zarr
from gpu_patch.images.readers.base import ImageReader
from gpu_patch.images.readers.content import content_of
from gpu_patch.images.readers.info import ImageInfo, Options
from gpu_patch.images.readers.paths import checked_file, checked_path
from gpu_patch.images.readers.sequence import is_sequence
from gpu_patch.images.readers.tiff import COMPANION
from gpu_patch.images.readers.units import Calibration
from gpu_patch.images.readers.url import Url, without_login
from gpu_patch.images.readers.zarr import METADATA

__all__ = [
    "COMPANION",
    "METADATA",
    "SUFFIXES",
    "UNREADABLE",
    "Calibration",
    "ImageInfo",
    "ImageReader",
    "Options",
    "Url",
    "checked_path",
    "is_image",
    "is_sequence",
    "members",
    "open_file",
    "without_login",
]

_BY_SUFFIX = {
    **dict.fromkeys((".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk", COMPANION), tiff.open_all),
    ".npy": npy.open_all,
    ".czi": czi.open_all,
    ".nd2": nd2.open_all,
    **dict.fromkeys((".lif", ".lof"), lif.open_all),
    **dict.fromkeys((".png", ".jpg", ".jpeg"), picture.open_all),
    **dict.fromkeys((".zarr", ".zarr.zip", ".ozx", ".zip"), zarr.open_all),
}
SUFFIXES = tuple(suffix for suffix in _BY_SUFFIX if suffix != ".zip")
"""Endings of the files that can be read."""
UNREADABLE = (OSError, ValueError, TypeError, MemoryError, ImportError)
"""Errors of `open_file`."""


def open_file(
    path: Path | Url, options: Options, read_func: Callable[[Path], Any] | None = None
) -> list[ImageReader]:
    """Return readers of the images of a file that `options` ask for, most often one.

    The name of a file may have places for axes; see `sequence`.

    Raises
    ------
    OSError, ValueError
        The file is not there, or it cannot be read. The message names it.
    ImportError
        A package is missing; the message says which.
    """
    if isinstance(path, Url):
        if read_func is not None or path.suffix in _BY_SUFFIX.keys() - {".zarr"}:
            raise ValueError(f"{path} is on a server, where Zarr alone is read: download it")
        return zarr.open_url(path, options)
    if is_sequence(path):
        return sequence.open_all(path, partial(open_file, options=options, read_func=read_func))
    if read_func is not None:
        path.stat()  # raises where there is nothing
        return array.open_by(read_func, path, options)
    checked_file(path)
    if path.is_dir():
        return zarr.open_all(path, options)
    open_all = _BY_SUFFIX.get(path.suffix.lower())
    if open_all is None:
        content = content_of(path)
        open_all = content and _BY_SUFFIX[content.ending]
    if open_all is None and bioio.reads(path):
        open_all = bioio.open_all
    if open_all is None:
        raise ValueError(
            f"{path} is of no known format ({', '.join(SUFFIXES)}): convert it, install bioio and "
            "a plugin for it, or, in Python, give open_images a read_func, which takes the path "
            "and returns an array"
        )
    return open_all(path, options)


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is one; a folder by what is in it."""
    if path.is_dir():
        return any((path / name).is_file() for name in METADATA)
    # another archive may hold anything: it is opened where it is named
    return path.name.lower().endswith(SUFFIXES)


def members(path: Path, *, allow_outside: bool) -> tuple[Path, ...]:
    """Return all files of the set that a file belongs to; () where it is alone, or unreadable."""
    if _BY_SUFFIX.get(path.suffix.lower()) is not tiff.open_all or not path.is_file():
        return ()
    try:
        return tiff.members(path, Options(allow_outside=allow_outside))
    except UNREADABLE:  # who opens it says so
        return ()

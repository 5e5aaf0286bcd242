"""What every reader has in common: a description first, then regions of the canonical image."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import argument, shorten, whole_number
from gpu_patch.images.axes import (
    AXES,
    capitals,
    checked_axes,
    chosen_view,
    likely_axes,
    to_canonical,
)
from gpu_patch.images.dtypes import largest_inexact, stored_dtype
from gpu_patch.images.readers.content import mistaken
from gpu_patch.images.readers.units import Calibration

Key = tuple[slice, ...]
"""A slice with start and stop per axis."""

_MOST_NAMES = 8
_MOST_PIXELS = 2**60


@dataclass(frozen=True)
class Options:
    """What a caller of `open_images` says about the files.

    Attributes
    ----------
    axes : str or None
        Axes of every image, in capitals or not; None takes those that the file says.
    level : int
        Resolution level, 0 being the full one.
    scene : int, str or None
        Number or name of the one image wanted of a file that has several; "all" for all of them;
        None where there is only one.
    allow_missing_chunks : bool
        Whether what was never written is the fill value instead of an error.
    allow_outside : bool
        Whether a file may name others that lie outside of its folder.
    keep_alpha : bool
        Whether an alpha channel is a channel like the others; else it is left out.
    kept : str
        Axes of one pixel that are kept, of those that the file says. Others are left out where
        `axes` is None.
    """

    axes: str | None = None
    level: int = 0
    scene: int | str | None = None
    allow_missing_chunks: bool = False
    allow_outside: bool = False
    keep_alpha: bool = False
    kept: str = ""

    def __post_init__(self) -> None:
        if self.axes is not None:
            object.__setattr__(self, "axes", capitals(self.axes))


@dataclass(frozen=True)
class ImageInfo:
    """An image as its file describes it; nothing of its pixels has been read.

    Attributes
    ----------
    path : str
        The file, with what follows it where it holds several images.
    format : str
        Kind of file.
    shape, axes : tuple of int, str
        As in the file without axes of one pixel, or `axes` as given.
    dtype : numpy.dtype
        As in the file.
    chunk_shape : tuple of int
        What is stored together, in the order of `axes`: reading a part of it costs all of it.
    calibration : Calibration
        Where the pixels are and when, as far as the file says it.
    files : tuple of Path
        Every file or folder that the image is in, absolute and without links.
    colours : str
        "RGB" or "RGBA" where the channels are the colours of a picture, else "".
    left_out : str
        Axes of one pixel that the file says, and nobody asked for.
    remarks : tuple of str
        What its user should know.
    """

    path: str
    format: str
    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    chunk_shape: tuple[int, ...]
    calibration: Calibration = field(default_factory=Calibration)
    files: tuple[Path, ...] = ()
    colours: str = ""
    left_out: str = ""
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        real = dict.fromkeys(Path(os.path.realpath(file)) for file in self.files)
        object.__setattr__(self, "files", tuple(real))
        try:
            checked_axes(self.axes, self.shape)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        if 0 in self.shape:
            raise ValueError(f"{self.path}: it has no pixels, its shape is {self.shape}")
        if prod(self.shape) > _MOST_PIXELS:
            raise ValueError(f"{self.path}: no file has so many pixels, its shape is {self.shape}")
        if min(self.chunk_shape) < 1:
            raise ValueError(
                f"{self.path}: its chunks, strips or tiles have no pixels, their shape is "
                f"{self.chunk_shape}"
            )
        try:
            stored_dtype(self.dtype)
        except TypeError as error:
            raise TypeError(f"{self.path}: {error}") from None

    def size(self, axis: str) -> int:
        """Return the length along an axis, 1 where the image does not have it."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def physical_sizes(self) -> Mapping[str, float]:
        """Size of a pixel along Z, Y and X in micrometres, where the file says it."""
        return self.calibration.physical_sizes

    @property
    def canonical_axes(self) -> str:
        """SCZYX or SCYX."""
        return "SCZYX" if "Z" in self.axes else "SCYX"

    @property
    def canonical_shape(self) -> tuple[int, ...]:
        """SC(Z)YX, with S and T merged."""
        return (self.size("S") * self.size("T"), *map(self.size, self.canonical_axes[1:]))

    @property
    def canonical_chunk_shape(self) -> tuple[int, ...]:
        """`chunk_shape` as SC(Z)YX; its samples follow each other within one S."""
        chunk = dict(zip(self.axes, self.chunk_shape, strict=True))
        samples = chunk.get("T", 1) if "T" in self.axes else chunk.get("S", 1)
        return (samples, *(chunk.get(axis, 1) for axis in self.canonical_axes[1:]))

    @property
    def resident_dtype(self) -> np.dtype[Any]:
        """Data type that the pixels have in memory."""
        return stored_dtype(self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels in memory."""
        # Python's integers: what a damaged file claims may be beyond 64 bits
        n_pixels = 1
        for length in self.canonical_shape:
            n_pixels *= length
        return n_pixels * self.resident_dtype.itemsize


def described(
    path: str,
    format: str,
    axes: str,
    shape: tuple[int, ...],
    options: Options,
    *,
    dtype: np.dtype[Any],
    chunk_shape: tuple[int, ...],
    remarks: Sequence[str] = (),
    **others: Any,
) -> ImageInfo:
    """Return an image with the axes that it is taken with.

    Parameters
    ----------
    path, format : str
        As in `ImageInfo`.
    axes, shape : str, tuple of int
        What the file says; `axes` is "" where it does not.
    options : Options
        Whose axes count.
    dtype, chunk_shape, remarks
        As in `ImageInfo`, with the axes of `shape`.
    **others
        As in `ImageInfo`.

    Raises
    ------
    ValueError
        The file does not say its axes, and `options` neither; or they do not fit.
    """
    if options.axes is None and not axes:
        raise unknown_axes(path, shape)
    try:
        view = chosen_view(axes, shape, options.axes, options.kept)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return ImageInfo(
        path,
        format,
        view.shape,
        view.axes,
        dtype,
        along(chunk_shape, shape, view.shape, 1),
        left_out=view.left_out,
        remarks=(*remarks, *[view.remark] * bool(view.remark)),
        **others,
    )


def never_written(what: str, missing: Sequence[str], n_all: int) -> str:
    """Say how many of an image's parts are missing, and which is the first; "" for none."""
    if not missing:
        return ""
    return f"{len(missing)} of {n_all} {what} were never written, the first is {missing[0]}"


def alpha_left_out() -> str:
    """Return the remark on an alpha channel that is not kept."""
    return f"an alpha channel is left out: {argument('keep_alpha', True)} keeps it"


def along(values: Sequence[Any], shape: Sequence[int], other: Sequence[int], single: Any) -> Any:
    """Return what belongs to the axes of `shape`, for `other`, which differs in axes of one pixel.

    Those of one pixel in `other` have `single`.
    """
    rest = iter([value for value, n in zip(values, shape, strict=True) if n != 1])
    return tuple(single if n == 1 else next(rest) for n in other)


class ImageReader(ABC):
    """An image in a file.

    Files are opened when they are read, and stay open until `close`; reading again opens them
    again. A reader may be used by one thread at a time.

    Parameters
    ----------
    info : ImageInfo
        Its description.
    watched : Path, sequence of Path, or None
        The files whose change is an error.
    stored_shape : tuple of int or None, default None
        What `_select` reads, where that has other axes of one pixel than `info`.

    Attributes
    ----------
    stamps : dict of Path to tuple of int
        Size and date of each of them when it was opened.
    """

    kind = "an image"
    """What the file should be, for error messages."""

    def __init__(
        self,
        info: ImageInfo,
        watched: Path | Sequence[Path] | None,
        stored_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.info = info
        self._stored_shape = info.shape if stored_shape is None else stored_shape
        self.largest_inexact = 0
        paths = [watched] if isinstance(watched, Path) else watched or ()
        self.stamps = {path: _stamp(path) for path in paths}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def resident(self) -> Any:
        """The image's array in the file's axes where it lies in memory as a whole, else None."""
        return None

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of the file."""

    def check(self) -> None:  # noqa: B027 - pictures say nothing of their length
        """Raise where the file is too short for its image, without reading pixels.

        Raises
        ------
        OSError, ValueError
            As in `read`.
        """

    def missing(self) -> str:
        """Say how much of the image was never written, "" where nothing is known to be."""
        return ""

    def read(self, region: Sequence[slice], out: NDArray[Any]) -> None:
        """Read a part of the canonical image, and no more of the file than its chunks.

        Parameters
        ----------
        region : sequence of slice
            One with start and stop, within the image, per axis of SC(Z)YX.
        out : array
            Of the region's shape; values are converted to its type.

        Raises
        ------
        OSError, ValueError
            The file cannot be read, or is not the one that was described. The message names it.
        """
        samples, *others = region
        wanted = dict(zip(self.info.canonical_axes[1:], others, strict=True))
        first = samples.start
        for s, t in _boxes(samples, self.info.size("T")):
            key = tuple({"S": s, "T": t, **wanted}[axis] for axis in self.info.axes)
            block = to_canonical(self.select(key), self.info.axes)
            start = s.start * self.info.size("T") + t.start - first
            out[start : start + len(block)] = block

    def select(self, key: Key) -> NDArray[Any]:
        """Read a part in the file's own axes and data type.

        Parameters
        ----------
        key : tuple of slice
            One with start and stop, within the image, per axis of the file.
        """
        stored = along(key, self.info.shape, self._stored_shape, slice(0, 1))
        with reading(self.info.path, self.kind):
            block = self._select(stored)
            expected = tuple(part.stop - part.start for part in stored)
            if block.shape != expected:
                raise ValueError(f"it gave the shape {block.shape}, not {expected}")
        block = block.reshape([part.stop - part.start for part in key])
        for path in self._files_read():
            if _stamp(path) != self.stamps[path]:
                raise self.changed(path)
        inexact = largest_inexact(block, self.info.resident_dtype)
        self.largest_inexact = max(self.largest_inexact, inexact)
        return block

    def changed(self, path: Path) -> ValueError:
        """Return the error for a file that is not the one that was opened."""
        own = path == next(iter(self.stamps))
        name = self.info.path if own else f"{self.info.path}: '{path.name}', one of its files,"
        return ValueError(
            f"{name} has changed since it was opened: open it again, and let nothing write to it "
            "while it is in use"
        )

    def _files_read(self) -> Iterable[Path]:
        """Return those of the watched files that were read since the last call."""
        return self.stamps

    def whole(self) -> NDArray[Any]:
        """Read all of it, in the file's own axes and data type."""
        return self.select(tuple(slice(0, length) for length in self.info.shape))

    @abstractmethod
    def _select(self, key: Key) -> NDArray[Any]:
        """Do what `select` does in the stored shape, with any exception for what goes wrong."""


def checked_path(path: object) -> Path:
    """Return `path` as one."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a str or a pathlib.Path, found {shorten(path)}")
    return Path(path)


class NotThereError(ValueError):
    """What was asked for is not in a file that can be read."""


def inside(folder: Path, name: str, who: str, *, allow: bool) -> Path:
    """Return a file or folder that a file names.

    Parameters
    ----------
    folder : Path
        What the name starts from.
    name : str
        The name.
    who : str
        Says which file names it, for the error.
    allow : bool
        Whether it may lie outside of `folder`.

    Raises
    ------
    ValueError
        It lies outside of `folder`, and may not.
    """
    # as either system reads it: files are carried from one to the other
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    outside = posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts
    if outside and not allow:
        # whoever made the file may not have meant well
        raise NotThereError(
            f"{who} names '{name}', which is outside of its folder: "
            f"{argument('allow_outside', True)} reads it, where you trust the file"
        )
    return folder / name


def checked_file(path: Path) -> Path:
    """Return `path` where it is a file or a folder: a pipe would be waited for without an end."""
    mode = path.stat().st_mode  # raises where there is nothing
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = (
            "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        )
        raise ValueError(f"{path} is {kind}, and no file")
    return path


@contextmanager
def reading(path: object, kind: str) -> Iterator[None]:
    """Make every exception of a reading package one that names the file."""
    try:
        yield
    except (ImportError, NotThereError):
        raise
    except MemoryError as error:
        raise MemoryError(f"{path}: {str(error) or 'no memory is left'}") from error
    except OSError as error:
        if error.errno is None:
            raise _unreadable(path, kind, error) from error
        if error.filename is None or Path(os.fsdecode(error.filename)) != Path(str(path)):
            other = f", of '{os.fsdecode(error.filename)}'" if error.filename else ""
            raise OSError(error.errno, f"{os.strerror(error.errno)}{other}", str(path)) from error
        raise
    # they raise whatever a damaged file provokes, struct and zlib errors included
    except Exception as error:
        raise _unreadable(path, kind, error) from error


def _unreadable(path: object, kind: str, error: Exception) -> ValueError:
    said = mistaken(Path(str(path)), kind) or str(error) or type(error).__name__
    return ValueError(f"{path} cannot be read as {kind}: {said}")


def unknown_axes(path: object, shape: tuple[int, ...]) -> ValueError:
    """Return the error for a file that does not say its axes."""
    guesses = likely_axes(shape)
    hint = f": {argument('axes', *guesses)}?" if guesses else ""
    return ValueError(
        f"{path} does not say its axes: its shape is {shape}; "
        f"give {argument('axes')}, one letter of {AXES!r} per axis{hint}"
    )


def chosen_scenes(
    path: object, scene: int | str | None, names: Sequence[str], *, alike: bool = True
) -> list[int]:
    """Return the numbers of the scenes that `scene` means, of those with these names.

    Images that are not `alike`, as a slide and the picture of its label, are not opened together.
    """
    listed = _listed([f"{i} ({name})" if name else str(i) for i, name in enumerate(names)])
    if scene is None:
        if len(names) > 1:
            raise ValueError(
                f"{path} has {len(names)} scenes ({listed}): "
                f"say {argument('scene', 0)} or another number or name"
                + (
                    f", or {argument('scene', 'all')}"
                    if alike
                    else ". They differ in channels or spatial axes, and open one at a time"
                )
            )
        return [0]
    if isinstance(scene, str):
        if scene == "all":
            return list(range(len(names)))
        numbers = [i for i, name in enumerate(names) if name == scene]
        if not numbers:
            raise ValueError(f"{path} has no scene {scene!r}, only {listed}")
        if len(numbers) > 1:
            raise ValueError(
                f"{path} has {len(numbers)} scenes that are called {scene!r}, of the numbers "
                f"{_listed(numbers)}: say {argument('scene', numbers[0])} or another of them"
            )
        return numbers
    if whole_number("scene", scene, minimum=0) >= len(names):
        raise ValueError(f"{path} has no scene {scene}, only {listed}")
    return [int(scene)]


def _listed(items: Sequence[object]) -> str:
    return ", ".join([*map(str, items[:_MOST_NAMES]), *["…"] * (len(items) > _MOST_NAMES)])


def checked_level(path: object, level: int, n_levels: int) -> int:
    """Return `level` where the image has it."""
    if whole_number("level", level, minimum=0) >= n_levels:
        raise NotThereError(
            f"{path} has no level {level}: "
            + (
                f"its resolution levels are 0 … {n_levels - 1}"
                if n_levels > 1
                else "it has level 0 alone"
            )
        )
    return level


def _boxes(samples: slice, n_times: int) -> Iterator[tuple[slice, slice]]:
    """Split samples, S outermost, into ranges of S and T."""
    if n_times == 1:
        yield samples, slice(0, 1)
        return
    for s in range(samples.start // n_times, -(-samples.stop // n_times)):
        first = s * n_times
        yield (
            slice(s, s + 1),
            slice(max(0, samples.start - first), min(n_times, samples.stop - first)),
        )


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns

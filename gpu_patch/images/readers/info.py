"""What is known of an image before its pixels are read, and what its reader is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from gpu_patch.checks import Message, argument
from gpu_patch.images.axes import (
    AXES,
    capitals,
    checked_axes,
    chosen_view,
    likely_axes,
)
from gpu_patch.images.dtypes import stored_dtype
from gpu_patch.images.readers.units import Calibration

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
    labels : bool
        Whether the images are labels, whose integers stay what they are.
    """

    axes: str | None = None
    level: int = 0
    scene: int | str | None = None
    allow_missing_chunks: bool = False
    allow_outside: bool = False
    keep_alpha: bool = False
    kept: str = ""
    labels: bool = False

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
    labels : bool
        Whether the pixels are labels, whose integers stay what they are.
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
    labels: bool = False

    def __post_init__(self) -> None:
        real = dict.fromkeys(Path(os.path.realpath(file)) for file in dict.fromkeys(self.files))
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
            stored_dtype(self.dtype, labels=self.labels)
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

    @cached_property
    def canonical_shape(self) -> tuple[int, ...]:
        """SC(Z)YX, with S and T merged."""
        return (self.size("S") * self.size("T"), *map(self.size, self.canonical_axes[1:]))

    @property
    def canonical_chunk_shape(self) -> tuple[int, ...]:
        """`chunk_shape` as SC(Z)YX; its samples follow each other within one S."""
        chunk = dict(zip(self.axes, self.chunk_shape, strict=True))
        samples = chunk.get("T", 1) if "T" in self.axes else chunk.get("S", 1)
        return (samples, *(chunk.get(axis, 1) for axis in self.canonical_axes[1:]))

    @cached_property
    def resident_dtype(self) -> np.dtype[Any]:
        """Data type that the pixels have in memory."""
        return stored_dtype(self.dtype, labels=self.labels)

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels in memory."""
        # in Python's integers: a damaged file may claim sizes beyond 64 bits
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
        labels=options.labels,
        **others,
    )


def with_single_axes(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Return the axes and shape of an image with those of T, Z and C that it lacks, of one pixel.

    For formats that always have them, but whose package leaves out axes of one pixel.
    """
    order, sizes = "TZCYX", list(shape)
    for i, axis in ((2, "C"), (1, "Z"), (0, "T")):
        if axis not in axes:
            at = min((axes.index(after) for after in order[i + 1 :] if after in axes), default=0)
            axes = axes[:at] + axis + axes[at:]
            sizes.insert(at, 1)
    return axes, tuple(sizes)


def foreign_axes(
    path: object, axes: Sequence[str], shape: Sequence[int], meanings: Mapping[str, str]
) -> ValueError:
    """Return the error for axes of a file that are not those of images here.

    Parameters
    ----------
    path : object
        What the error calls the file.
    axes : sequence of str
        Of the file, by the names of its package.
    shape : sequence of int
        Their lengths.
    meanings : mapping of str to str
        What is known of such axes.
    """
    foreign = [axis for axis in axes if axis not in AXES or axis in meanings]
    named = ", ".join(f"{a} ({meanings[a]})" if a in meanings else a for a in foreign)
    lengths = ", ".join(f"{axis} {n}" for axis, n in zip(axes, shape, strict=True))
    free = [axis for axis in AXES if axis not in axes]
    replaced = {axis: free.pop(0) for axis in foreign[: len(free)]}
    guess = "".join(replaced.get(axis, axis) for axis in axes)
    way_out = Message("split it with the microscope's software")
    if len(guess) == len(set(guess)) and set(guess) <= set(AXES) and {*"YX"} <= set(guess):
        way_out = Message(argument("axes", guess), " takes them as others, or ", way_out)
    return ValueError(
        Message(
            f"{path} has axes that have no place in {AXES!r}: {named}; it is {lengths}: ", way_out
        )
    )


def never_written(what: str, missing: Sequence[str], n_all: int) -> str:
    """Say how many of an image's parts are missing, and which is the first; "" for none."""
    if not missing:
        return ""
    return f"{len(missing)} of {n_all} {what} were never written, the first is {missing[0]}"


def alpha_left_out() -> str:
    """Return the remark on an alpha channel that is not kept."""
    return Message("an alpha channel is left out: ", argument("keep_alpha", True), " keeps it")


def along(values: Sequence[Any], shape: Sequence[int], other: Sequence[int], single: Any) -> Any:
    """Return what belongs to the axes of `shape`, for `other`, which differs in axes of one pixel.

    Those of one pixel in `other` have `single`.
    """
    rest = iter([value for value, n in zip(values, shape, strict=True) if n != 1])
    return tuple(single if n == 1 else next(rest) for n in other)


def unknown_axes(path: object, shape: tuple[int, ...]) -> ValueError:
    """Return the error for a file that does not say its axes."""
    guesses = likely_axes(shape)
    hint = Message(": ", argument("axes", *guesses), "?") if guesses else ""
    return ValueError(
        Message(
            f"{path} does not say its axes: its shape is {shape}; give ",
            argument("axes"),
            f", one letter of {AXES!r} per axis",
            hint,
        )
    )

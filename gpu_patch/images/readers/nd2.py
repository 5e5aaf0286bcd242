"""ND2 files of Nikon by nd2, frame by frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument
from gpu_patch.images.axes import AXES
from gpu_patch.images.readers.base import ImageReader, Key
from gpu_patch.images.readers.choices import checked_level, chosen_scenes
from gpu_patch.images.readers.info import (
    Options,
    described,
    foreign_axes,
    never_written,
    with_single_axes,
)
from gpu_patch.images.readers.paths import reading
from gpu_patch.images.readers.units import Calibration, micrometres, positions, seconds
from gpu_patch.optional import imported

_LETTERS = {"TimeLoop": "T", "NETimeLoop": "T", "ZStackLoop": "Z", "XYPosLoop": "P"}
"""Axes of nd2's kinds of loops."""
_FOREIGN = {"CustomLoop": "a loop of the user", "S": "colours beside channels"}
_OLD = b"\0\0\0\x0cjP  "
"""First bytes of the old format."""
_END, _END_BYTES = b"ND2 CHUNK MAP SIGNATURE 0000001!", 40
"""How the last bytes begin: what ends the map of all parts, then where it lies."""


class Nd2Reader(ImageReader):
    """A position of an ND2 file.

    A frame holds all channels of a plane, pixel by pixel, and is read as a whole. What was planned
    but never recorded has no frame.

    Parameters
    ----------
    path : Path
        The file.
    options : Options
        Its scene is chosen already.
    position : int
        Number of the position.
    name : str
        What messages call it.
    """

    kind = "an ND2"

    def __init__(self, path: Path, options: Options, position: int, name: str) -> None:
        self._path, self._position = path, position
        self._file: Any = None
        self._source: Any = None
        self._allow_missing = options.allow_missing_chunks
        try:
            with reading(name, self.kind):
                self._describe(options, name)
        finally:
            self.close()

    def _describe(self, options: Options, name: str) -> None:
        file, attributes = self._opened(), self._opened().attributes
        self._loops = [(_LETTERS.get(loop.type, loop.type), loop.count) for loop in file.experiment]
        self._n_frames = int(attributes.sequenceCount)
        n_channels, n_colours = int(attributes.channelCount or 1), file.components_per_channel
        if n_colours != 3:  # components that are no colours count as channels
            n_channels, n_colours = n_channels * n_colours, 1
        self._frame_shape = (n_channels, attributes.heightPx, attributes.widthPx, n_colours)
        loops = [(axis, n) for axis, n in self._loops if axis != "P"]
        sizes = [*loops, ("C", n_channels), ("Y", attributes.heightPx), ("X", attributes.widthPx)]
        if n_colours > 1:
            sizes.append(("C" if n_channels == 1 else "S", n_colours))
            sizes = [(a, n) for a, n in sizes if a != "C" or n > 1]
        axes, stored = tuple(a for a, _ in sizes), tuple(int(n) for _, n in sizes)
        shape, stated = stored, "".join(axes)
        missing = self._missing_frames()
        if missing and not self._allow_missing:
            zeros = argument("allow_missing_chunks", True)
            raise ValueError(Message(f"{missing}: ", zeros, " takes zeros for them"))
        n_planned = prod(n for _, n in self._loops)
        if self._n_frames > n_planned:
            raise ValueError(
                f"it has {self._n_frames} frames, and says how {n_planned} of them lie"
            )
        if not set(axes) <= set(AXES) or "S" in axes or len(set(axes)) < len(axes):
            if options.axes is None:
                raise foreign_axes("it", axes, shape, _FOREIGN)
            stated = ""
        else:
            stated, shape = with_single_axes(stated, stored)
        planned = {axis for axis, _ in loops}
        chunk = [1 if a in planned else n for a, n in zip(stated or axes, shape, strict=True)]
        info = described(
            name,
            "ND2",
            stated,
            shape,
            options,
            dtype=np.dtype(file.dtype),
            chunk_shape=tuple(chunk),
            calibration=_calibration(file, self._position),
            files=(self._path,),
            colours="RGB" if n_colours == 3 and n_channels == 1 else "",
        )
        super().__init__(info, self._path, stored)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def missing(self) -> str:
        """Say how many frames were never recorded."""
        return self._missing_frames()

    def _missing_frames(self) -> str:
        n_planned = prod(n for _, n in self._loops)
        lost = [f"frame {i}" for i in range(min(self._n_frames, n_planned), n_planned)]
        return never_written("frames", lost, n_planned)

    def _opened(self) -> Any:
        if self._file is None:
            self._file, self._source = _open(self._path)
        return self._file

    def _select(self, key: Key) -> NDArray[Any]:
        loops = [axis for axis, _ in self._loops if axis != "P"]
        n_loops = len(loops)
        out = np.empty([part.stop - part.start for part in key], self.info.dtype)
        channels, rows, columns, colours = self._of_frame(key[n_loops:])
        for place in product(*(enumerate(range(p.start, p.stop)) for p in key[:n_loops])):
            number = self._number([at for _, at in place])
            frame = self._frame(number)[channels, rows, columns, colours]
            to = tuple(i for i, _ in place)
            out[to] = frame.reshape(out.shape[n_loops:])
        return out

    def _of_frame(self, key: Key) -> tuple[slice, ...]:
        """Return which channels, rows, columns and colours of a frame are meant."""
        n_channels, _, _, n_colours = self._frame_shape
        parts = list(key)
        channels = parts.pop(0) if n_colours == 1 or n_channels > 1 else slice(0, 1)
        return (channels, *parts, *[slice(0, 1)] * (n_colours == 1))

    def _number(self, place: Sequence[int]) -> int:
        """Return the number of a frame: the loops in their order, the last one fastest."""
        rest, number = iter(place), 0
        for axis, n in self._loops:
            number = number * n + (self._position if axis == "P" else next(rest))
        return number

    def _frame(self, number: int) -> NDArray[Any]:
        """Read a frame: channel, Y, X, colour."""
        file = self._opened()
        n_reads = self._source.n_reads
        frame = np.asarray(file.read_frame(number))
        if self._source.n_reads == n_reads and not self._allow_missing:
            # nd2 gives zeros, without a look at the file
            zeros = argument("allow_missing_chunks", True)
            never = f"its frame {number} was never written: "
            raise ValueError(Message(never, zeros, " takes zeros for it"))
        n_channels, height, width, n_colours = self._frame_shape
        frame = frame.reshape(-1, height, width, int(file.components_per_channel))
        by_component = frame.transpose(0, 3, 1, 2).reshape(n_channels, n_colours, height, width)
        return by_component.transpose(0, 2, 3, 1)


class _Source:
    """A file for nd2, which is read and never mapped, and which says where it ends too early.

    nd2 maps files that it opens by itself: where somebody cuts a mapped file short, the next look
    at it kills the process. And frames that it cannot read are zeros to it.

    Attributes
    ----------
    n_reads : int
        Calls of `read`.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.name, self.n_reads = str(path), 0

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        self._file.close()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        self.n_reads += 1
        content = self._file.read(size)
        if len(content) < size:
            raise ValueError(f"it ends {size - len(content)} bytes too early")
        return content


def _open(path: Path) -> tuple[Any, _Source]:
    """Return nd2's file, and what it reads from."""
    nd2, source = imported("nd2", "reading ND2 files"), _Source(path)
    try:
        if source.read(len(_OLD)) == _OLD:
            raise ValueError("it is of the format before 2010, JPEG 2000: save it anew as ND2")
        _check_end(source)
        file = nd2.ND2File(source)
        # nd2 reads them when it first needs them: after this, only frames are read
        _ = file.attributes, file.experiment
        return file, source
    except BaseException:
        source.close()
        raise


def _check_end(source: _Source) -> None:
    """Raise where a file does not end as one that was written to its end."""
    source.seek(max(0, source.seek(0, os.SEEK_END) - _END_BYTES))
    if source.read(len(_END)) != _END:
        raise ValueError(
            "the map of its parts, with which ND2 files end, is not there: it may be cut short, "
            "or damaged"
        )


def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the positions of the file that `options.scene` means, by number or name."""
    checked_level(path, options.level, 1)
    with reading(path, Nd2Reader.kind):
        file, _ = _open(path)
        with file:
            names = _positions(file)
    return [
        Nd2Reader(path, options, i, str(path) if len(names) == 1 else f"{path}, position {i}")
        for i in chosen_scenes(path, options.scene, names)
    ]


def _points(file: Any) -> list[Any]:
    return [
        point
        for loop in file.experiment
        if loop.type == "XYPosLoop"
        for point in loop.parameters.points
    ]


def _positions(file: Any) -> list[str]:
    """Return the names of the positions, "" for those without."""
    return [point.name or "" for point in _points(file)] or [""]


def _calibration(file: Any, position: int) -> Calibration:
    channels = file.metadata.channels or ()
    sizes: dict[str, tuple[float, str]] = {}
    if channels:
        volume = channels[0].volume
        sizes = {
            axis: (size, "µm")
            for axis, size, is_known in zip(
                "XYZ", volume.axesCalibration, volume.axesCalibrated, strict=True
            )
            if is_known
        }
    origin: dict[str, float] = {}
    points = _points(file)
    if points:
        x, y, z = points[position].stagePositionUm
        origin = positions({"X": (x, "µm"), "Y": (y, "µm")} | ({"Z": (z, "µm")} if z else {}))
    return Calibration(micrometres(sizes), origin, _interval(file))


def _interval(file: Any) -> float | None:
    """Return the seconds between time points, None where they are not one number."""
    for loop in file.experiment:
        if _LETTERS.get(loop.type) != "T":
            continue
        parts = getattr(loop.parameters, "periods", None) or [loop.parameters]
        # a period of 0 means as fast as possible: what was measured counts then
        periods = {part.periodMs or part.periodDiff.avg for part in parts}
        return seconds(periods.pop(), "ms") if len(periods) == 1 else None
    return None

"""Parts of one page of a TIFF, from the strips or tiles that they touch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument
from gpu_patch.images.readers.tiff.planes import OneOpen
from gpu_patch.images.readers.unpacking import HEAD, check_claim, check_stream, needs_unpacking

_CODECS = {8: "zlib", 32946: "zlib", 34925: "lzma", 50000: "zstd"}
"""As numcodecs calls them, of the compressions that unpack to any length."""


def read_part(
    page: Any, name: str, key: Sequence[slice], opened: OneOpen, *, allow_missing: bool
) -> NDArray[Any]:
    """Return a part of a page.

    Parameters
    ----------
    page : tifffile.TiffPage or tifffile.TiffFrame
        The page.
    name : str
        What errors call it.
    key : sequence of slice
        One with start and stop, within the page, per axis.
    opened : OneOpen
        Opens its file; held while bytes are read, and not while they are decoded.
    allow_missing : bool
        Whether strips and tiles that were never written are their fill value.

    Raises
    ------
    ValueError
        A strip or tile is missing, or cannot be what it should be.
    """
    # the page's own keyframe: another file of the set may differ in byte order or tiling
    keyframe = page.keyframe
    wanted = dict(zip(keyframe.axes, key, strict=True))
    rows, columns = wanted["Y"], wanted["X"]
    n_planes, depth, _, _, n_samples = keyframe.shaped
    shape = (n_planes, depth, rows.stop - rows.start, columns.stop - columns.start, n_samples)
    check_layout(name, page)
    touched = _touched(keyframe, rows, columns)
    out = np.empty(shape if len(touched) != 1 else 0, keyframe.dtype)
    for index in touched:
        # decode() of no data returns where the strip or tile lies in the page
        _, (plane, z, y, x, _), (n_z, n_y, n_x, _) = keyframe.decode(None, index)
        y0, y1 = max(y, rows.start), min(y + n_y, rows.stop)
        x0, x1 = max(x, columns.start), min(x + n_x, columns.stop)
        start, count = page.dataoffsets[index], page.databytecounts[index]
        if not start or not count:
            if not allow_missing:
                raise ValueError(
                    Message(
                        f"strip or tile {index} of {name} was never written: ",
                        argument("allow_missing_chunks", True),
                        f" takes {keyframe.nodata} for it",
                    )
                )
            segment = np.full((n_z, n_y, n_x, n_samples), keyframe.nodata, keyframe.dtype)
        else:
            with opened.lock:
                file = opened.use(page.parent.filehandle)
                check_segment(name, index, start + count, file.size)
                file.seek(start)
                data = file.read(count)
                jpeg = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
            _check_unpacking(f"strip or tile {index} of {name}", keyframe, data)
            segment, _, _ = keyframe.decode(data, index, **jpeg)
        n_z = min(n_z, depth - z)
        part = segment[:n_z, y0 - y : y1 - y, x0 - x : x1 - x]
        if len(touched) == 1:  # all of the part is in it: nothing to put together
            out = part[None]
            break
        out[
            plane,
            z : z + n_z,
            y0 - rows.start : y1 - rows.start,
            x0 - columns.start : x1 - columns.start,
        ] = part
    lengths = [
        {"Y": out.shape[2], "X": out.shape[3]}.get(axis, length)
        for axis, length in zip(keyframe.axes, keyframe.shape, strict=True)
    ]
    rest = {"Y": slice(None), "X": slice(None)}
    return out.reshape(lengths)[tuple(rest.get(axis, wanted[axis]) for axis in keyframe.axes)]


def _touched(keyframe: Any, rows: slice, columns: slice) -> list[int]:
    """Return the numbers of the strips or tiles that have pixels of these rows and columns."""
    n_planes, depth, length, width, _ = keyframe.shaped
    n_z, n_y, n_x = 1, keyframe.rowsperstrip, width
    if keyframe.is_tiled:
        n_z, n_y, n_x = keyframe.tiledepth, keyframe.tilelength, keyframe.tilewidth
    n_outer, down, across = n_planes * -(-depth // n_z), -(-length // n_y), -(-width // n_x)
    return [
        (outer * down + y) * across + x
        for outer in range(n_outer)
        for y in range(rows.start // n_y, -(-rows.stop // n_y))
        for x in range(columns.start // n_x, -(-columns.stop // n_x))
    ]


def check_layout(name: str, page: Any) -> None:
    """Raise where a page does not say where all of its strips or tiles are."""
    if 0 in page.keyframe.chunks:
        raise ValueError(f"{name} has strips or tiles of the shape {page.keyframe.chunks}")
    n_segments = int(prod(page.keyframe.chunked))
    if min(len(page.dataoffsets), len(page.databytecounts)) < n_segments:
        raise ValueError(f"{name} lacks some of its {n_segments} strips or tiles")


def _check_unpacking(name: str, page: Any, data: bytes) -> None:
    """Raise where a strip or tile unpacks to far more than its pixels."""
    codec = _CODECS.get(int(page.compression))
    if codec is None:
        return
    expected = prod(page.chunks) * page.dtype.itemsize
    check_claim(name, codec, data[:HEAD], 0, expected)  # the length has been checked
    if needs_unpacking(codec, len(data)):
        check_stream(name, codec, data, expected)


def check_segment(page: str, index: int, stop: int, length: int) -> None:
    """Check that a strip or tile lies within its file."""
    if stop > length:
        raise ValueError(f"strip or tile {index} of {page} ends behind the file")

"""Tiles back into images, in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gpu_patch._cuda.runtime import Runtime, launch
from gpu_patch.table import PIXEL_TYPES, pack, volume
from gpu_patch.tiling import AxisCover, Segment, TileGrid

_ROWS = 16
"""Rows per block, ROWS in stitch.cu: few, so that a batch of 32 has blocks for a whole device."""

_AXIS = np.dtype([("tables", np.uint64, 4), ("patch", np.int64), ("step", np.int64)])
"""`struct AxisTable`."""

_SEGMENT = np.dtype(
    [
        ("slab", np.uint64),
        ("axes", _AXIS, 3),
        ("slab_size", np.int64, 3),
        ("base", np.int64, 3),
        ("strides", np.int32, 2),
        ("first", np.int32),
        ("stop", np.int32),
        ("in_batch", np.int32),
        ("slab_axis", np.int32),
    ]
)
"""`struct StitchSegment`."""

_TILE = np.dtype(
    [
        ("segment", np.int32),
        ("index", np.int32, 3),
        ("start", np.int32, 3),
        ("low", np.int32, 3),
        ("high", np.int32, 3),
    ]
)
"""`struct StitchTile`."""

_JOB = np.dtype(
    [
        ("patch", np.int64, 3),
        ("n_channels", np.int32),
        ("n_row_groups", np.uint32),
        ("again", np.int64),
    ]
)
"""`struct StitchJob`."""

_NO_AXIS = AxisCover(
    np.zeros(1, np.int64),
    np.zeros(1, np.int32),
    np.ones(1, np.int32),
    np.ones((1, 1), np.float32),
)
"""Stands for Z where images have two axes: one pixel, one tile."""

_tables: WeakKeyDictionary[TileGrid, dict[tuple[Runtime, int], tuple[Any, list[int]]]] = (
    WeakKeyDictionary()
)
"""Tables of grids on devices, by runtime and stream: the stream says when they are there."""


def stitch(
    runtime: Runtime,
    tiles: Any,
    segments: Sequence[Segment],
    scale: NDArray[np.float32] | None,
    offset: NDArray[np.float32] | None,
) -> None:
    """Write tiles (B, C, (Z), Y, X) into slabs; see `ops.stitch`."""
    n_channels = tiles.shape[1]
    linear = []
    if scale is not None or offset is not None:
        # a factor of 1 and a summand of −0 leave every value as it is
        ones, zeros = np.ones(n_channels, np.float32), np.full(n_channels, -0.0, np.float32)
        linear = [ones if scale is None else scale, zeros if offset is None else offset]
    exclusive = all(segment.grid.exclusive for segment in segments)
    launch_on_tiles(runtime, tiles, segments, {"EXCLUSIVE": 1} if exclusive else {}, linear)


def launch_on_tiles(
    runtime: Runtime,
    tiles: Any,
    segments: Sequence[Segment],
    constants: dict[str, int],
    linear: Sequence[NDArray[np.float32]] = (),
    *,
    again: bool = False,
) -> None:
    """Launch the kernel of this file on a batch of tiles.

    Parameters
    ----------
    runtime, tiles, segments
        As in `ops.stitch`.
    constants : dict of str to int
        Which of its ways to treat a pixel.
    linear : sequence of array of float32
        Factors and summands of the channels, or none.
    again : bool, default False
        Whether the tiles' values are added to what slabs hold of them.
    """
    n_tiles, n_channels, *patch_size = tiles.shape
    patch = volume(patch_size)
    n_row_groups = -(-patch[0] * patch[1] // _ROWS)
    job = np.array((patch, n_channels, n_row_groups, again), _JOB)
    with runtime.active():
        packed, offsets = pack(job, *_records(runtime, segments), *linear)
        device = runtime.upload(packed)
        addresses = [runtime.pointer(device) + at for at in offsets]
        launch(
            runtime.kernel(
                "stitch", "stitch", {"TILE_TYPE": PIXEL_TYPES[tiles.dtype], **constants}
            ),
            n_tiles * n_channels * n_row_groups,
            (32, 8),
            [*addresses[:3], runtime.pointer(tiles), *(addresses[3:] or (0, 0))],
        )


def _records(
    runtime: Runtime, segments: Sequence[Segment]
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Return `_SEGMENT` and `_TILE` records."""
    found = np.zeros(len(segments), _SEGMENT)
    tiles = np.zeros(sum(segment.count for segment in segments), _TILE)
    at = 0
    for i, segment in enumerate(segments):
        _fill(runtime, segment, found[i], tiles[at : at + segment.count])
        found[i]["in_batch"] = at
        tiles[at : at + segment.count]["segment"] = i
        at += segment.count
    return found, tiles


def _fill(runtime: Runtime, segment: Segment, record: np.void, tiles: NDArray[np.void]) -> None:
    """Fill in the record of a segment and those of its tiles."""
    slab, grid, first, count, _ = segment
    no_axis = 3 - len(grid.size)  # kernels know three axes: an image of two has one Z
    slab_axis = no_axis + grid.slab_axis
    order = [slab_axis, *(axis for axis in range(3) if axis != slab_axis)]
    start, _ = segment.written
    length = slab.shape[1 + grid.slab_axis]
    record["slab"] = runtime.pointer(slab)
    record["axes"]["tables"] = tables_of(runtime, grid)[order]
    _, height, width = patch = volume(grid.patch_size)
    record["axes"]["patch"] = np.array(patch)[order]
    record["axes"]["step"] = np.array([height * width, width, 1])[order]
    record["slab_size"] = volume(slab.shape[1:])
    record["base"][slab_axis] = start // length * length
    shape = np.array(volume(grid.shape))[order]
    record["strides"] = shape[1] * shape[2], shape[2]
    record["first"], record["stop"], record["slab_axis"] = first, first + count, slab_axis
    tiles["high"] = 1
    for axis, own in enumerate(segment.columns(), no_axis):
        tiles["index"][:, order.index(axis)] = own.place
        tiles["start"][:, axis], tiles["low"][:, axis] = own.start, own.low
        tiles["high"][:, axis] = np.maximum(own.high, own.low)


def tables_of(runtime: Runtime, grid: TileGrid) -> NDArray[np.uint64]:
    """Return where a grid's tables are, (3, 4): of Z, Y, X the columns of an `AxisCover`."""
    known = _tables.setdefault(grid, {})
    key = runtime, runtime.stream()
    if key not in known:
        covers = [_NO_AXIS] * (3 - len(grid.covers)) + list(grid.covers)
        packed, offsets = pack(*(part for cover in covers for part in cover))
        known[key] = runtime.upload(packed), offsets
    table, offsets = known[key]
    return np.array(offsets, np.uint64).reshape(3, 4) + np.uint64(runtime.pointer(table))

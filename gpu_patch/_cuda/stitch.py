"""Tiles back into images, in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from gpu_patch._cuda.runtime import Runtime, launch
from gpu_patch._cuda.table import PIXEL_TYPES, pack, volume
from gpu_patch.geometry import AxisCover, TileGrid
from gpu_patch.plan import Segment

_ROWS = 32
"""Rows per block, ROWS in stitch.cu."""

_SEGMENT = np.dtype(
    [
        ("slab", np.uint64),
        ("axes", np.uint64, (3, 4)),
        ("slab_size", np.int64, 3),
        ("base", np.int64, 3),
        ("strides", np.int32, 3),
        ("first", np.int32),
        ("stop", np.int32),
        ("in_batch", np.int32),
        ("slab_axis", np.int32),
        ("exclusive", np.int32),
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

_JOB = np.dtype([("patch", np.int32, 3), ("n_channels", np.int32), ("n_row_groups", np.uint32)])

_NO_AXIS = AxisCover(
    np.zeros(1, np.int64),
    np.zeros(1, np.int32),
    np.ones(1, np.int32),
    np.ones((1, 1), np.float32),
)
"""The Z of images that have none."""

_tables: WeakKeyDictionary[TileGrid, dict[tuple[Runtime, int], tuple[Any, list[int]]]] = (
    WeakKeyDictionary()
)
"""Per grid what kernels read of it, where it was uploaded in the order of each stream."""


def stitch(
    runtime: Runtime,
    tiles: Any,
    segments: Sequence[Segment],
    scale: NDArray[np.float32] | None,
    offset: NDArray[np.float32] | None,
) -> None:
    """Write tiles (B, C, (Z), Y, X) into slabs; see `ops.stitch`."""
    n_tiles, n_channels, *patch_size = tiles.shape
    patch = volume(patch_size)
    n_row_groups = -(-patch[0] * patch[1] // _ROWS)
    job = np.array((patch, n_channels, n_row_groups), _JOB)
    parts = []
    if scale is not None or offset is not None:
        # multiplying by 1 and adding −0 change nothing
        ones, zeros = np.ones(n_channels, np.float32), np.full(n_channels, -0.0, np.float32)
        parts = [ones if scale is None else scale, zeros if offset is None else offset]
    with runtime.active():
        packed, offsets = pack(job, *_records(runtime, segments), *parts)
        device = runtime.upload(packed)
        addresses = [runtime.pointer(device) + at for at in offsets]
        launch(
            runtime.kernel("stitch", "stitch", {"TILE_TYPE": PIXEL_TYPES[tiles.dtype]}),
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
    tiles["high"] = 1
    at = 0
    for i, segment in enumerate(segments):
        slab, grid, first, count, _ = segment
        missing = 3 - len(grid.size)
        record, records = found[i], tiles[at : at + count]
        record["slab"] = runtime.pointer(slab)
        record["axes"] = _addresses(runtime, grid)
        record["slab_size"] = volume(slab.shape[1:])
        start, stop = segment.written
        length = slab.shape[1 + grid.slab_axis]
        record["base"][missing + grid.slab_axis] = start // length * length
        record["strides"][missing:] = grid.strides
        record["first"], record["stop"], record["in_batch"] = first, first + count, at
        record["slab_axis"], record["exclusive"] = missing + grid.slab_axis, grid.exclusive
        records["segment"] = i
        positions = grid.positions(np.arange(first, first + count))
        for d, (cover, index) in enumerate(zip(grid.covers, positions, strict=True)):
            low, _, high = cover.spans(index)
            if d == grid.slab_axis:
                low, high = np.maximum(low, start), np.minimum(high, stop)
            for name, values in (
                ("index", index),
                ("start", cover.starts[index]),
                ("low", low),
                ("high", np.maximum(high, low)),
            ):
                records[name][:, missing + d] = values
        at += count
    return found, tiles


def _addresses(runtime: Runtime, grid: TileGrid) -> NDArray[np.uint64]:
    """Return where a grid's tables are, (3, 4) of `struct AxisTable`."""
    known = _tables.setdefault(grid, {})
    key = runtime, runtime.stream()
    if key not in known:
        covers = [_NO_AXIS] * (3 - len(grid.covers)) + list(grid.covers)
        packed, offsets = pack(*(part for cover in covers for part in cover))
        known[key] = runtime.upload(packed), offsets
    table, offsets = known[key]
    return np.array(offsets, np.uint64).reshape(3, 4) + np.uint64(runtime.pointer(table))

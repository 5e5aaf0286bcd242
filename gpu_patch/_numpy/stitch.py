"""Tiles back into images: a few slices per tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.device.host_memory import pool
from gpu_patch.tiling import Segment


class _Piece(NamedTuple):
    """A stretch of one axis of a tile."""

    tile: slice
    slab: slice
    weights: NDArray[np.float32]
    is_first: bool
    """Whether no tile before this one counts there."""


def stitch(
    tiles: NDArray[Any],
    segments: Sequence[Segment],
    scale: NDArray[np.float32] | None,
    offset: NDArray[np.float32] | None,
) -> None:
    """Write tiles (B, C, (Z), Y, X) into slabs; see `ops.stitch`."""
    at = 0
    for segment in segments:
        grid, slab = segment.grid, segment.slab
        columns = grid.positions(np.arange(segment.first, segment.first + segment.count)).tolist()
        axes = [
            {index: list(_pieces(segment, d, index)) for index in set(column)}
            for d, column in enumerate(columns)
        ]
        for position in zip(*columns, strict=True):
            for box in product(*(axis[i] for axis, i in zip(axes, position, strict=True))):
                pixels = tiles[at][(slice(None), *[piece.tile for piece in box])]
                place = slab[(slice(None), *[piece.slab for piece in box])]
                weights = None
                if not grid.exclusive:
                    weights = reduce(np.multiply.outer, [piece.weights for piece in box])
                is_first = all(piece.is_first for piece in box)
                _write(pixels, place, weights, is_first, scale, offset)
            at += 1


def _pieces(segment: Segment, axis: int, index: int) -> Iterator[_Piece]:
    """Cut an axis where tiles before this one stop to count, and where the slab's ring ends."""
    grid, length = segment.grid, segment.slab.shape[1 + axis]
    cover, (low, middle, high) = grid.covers[axis], grid.spans[axis][:, index].tolist()
    limits = segment.slab_range if axis == grid.slab_axis else (0, grid.size[axis])
    start, weights = int(cover.starts[index]), cover.weights[index]
    for first, last, is_first in ((low, middle, False), (middle, high, True)):
        at, stop = max(first, limits[0]), min(last, limits[1])
        while at < stop:
            end = min(stop, (at // length + 1) * length)
            tile, place = slice(at - start, end - start), at % length
            yield _Piece(tile, slice(place, place + end - at), weights[tile], is_first)
            at = end


def _write(
    pixels: NDArray[Any],
    slab: NDArray[np.float32],
    weights: NDArray[np.float32] | None,
    is_first: bool,
    scale: NDArray[np.float32] | None,
    offset: NDArray[np.float32] | None,
) -> None:
    """Write a box of a tile, C(Z)YX, channel by channel: what is written stays in the cache."""
    scratch = None if is_first else pool.take(pixels.shape[1:], np.float32)
    for c, target in enumerate(slab):
        values, out = pixels[c], target if scratch is None else scratch
        if scale is not None:
            values = np.multiply(values, scale[c], out=out, dtype=np.float32)
        if offset is not None:
            values = np.add(values, offset[c], out=out, dtype=np.float32)
        if weights is not None:
            values = np.multiply(weights, values, out=out, dtype=np.float32)
        if not is_first:
            target += values
        elif values is not target:
            target[...] = values

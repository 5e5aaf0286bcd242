"""Tiles back into images: a few slices per tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.memory import pool
from gpu_patch.plan import Segment


class _Piece(NamedTuple):
    """A stretch of one axis of a tile."""

    tile: slice
    slab: slice
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
        limits = [(0, n) for n in grid.size]
        limits[grid.slab_axis] = segment.rows
        positions = grid.positions(np.arange(segment.first, segment.first + segment.count))
        spans = [s[:, index].T.tolist() for s, index in zip(grid.spans, positions, strict=True)]
        for position, *axes in zip(positions.T.tolist(), *spans, strict=True):
            lines = [c.weights[i] for c, i in zip(grid.covers, position, strict=True)]
            starts = [int(c.starts[i]) for c, i in zip(grid.covers, position, strict=True)]
            pieces = map(_pieces, starts, axes, limits, slab.shape[1:])
            for box in product(*map(list, pieces)):
                place = (slice(None), *(piece.slab for piece in box))
                inside = (slice(None), *(piece.tile for piece in box))
                weights = None
                if not grid.exclusive:
                    parts = (line[piece.tile] for line, piece in zip(lines, box, strict=True))
                    weights = reduce(np.multiply.outer, parts)
                is_first = all(piece.is_first for piece in box)
                _write(tiles[at][inside], slab[place], weights, is_first, scale, offset)
            at += 1


def _pieces(
    start: int, span: Sequence[int], limits: tuple[int, int], length: int
) -> Iterator[_Piece]:
    """Cut an axis where tiles before this one stop to count, and where the slab's ring ends."""
    for low, high, is_first in ((span[0], span[1], False), (span[1], span[2], True)):
        at, stop = max(low, limits[0]), min(high, limits[1])
        while at < stop:
            end = min(stop, (at // length + 1) * length)
            in_slab = at % length
            yield _Piece(
                slice(at - start, end - start), slice(in_slab, in_slab + end - at), is_first
            )
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

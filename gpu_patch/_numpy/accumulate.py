"""Running sums of tiles: a slice or two per tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.tiling import Segment, TileGrid


def accumulate(
    tiles: NDArray[Any], segments: Sequence[Segment], *, squares: bool, again: bool
) -> None:
    """Add tiles (B, C, (Z), Y, X) to running sums; see `ops.accumulate`."""
    n_channels = tiles.shape[1]
    channels, at = slice(n_channels), 0
    for segment in segments:
        if not again:
            _clear(segment)
        grid = segment.grid
        columns = grid.positions(np.arange(segment.first, segment.first + segment.count)).tolist()
        axes = [
            {index: list(_pieces(segment, d, index)) for index in set(column)}
            for d, column in enumerate(columns)
        ]
        for position in zip(*columns, strict=True):
            for box in product(*(axis[i] for axis, i in zip(axes, position, strict=True))):
                values = tiles[at][(channels, *[inside for inside, _ in box])]
                place = tuple(outside for _, outside in box)
                sums = segment.slab[(channels, *place)]
                np.add(sums, values, out=sums)
                if squares:
                    sums = segment.slab[(slice(n_channels, None), *place)]
                    np.add(sums, np.square(values, dtype=np.float64), out=sums)
            at += 1


def _clear(segment: Segment) -> None:
    """Set rows to 0 that no tile before this segment's counts in."""
    grid, slab = segment.grid, segment.slab
    axis, layer = grid.slab_axis, grid.strides[grid.slab_axis]
    _, middle, high = grid.spans[axis]
    begun = -(-segment.first // layer)
    last = (segment.first + segment.count - 1) // layer
    if begun <= last:
        start, stop = max(int(middle[begun]), segment.slab_range[0]), int(high[last])
        rows = np.arange(start, min(stop, segment.slab_range[1]))
        slab[(slice(None),) * (1 + axis) + (rows % slab.shape[1 + axis],)] = 0


def _pieces(segment: Segment, axis: int, index: int) -> Iterator[tuple[slice, slice]]:
    """Yield where a tile counts along an axis, in it and in the slab, cut where the ring ends."""
    grid, length = segment.grid, segment.slab.shape[1 + axis]
    low, _, high = grid.spans[axis][:, index].tolist()
    limits = segment.slab_range if axis == grid.slab_axis else (0, grid.size[axis])
    start = int(grid.covers[axis].starts[index])
    at, stop = max(low, limits[0]), min(high, limits[1])
    while at < stop:
        end = min(stop, (at // length + 1) * length)
        yield slice(at - start, end - start), slice(at % length, at % length + end - at)
        at = end


def means(
    sums: NDArray[np.float64],
    grid: TileGrid,
    rows: tuple[int, int],
    out: NDArray[np.float32],
    *,
    n_samples: int,
    squares: bool,
) -> None:
    """Turn sums into means and standard deviations; see `ops.means`."""
    axis = grid.slab_axis
    along = [(cover.stop - cover.first).astype(np.float64) for cover in grid.covers]
    along[axis] = along[axis][slice(*rows)]
    counts = reduce(np.multiply.outer, along) * n_samples
    first = rows[0] % sums.shape[1 + axis]
    place = (slice(None),) * axis + (slice(first, first + rows[1] - rows[0]),)
    n_channels = len(sums) // (1 + squares)
    for c in range(n_channels):
        total = sums[c][place]
        out[c] = total / counts
        if squares:
            spread = np.maximum(sums[n_channels + c][place] - total * total / counts, 0)
            out[n_channels + c] = np.sqrt(spread / np.maximum(counts - 1, 1))

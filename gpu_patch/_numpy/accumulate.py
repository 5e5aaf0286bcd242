"""Running sums of tiles: a slice or two per tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise, product
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
        fastest = len(grid.size) - (2 if grid.slab_axis == len(grid.size) - 1 else 1)
        positions = grid.positions(np.arange(segment.first, segment.first + segment.count))
        axes = [
            {index: list(_pieces(segment, d, index)) for index in set(column)}
            for d, column in enumerate(positions.tolist())
        ]
        run = slice(None)
        for row in _rows(positions, fastest):
            others = [axis[i] for axis, i in zip(axes, positions[:, row.start], strict=True)]
            others[fastest] = [(run, run)]
            # views of all tiles of a row, so that one slice more gives a tile
            views = [
                (
                    tiles[(slice(at + row.start, at + row.stop), channels, *(b[0] for b in box))],
                    segment.slab[(run, *(b[1] for b in box))],
                )
                for box in product(*others)
            ]
            behind = (run,) * (len(grid.size) - 1 - fastest)
            for n, index in enumerate(positions[fastest, row].tolist()):
                for inside, outside in axes[fastest][index]:
                    for values, slab in views:
                        part = values[n][(..., inside, *behind)]
                        sums = slab[(..., outside, *behind)]
                        _add(part, sums, squares=squares)
        at += segment.count


def _rows(positions: NDArray[np.int64], fastest: int) -> Iterator[slice]:
    """Yield runs of tiles that follow each other along the axis that runs fastest."""
    others = np.delete(positions, fastest, axis=0)
    cuts = np.flatnonzero((others[:, 1:] != others[:, :-1]).any(axis=0)) + 1
    for start, stop in pairwise([0, *cuts.tolist(), positions.shape[1]]):
        yield slice(start, stop)


def _add(values: NDArray[Any], sums: NDArray[np.float64], *, squares: bool) -> None:
    """Add a box of a tile, C(Z)YX, to its sums, and its squares to the planes behind them."""
    target = sums[: len(values)] if squares else sums
    np.add(target, values, out=target)
    if squares:
        target = sums[len(values) :]
        np.add(target, np.square(values, dtype=np.float64), out=target)


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
    counts = reduce(np.multiply.outer, grid.counts(rows)) * n_samples
    first = rows[0] % sums.shape[1 + axis]
    place = (slice(None),) * axis + (slice(first, first + rows[1] - rows[0]),)
    n_channels = len(sums) // (1 + squares)
    for c in range(n_channels):
        total = sums[c][place]
        out[c] = total / counts
        if squares:
            spread = np.maximum(sums[n_channels + c][place] - total * total / counts, 0)
            out[n_channels + c] = np.sqrt(spread / np.maximum(counts - 1, 1))

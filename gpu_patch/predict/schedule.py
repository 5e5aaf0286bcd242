"""Which rows a process predicts, in which batches, and how high a slab they need.

Numbers of rows and tiles alone. The rows of a sample, along its slab axis, are predicted in
ascending order, in a slab that is a ring: complete rows are written, and their place is used again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.predict.outputs import Shard
from gpu_patch.sliding import sliding_grid
from gpu_patch.tiling import TileGrid, tile_grid

_LEAST_GAIN = 2
"""Rows along an inner axis are copied in pieces: the slab must be so many times smaller for it."""


class WriteUnit(NamedTuple):
    """Rows ``first … first + length − 1``, which are written, resumed and shared together.

    Where the output has chunks, those of one row of chunks.
    """

    image: int
    sample: int
    first: int
    length: int


class RowRange(NamedTuple):
    """Rows [start, stop) of one sample, which a process predicts one after the other."""

    image: int
    sample: int
    start: int
    stop: int


class Steps(NamedTuple):
    """How the tiles of a `RowRange` are divided among batches; an entry per batch.

    Attributes
    ----------
    first, stop : array of int64
        Tiles of each batch, in the order of the grid.
    written : array of int64
        One past the last row that a batch writes.
    complete : array of int64
        Rows before this one are complete after it.
    """

    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    written: NDArray[np.int64]
    complete: NDArray[np.int64]

    def ring_rows(self, start: int) -> int:
        """Return the rows that a slab must have for a range that begins at row `start`.

        Those that tiles are stitched into, and as many as are ever written together, so that they
        can be written meanwhile.
        """
        before = np.concatenate([[start], self.complete[:-1]])
        room = int((self.written - before).max() + (self.complete - before).max())
        return min(room, int(self.complete[-1]) - start)


class BatchPart(NamedTuple):
    """Tiles of a batch that are of one `RowRange`.

    Attributes
    ----------
    range_idx : int
        Which range.
    first, count : int
        The tiles, in the order of the grid.
    written : int
        One past the last row that they write.
    complete_rows : (int, int)
        Rows [start, stop) that are complete after them, and were not before.
    """

    range_idx: int
    first: int
    count: int  # type: ignore[assignment]  # rather than the method of tuples
    written: int
    complete_rows: tuple[int, int]


def choose_grid(
    size: tuple[int, ...],
    tile_size: tuple[int, ...],
    overlaps: tuple[int, ...],
    blend: str,
    stride: tuple[int, ...] | None = None,
) -> TileGrid:
    """Return a grid of tiles with the slab axis that makes the slab small.

    See `tile_grid`, or `sliding_grid` where there is a stride. The choice does not depend on the
    batch size: with another axis tiles would be summed in another order, and sums rounded
    otherwise.
    """
    grids = [
        tile_grid(size, tile_size, overlaps, blend, axis)
        if stride is None
        else sliding_grid(size, tile_size, overlaps, stride, axis)
        for axis in range(len(size))
    ]
    pixels = []
    for axis, grid in enumerate(grids):
        height = steps_of(grid, 0, size[axis], 1, 0).ring_rows(0)
        pixels.append(height * prod(size) // size[axis])
    smallest = int(np.argmin(pixels))
    return grids[smallest if pixels[smallest] * _LEAST_GAIN <= pixels[0] else 0]


def steps_of(grid: TileGrid, start: int, stop: int, batch_size: int, taken: int) -> Steps:
    """Divide the tiles that count in rows [start, stop) among batches.

    Parameters
    ----------
    grid : TileGrid
        The tiles.
    start, stop : int
        Rows.
    batch_size : int
        Tiles per batch.
    taken : int
        How many tiles the first batch has already, of ranges before.
    """
    cover, layer = grid.covers[grid.slab_axis], grid.strides[grid.slab_axis]
    begin, end = int(cover.first[start]) * layer, int(cover.stop[stop - 1]) * layer
    cuts = np.arange(begin + batch_size - taken, end, batch_size)
    first, last = np.concatenate([[begin], cuts]), np.concatenate([cuts, [end]])
    starts, _, stops = grid.spans[grid.slab_axis]
    written = stops[(last - 1) // layer]
    # rows before the first one that the next batch writes to
    complete = np.append(starts, grid.size[grid.slab_axis])[last // layer]
    return Steps(first, last, written.clip(start, stop), complete.clip(start, stop))


def units_of(
    image: int, n_samples: int, n_rows: int, unit_rows: int, done: Collection[tuple[int, int]]
) -> list[WriteUnit]:
    """Return the units of an image that are not done, in order."""
    return [
        WriteUnit(image, sample, first, min(unit_rows, n_rows - first))
        for sample in range(n_samples)
        for first in range(0, n_rows, unit_rows)
        if (sample, first) not in done
    ]


def share_of(units: Sequence[WriteUnit], shard: Shard) -> list[RowRange]:
    """Return what one of several processes predicts: neighbouring units, joined."""
    first, stop = (len(units) * r // shard.world_size for r in (shard.rank, shard.rank + 1))
    ranges: list[RowRange] = []
    for image, sample, row, length in units[first:stop]:
        if ranges and ranges[-1][:2] == (image, sample) and ranges[-1].stop == row:
            ranges[-1] = ranges[-1]._replace(stop=row + length)
        else:
            ranges.append(RowRange(image, sample, row, row + length))
    return ranges


def batches_of(
    ranges: Iterable[tuple[RowRange, TileGrid]], batch_size: int
) -> tuple[list[list[BatchPart]], list[int]]:
    """Divide the tiles of ranges among batches, all of them full except the last.

    Returns
    -------
    batches : list of list of BatchPart
        Each batch's tiles.
    ring_rows : list of int
        Height of each range's slab.
    """
    batches: list[list[BatchPart]] = []
    heights: list[int] = []
    n_tiles = 0
    for range_idx, (rows, grid) in enumerate(ranges):
        taken = n_tiles % batch_size
        steps = steps_of(grid, rows.start, rows.stop, batch_size, taken)
        heights.append(steps.ring_rows(rows.start))
        complete = rows.start
        for i, (first, stop, written, until) in enumerate(zip(*map(_ints, steps), strict=True)):
            part = BatchPart(range_idx, first, stop - first, written, (complete, until))
            complete = until
            n_tiles += part.count
            if i == 0 and taken:
                batches[-1].append(part)
            else:
                batches.append([part])
    return batches, heights


def _ints(column: NDArray[np.int64]) -> list[int]:
    found: list[int] = column.tolist()
    return found

"""Which rows a process predicts, in which batches, and how much memory they need on the way.

Pure integers. The rows of a sample, along its slab axis, are predicted in ascending order; what is
complete leaves a ring of rows, whose place is used again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.tiling import TileGrid, tile_grid

_LEAST_GAIN = 2
"""An inner slab axis means strided copies: it must make the slab so many times smaller."""


class Unit(NamedTuple):
    """Rows that are written, resumed and shared together: ``first … first + length − 1``."""

    image: int
    sample: int
    first: int
    length: int


class Run(NamedTuple):
    """Rows [start, stop) of one sample, predicted one after the other."""

    image: int
    sample: int
    start: int
    stop: int


class Steps(NamedTuple):
    """How the tiles of a run go through batches; an entry per batch.

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
        """Return the rows that a slab must have for a run from row `start` on.

        Those in work, and as many as ever leave together, so that they can do so meanwhile.
        """
        before = np.concatenate([[start], self.complete[:-1]])
        room = int((self.written - before).max() + (self.complete - before).max())
        return min(room, int(self.complete[-1]) - start)


class Part(NamedTuple):
    """Tiles of a batch that are of one run.

    Attributes
    ----------
    run : int
        Which run.
    first, count : int
        The tiles, in the order of the grid.
    written : int
        One past the last row that they write.
    rows : (int, int)
        Rows [start, stop) that are complete after them, and were not before.
    """

    run: int
    first: int
    count: int  # type: ignore[assignment]  # rather than the method of tuples
    written: int
    rows: tuple[int, int]


def choose_grid(
    size: tuple[int, ...],
    tile_size: tuple[int, ...],
    overlaps: tuple[int, ...],
    blend: str,
) -> TileGrid:
    """Tile samples of a size along the axis that makes the slab small; see `tile_grid`.

    Whatever the batches are: sums would be rounded otherwise in another order.
    """
    grids = [tile_grid(size, tile_size, overlaps, blend, axis) for axis in range(len(size))]
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
        How many tiles of earlier runs the first batch has already.
    """
    cover, layer = grid.covers[grid.slab_axis], grid.strides[grid.slab_axis]
    begin, end = int(cover.first[start]) * layer, int(cover.stop[stop - 1]) * layer
    cuts = np.arange(begin + batch_size - taken, end, batch_size)
    first, last = np.concatenate([[begin], cuts]), np.concatenate([cuts, [end]])
    starts, _, stops = grid.spans[grid.slab_axis]
    written = stops[(last - 1) // layer]
    # no tile from the next one on counts in them
    complete = np.append(starts, grid.size[grid.slab_axis])[last // layer]
    return Steps(first, last, written.clip(start, stop), complete.clip(start, stop))


def units_of(
    image: int, n_samples: int, n_rows: int, unit_rows: int, done: Collection[tuple[int, int]]
) -> list[Unit]:
    """Return the units of an image that are not done, in order."""
    return [
        Unit(image, sample, first, min(unit_rows, n_rows - first))
        for sample in range(n_samples)
        for first in range(0, n_rows, unit_rows)
        if (sample, first) not in done
    ]


def share_of(units: Sequence[Unit], rank: int, world_size: int) -> list[Run]:
    """Return what one of several processes predicts: a stretch of the units, as runs."""
    first, stop = (len(units) * r // world_size for r in (rank, rank + 1))
    runs: list[Run] = []
    for image, sample, row, length in units[first:stop]:
        if runs and runs[-1][:2] == (image, sample) and runs[-1].stop == row:
            runs[-1] = runs[-1]._replace(stop=row + length)
        else:
            runs.append(Run(image, sample, row, row + length))
    return runs


def batches_of(
    runs: Iterable[tuple[Run, TileGrid]], batch_size: int
) -> tuple[list[list[Part]], list[int]]:
    """Divide the tiles of runs among batches, which are full but for the last one.

    Returns
    -------
    batches : list of list of Part
        Each batch's tiles.
    ring_rows : list of int
        Height of each run's slab.
    """
    batches: list[list[Part]] = []
    heights: list[int] = []
    n_tiles = 0
    for number, (run, grid) in enumerate(runs):
        taken = n_tiles % batch_size
        steps = steps_of(grid, run.start, run.stop, batch_size, taken)
        heights.append(steps.ring_rows(run.start))
        complete = run.start
        for i, (first, stop, written, until) in enumerate(zip(*map(_ints, steps), strict=True)):
            part = Part(number, first, stop - first, written, (complete, until))
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

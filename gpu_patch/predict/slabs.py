"""Slabs, which hold the rows that tiles are stitched into, or the sums of those that slide."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch import ops
from gpu_patch.predict.schedule import BatchPart, RowRange
from gpu_patch.predict.slab_writer import PendingRows, SlabWriter
from gpu_patch.predict.variants import Answers
from gpu_patch.tiling import Segment, TileGrid

WriteSample: TypeAlias = Callable[[int, int, int, dict[str, NDArray[Any]]], object]
"""Takes image, sample, first row, and rows C(Z)YX of each variant."""
WriteAnswers: TypeAlias = Callable[[dict[str, NDArray[Any]]], object]


class Slab:
    """Rows of a sample that are not complete yet: a ring, whose rows are used again.

    Parameters
    ----------
    rows : RowRange
        All rows that go through it.
    grid : TileGrid
        How the sample is tiled.
    n_channels, height : int
        Size of the ring.
    writer : SlabWriter
        Writes the rows that are complete.
    write : callable
        What the writer calls with image, sample, first row and what rows have become.
    answers : Answers
        What rows become where they are.
    """

    _dtype: DTypeLike = np.float32

    def __init__(
        self,
        rows: RowRange,
        grid: TileGrid,
        n_channels: int,
        height: int,
        writer: SlabWriter,
        write: WriteSample,
        answers: Answers,
    ) -> None:
        self._rows, self._grid, self._height = rows, grid, height
        self._answers = answers
        self._writer, self._write = writer, write
        size = list(grid.size)
        size[grid.slab_axis] = height
        self._array = writer.new((n_channels, *size), self._dtype)
        self._pending: deque[tuple[int, PendingRows]] = deque()  # with the first row

    def segment(self, part: BatchPart) -> Segment:
        """Return where tiles are stitched, once the rows that they overwrite are written."""
        while self._pending and self._pending[0][0] < part.written - self._height:
            self._pending.popleft()[1].wait()
        rows = self._rows.start, self._rows.stop
        return Segment(self._array, self._grid, part.first, part.count, rows)

    def write_rows(self, start: int, stop: int) -> None:
        """Write rows [start, stop) of the sample, which are complete."""
        most = self._writer.most_rows(self._array.nbytes // self._height)
        while start < stop:
            first = start % self._height
            end = min(stop, start + most, start + self._height - first)  # of the ring
            write = partial(self._write, self._rows.image, self._rows.sample, start)
            self._pending.append((start, self._given_to_writer(start, end, write)))
            start = end

    def _given_to_writer(self, start: int, stop: int, write: WriteAnswers) -> PendingRows:
        """Let rows be written that follow each other in the ring."""
        first = start % self._height
        return self._answered(self._array, slice(first, first + stop - start), write)

    def _answered(self, array: Any, rows: slice, write: WriteAnswers) -> PendingRows:
        """Let be written what rows become."""
        axis, answers = 1 + self._grid.slab_axis, self._answers
        if answers.are_plain:
            return self._writer.write_rows(array, axis, rows, lambda own: write(answers.split(own)))
        block = answers.make(array, axis, rows, self._writer)
        shape, n_rows = tuple(array.shape), rows.stop - rows.start
        return self._writer.write_rows(
            block,
            0,
            slice(0, len(block)),
            lambda own: write(answers.read(own, shape, axis, n_rows)),
        )


class SumsSlab(Slab):
    """A ring of running sums in float64, whose complete rows become means.

    Parameters
    ----------
    rows, grid, n_channels, height, writer, write, answers
        As in `Slab`; channels are those of the sums, and as many of squares where these are wanted.
    n_samples : int
        How often each tile is added.
    squares : bool
        Whether there are sums of squares, for standard deviations.
    """

    _dtype: DTypeLike = np.float64

    def __init__(self, *args: Any, n_samples: int, squares: bool) -> None:
        super().__init__(*args)
        self._n_samples, self._squares = n_samples, squares

    def _given_to_writer(self, start: int, stop: int, write: WriteAnswers) -> PendingRows:
        """Let the means of rows be written, an array of their own: the sums' place is free."""
        axis = 1 + self._grid.slab_axis
        shape = list(self._array.shape)
        shape[axis] = stop - start
        means = self._writer.new(tuple(shape))
        ops.means(
            self._array,
            self._grid,
            (start, stop),
            means,
            n_samples=self._n_samples,
            squares=self._squares,
        )
        return self._answered(means, slice(0, stop - start), write)

"""What one process does: batches of tiles, the model, slabs, and rows that leave them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch import ops
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.feed.normalization import Inverse, Normalization
from gpu_patch.feed.prefetch import ChunkPrefetch, Needs
from gpu_patch.predict.results import Results
from gpu_patch.predict.schedule import Part, Run, batches_of
from gpu_patch.predict.slab_writer import Departure, Departures, make_departures
from gpu_patch.progress import progress_bar
from gpu_patch.specs import PatchBatch
from gpu_patch.tiling import Segment, TileGrid

_CHUNKS_AHEAD = 2
"""Batches whose chunks are read ahead."""


class Work:
    """Predicts runs of rows.

    Parameters
    ----------
    constructor : PlannedConstr
        Makes the tiles.
    tiles_of : callable
        The model: returns the tiles of a batch.
    n_samples : int
        How often each batch is given to it.
    normalization : Normalization or None
        Of the tiles; what the model returns is taken back.
    grids : sequence of TileGrid
        How each image is tiled.
    results : Results
        Takes what is complete.
    """

    def __init__(
        self,
        constructor: PlannedConstr,
        tiles_of: Callable[[Any], Any],
        n_samples: int,
        normalization: Normalization | None,
        grids: Sequence[TileGrid],
        results: Results,
    ) -> None:
        self._constructor, self._tiles_of = constructor, tiles_of
        self._n_samples, self._normalization = n_samples, normalization
        self._grids, self._results = grids, results
        n_tiles = [grid.n_tiles for grid in grids]
        n_samples_of = [shape[0] for shape in constructor.input_shapes]
        self._first_tile = np.cumsum([0, *np.multiply(n_tiles, n_samples_of)])
        self._n_channels: int | None = None
        self._inverse: Inverse | None = None

    @property
    def n_channels(self) -> int:
        """Channels that the model returns."""
        if self._n_channels is None:
            self._tiles(self._batch([0]).input)
        assert self._n_channels is not None
        return self._n_channels

    def run(self, runs: Sequence[Run], batch_size: int, *, progress: bool) -> None:
        """Predict runs and finish their images."""
        batches, heights = batches_of(((run, self._grids[run.image]) for run in runs), batch_size)
        n_tiles = sum(part.count for parts in batches for part in parts)
        last = {run.image: number for number, run in enumerate(runs)}
        slabs: dict[int, _Slab] = {}
        with ExitStack() as stack:
            departures = make_departures(self._constructor.device)
            stack.callback(departures.close)
            make = stack.enter_context(self._making(runs, batches))
            advance = stack.enter_context(
                progress_bar("predicting", n_tiles, " tiles", wanted=progress)
            )
            for step, parts in enumerate(batches):
                tiles = self._predicted(make(step).input, departures)
                for part in parts:
                    if part.run not in slabs:
                        run = runs[part.run]
                        self._results.open(run.image, self.n_channels)
                        shape = (tiles.shape[1], heights[part.run])
                        slabs[part.run] = _Slab(
                            run, self._grids[run.image], *shape, departures, self._take
                        )
                segments = [slabs[part.run].segment(part) for part in parts]
                if self._inverse is None:
                    ops.stitch(tiles, segments)
                else:
                    scale, rest, _ = self._inverse
                    ops.stitch(tiles, segments, scale=scale, offset=rest)
                del tiles, segments  # or they would be there while the next ones are made
                for part in parts:
                    slabs[part.run].leave(part.rows)
                    image, stop = runs[part.run].image, runs[part.run].stop
                    if part.rows[1] == stop:
                        del slabs[part.run]
                        if part.run == last[image]:
                            departures.then(partial(self._results.finish, image))
                advance(sum(part.count for part in parts))
            departures.finish()

    @contextmanager
    def _making(
        self, runs: Sequence[Run], batches: Sequence[Sequence[Part]]
    ) -> Iterator[Callable[[int], PatchBatch]]:
        """Give a function that makes a batch by its number, while chunks for others are read."""

        def make(step: int) -> PatchBatch:
            return self._batch(self._indices(runs, batches[step]))

        def needs(step: int) -> Needs:
            return self._constructor.chunks(self._indices(runs, batches[step]))

        if not self._constructor.is_chunked:
            yield make
            return
        with closing(ChunkPrefetch(needs, len(batches), _CHUNKS_AHEAD)) as chunks:
            yield chunks.during(make)

    def _indices(self, runs: Sequence[Run], parts: Sequence[Part]) -> list[int]:
        """Return the tiles of a batch as the strategy counts them."""
        indices: list[int] = []
        for part in parts:
            run, grid = runs[part.run], self._grids[runs[part.run].image]
            sequence = np.arange(part.first, part.first + part.count)
            first = self._first_tile[run.image] + run.sample * grid.n_tiles
            indices += (first + grid.indices(sequence)).tolist()
        return indices

    def _batch(self, indices: Sequence[int]) -> PatchBatch:
        return self._constructor.construct_batch(indices, normalization=self._normalization)

    def _tiles(self, batch: Any) -> Any:
        """Return what the model makes of a batch, and note how many channels that has."""
        tiles = self._tiles_of(batch)
        n_channels = int(tiles.shape[1])
        if self._n_channels is None:
            self._n_channels = n_channels
            if self._normalization is not None:
                self._note_inverse(n_channels)
        elif self._n_channels != n_channels:
            raise ValueError(
                f"model must return as many channels each time, found {n_channels} after "
                f"{self._n_channels}"
            )
        return tiles

    def _note_inverse(self, n_channels: int) -> None:
        """Find what takes predictions, and their standard deviations, back."""
        assert self._normalization is not None
        inverse = self._normalization.inverse(n_channels)
        if inverse is not None and self._n_samples > 1:
            scale, rest, center = inverse
            none = np.zeros_like(rest)
            inverse = Inverse(
                np.tile(scale, 2), np.concatenate([rest, none]), np.concatenate([center, none])
            )
        self._inverse = inverse

    def _take(self, image: int, sample: int, start: int, rows: NDArray[np.float32]) -> None:
        """Take complete rows C(Z)YX from their slab."""
        if self._inverse is not None and self._inverse.center.any():
            # last: what tiles are blended from is small then, and keeps its digits
            with np.errstate(over="ignore", invalid="ignore"):  # infinities in, infinities out
                rows += self._inverse.center.reshape(-1, *[1] * (rows.ndim - 1))
        self._results.write(image, sample, start, rows)

    def _predicted(self, batch: Any, departures: Departures) -> Any:
        """Return tiles; of several samples, the means and standard deviations as channels."""
        if self._n_samples == 1:
            return self._tiles(batch)
        moments: Any = None
        for number in range(1, self._n_samples + 1):
            # a model may work in place: what it is given is its own, the batch itself at last
            given = batch if number == self._n_samples else departures.copy(batch)
            tiles = self._tiles(given)
            if moments is None:
                n_tiles, n_channels, *size = tiles.shape
                moments = departures.new((n_tiles, 2 * n_channels, *size))
            ops.add_sample(tiles, moments, number, self._n_samples)
            del given, tiles  # or they would be there beside the next ones
        return moments


class _Slab:
    """A ring of rows of one run.

    Parameters
    ----------
    run : Run
        The run.
    grid : TileGrid
        How its sample is tiled.
    n_channels, height : int
        Size of the ring.
    departures : Departures
        Where rows go.
    take : callable
        Takes image, sample, first row and rows C(Z)YX there.
    """

    def __init__(
        self,
        run: Run,
        grid: TileGrid,
        n_channels: int,
        height: int,
        departures: Departures,
        take: Callable[[int, int, int, NDArray[np.float32]], object],
    ) -> None:
        self._run, self._grid, self._height, self._departures = run, grid, height, departures
        self._take = take
        size = list(grid.size)
        size[grid.slab_axis] = height
        self._array = departures.new((n_channels, *size))
        self._leaving: deque[tuple[int, Departure]] = deque()

    def segment(self, part: Part) -> Segment:
        """Return where tiles go, when what was there has left."""
        while self._leaving and self._leaving[0][0] < part.written - self._height:
            self._leaving.popleft()[1].wait()
        rows = self._run.start, self._run.stop
        return Segment(self._array, self._grid, part.first, part.count, rows)

    def leave(self, rows: tuple[int, int]) -> None:
        """Send rows [start, stop) of the image away."""
        start, stop = rows
        while start < stop:
            at = start % self._height
            end = min(stop, start + self._height - at)  # where the ring ends
            take = partial(self._take, self._run.image, self._run.sample, start)
            place = slice(at, at + end - start)
            gone = self._departures.leave(self._array, 1 + self._grid.slab_axis, place, take)
            self._leaving.append((start, gone))
            start = end

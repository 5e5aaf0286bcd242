"""What one process does: makes batches of tiles, runs the model on them, stitches the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch import ops
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.feed.affine import Inverse
from gpu_patch.feed.ahead import ChunkPrefetch, Needs
from gpu_patch.predict.options import PredictOptions
from gpu_patch.predict.results import Results
from gpu_patch.predict.schedule import BatchPart, RowRange, batches_of
from gpu_patch.predict.slab_writer import SlabWriter, make_slab_writer
from gpu_patch.predict.slabs import Slab, SumsSlab
from gpu_patch.progress import progress_bar
from gpu_patch.specs import PatchBatch
from gpu_patch.tiling import Segment, TileGrid

_CHUNKS_AHEAD = 2
"""Batches whose chunks are read ahead."""


class TilePredictor:
    """Predicts ranges of rows.

    Parameters
    ----------
    constructor : PlannedConstr
        Makes the tiles.
    tiles_of : callable
        The model: returns the tiles of a batch.
    options : PredictOptions
        Batch size, samples and normalisation.
    grids : sequence of TileGrid
        How each image is tiled.
    results : Results
        Takes what is complete.
    """

    def __init__(
        self,
        constructor: PlannedConstr,
        tiles_of: Callable[[Any], Any],
        options: PredictOptions,
        grids: Sequence[TileGrid],
        results: Results,
    ) -> None:
        self._constructor, self._tiles_of = constructor, tiles_of
        self._batch_size = options.batch_size
        self._n_samples, self._normalization = options.n_samples, options.normalization
        self._sums, self._std = options.stride is not None, options.std
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

    def run(self, ranges: Sequence[RowRange], *, progress: bool) -> None:
        """Predict ranges of rows and finish their images."""
        grids = [self._grids[rows.image] for rows in ranges]
        batches, heights = batches_of(zip(ranges, grids, strict=True), self._batch_size)
        n_tiles = sum(part.count for parts in batches for part in parts)
        last = {rows.image: range_idx for range_idx, rows in enumerate(ranges)}
        slabs: dict[int, Slab] = {}
        with ExitStack() as stack:
            writer = make_slab_writer(self._constructor.device)
            stack.callback(writer.close)
            make = stack.enter_context(self._making(ranges, batches))
            advance = stack.enter_context(
                progress_bar("predicting", n_tiles, " tiles", wanted=progress)
            )
            for step, parts in enumerate(batches):
                for number, tiles in enumerate(self._predicted(make(step).input, writer)):
                    if not number:
                        for i in {part.range_idx for part in parts}.difference(slabs):
                            slabs[i] = self._slab(ranges[i], heights[i], writer)
                        segments = [slabs[part.range_idx].segment(part) for part in parts]
                    self._put(tiles, segments, again=number > 0)
                    del tiles  # its memory is free while the next are made
                del segments
                for part in parts:
                    i = part.range_idx
                    slabs[i].write_rows(*part.complete_rows)
                    image, stop = ranges[i].image, ranges[i].stop
                    if part.complete_rows[1] == stop:
                        del slabs[i]
                        if i == last[image]:
                            writer.submit(partial(self._results.finish, image))
                advance(sum(part.count for part in parts))
            writer.finish()

    def _slab(self, rows: RowRange, height: int, writer: SlabWriter) -> Slab:
        """Return a new slab, and see to it that the outputs of its image are open."""
        self._results.open(rows.image, self.n_channels)
        grid = self._grids[rows.image]
        if self._sums:
            n_planes = self.n_channels * (2 if self._std else 1)
            return SumsSlab(
                *(rows, grid, n_planes, height, writer, self._write),
                n_samples=self._n_samples,
                squares=bool(self._std),
            )
        n_planes = self.n_channels * (2 if self._n_samples > 1 else 1)
        return Slab(rows, grid, n_planes, height, writer, self._write)

    def _put(self, tiles: Any, segments: Sequence[Segment], *, again: bool) -> None:
        """Stitch tiles, or add them to sums: `again` where they are another sample of the same."""
        if self._sums:
            ops.accumulate(tiles, segments, squares=bool(self._std), again=again)
        elif self._inverse is None:
            ops.stitch(tiles, segments)
        else:
            ops.stitch(tiles, segments, scale=self._inverse.scale, offset=self._inverse.rest)

    @contextmanager
    def _making(
        self, ranges: Sequence[RowRange], batches: Sequence[Sequence[BatchPart]]
    ) -> Iterator[Callable[[int], PatchBatch]]:
        """Give a function that makes a batch by its number, while chunks for others are read."""

        def make(step: int) -> PatchBatch:
            return self._batch(self._indices(ranges, batches[step]))

        def needs(step: int) -> Needs:
            return self._constructor.plan_batch(self._indices(ranges, batches[step])).chunks()

        if not self._constructor.sampling.is_chunked:
            yield make
            return
        with closing(ChunkPrefetch(needs, len(batches), _CHUNKS_AHEAD)) as chunks:
            yield chunks.during(make)

    def _indices(self, ranges: Sequence[RowRange], parts: Sequence[BatchPart]) -> list[int]:
        """Return the tiles of a batch as the strategy counts them."""
        indices: list[int] = []
        for part in parts:
            rows = ranges[part.range_idx]
            grid = self._grids[rows.image]
            sequence = np.arange(part.first, part.first + part.count)
            first = self._first_tile[rows.image] + rows.sample * grid.n_tiles
            indices += (first + grid.indices(sequence)).tolist()
        return indices

    def _batch(self, indices: Sequence[int]) -> PatchBatch:
        return self._constructor.construct_batch(indices, normalization=self._normalization)

    def _tiles(self, batch: Any) -> Any:
        """Run the model on a batch, and see to it that the number of channels stays the same."""
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
        """Find what turns predictions, and their standard deviations, into the images' values."""
        assert self._normalization is not None
        inverse = self._normalization.inverse(n_channels)
        if inverse is not None and (self._std if self._sums else self._n_samples > 1):
            scale, rest, center = inverse
            none = np.zeros_like(rest)
            inverse = Inverse(
                np.tile(scale, 2), np.concatenate([rest, none]), np.concatenate([center, none])
            )
        self._inverse = inverse

    def _write(self, image: int, sample: int, start: int, rows: NDArray[np.float32]) -> None:
        """Write complete rows C(Z)YX of a slab."""
        if self._inverse is not None:
            scale, rest, center = (
                numbers.reshape(-1, *[1] * (rows.ndim - 1)) for numbers in self._inverse
            )
            with np.errstate(over="ignore", invalid="ignore"):  # of infinite predictions
                if self._sums:  # which are of what the model returns
                    rows *= scale
                    rows += rest
                # added after blending: what is blended is small without it, and keeps its digits
                if center.any():
                    rows += center
        if not self._std:
            assert self._n_channels is not None
            rows = rows[: self._n_channels]
        self._results.write(image, sample, start, rows)

    def _predicted(self, batch: Any, writer: SlabWriter) -> Iterator[Any]:
        """Yield what the model predicts; of several samples mean and deviation as channels.

        Where tiles are summed, each sample by itself.
        """
        if self._n_samples == 1:
            yield self._tiles(batch)
            return
        moments: Any = None
        for number in range(1, self._n_samples + 1):
            # a model may work in place: it gets a copy, and the batch itself the last time
            given = batch if number == self._n_samples else writer.copy(batch)
            tiles = self._tiles(given)
            if self._sums:
                yield tiles
            else:
                if moments is None:
                    n_tiles, n_channels, *size = tiles.shape
                    moments = writer.new((n_tiles, 2 * n_channels, *size))
                ops.add_sample(tiles, moments, number, self._n_samples)
            del given, tiles  # their memory is free for the next sample
        if not self._sums:
            yield moments

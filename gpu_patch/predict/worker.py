"""What one process does: makes batches of tiles, runs the model on them, stitches the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch import device as devices
from gpu_patch import ops
from gpu_patch.checks import Message, argument
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.plan import Plan
from gpu_patch.feed.affine import Inverse
from gpu_patch.feed.epoch_pages import reading_ahead
from gpu_patch.predict.answers import Answer
from gpu_patch.predict.options import PredictOptions
from gpu_patch.predict.results import Results
from gpu_patch.predict.room import check_room
from gpu_patch.predict.schedule import BatchPart, RowRange, batches_of
from gpu_patch.predict.slab_writer import SlabWriter, make_slab_writer
from gpu_patch.predict.slabs import Slab, SumsSlab
from gpu_patch.predict.variants import Answers, Variant
from gpu_patch.progress import progress_bar
from gpu_patch.specs import PatchBatch
from gpu_patch.tiling import Segment, TileGrid


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
        self._sums, self._std = options.stride is not None, bool(options.std)
        self._answer = options.answer
        self._moments = self._n_samples > 1 and not (self._sums or self._answer.quantiles)
        self._grids, self._results = grids, results
        n_tiles = [grid.n_tiles for grid in grids]
        n_samples_of = [shape[0] for shape in constructor.input_shapes]
        self._first_tile = np.cumsum([0, *np.multiply(n_tiles, n_samples_of)])
        self._n_channels: int | None = None
        self._of_model: int | None = None
        self._inverse: Inverse | None = None

    @property
    def n_channels(self) -> int:
        """Channels that the model returns, those that are chosen."""
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
        variants, n_planes = self._variants()
        self._results.open(rows.image, self.n_channels)
        answers = Answers(variants, n_planes, self._results.source(rows.image))
        grid = self._grids[rows.image]
        about = (rows, grid, n_planes, height, writer, self._write, answers)
        if self._sums:
            return SumsSlab(*about, n_samples=self._n_samples, squares=self._std)
        return Slab(*about)

    def _variants(self) -> tuple[list[Variant], int]:
        """Return what the rows of slabs become, and how many planes slabs have."""
        answer, n_channels = self._answer, self.n_channels
        n_values = n_channels * (len(answer.quantiles) or 1)
        of_answer = of_std = self._taken_back()
        if of_answer is not None:
            if not self._sums:  # where stitching does the rest
                ones, zeros = np.ones(n_values, np.float32), np.zeros(n_values, np.float32)
                of_answer = Inverse(ones, zeros, of_answer.center)
            of_std = of_answer._replace(**dict.fromkeys(("rest", "center"), 0 * of_answer.rest))
        dtype = answer.stored_type(n_channels)
        found = [Variant("", 0, n_values, dtype, of_answer, answer)]
        if self._std:
            float32 = np.dtype(np.float32)
            found += [Variant("_std", n_values, 2 * n_values, float32, of_std, Answer())]
        return found, n_values * (2 if self._std or self._moments else 1)

    def _taken_back(self) -> Inverse | None:
        """Return how each plane of an answer is taken back, None where none is."""
        if self._inverse is None or not self._answer.quantiles:
            return self._inverse
        return Inverse(*(np.repeat(part, len(self._answer.quantiles)) for part in self._inverse))

    def _put(self, tiles: Any, segments: Sequence[Segment], *, again: bool) -> None:
        """Stitch tiles, or add them to sums: `again` where they are another sample of the same."""
        if self._sums:
            ops.accumulate(tiles, segments, squares=bool(self._std), again=again)
        else:
            ops.stitch(tiles, segments, **self._linear)

    @cached_property
    def _linear(self) -> dict[str, NDArray[np.float32]]:
        """What stitching does to the planes of tiles: known once the model has returned some."""
        inverse = self._taken_back()
        if inverse is None:
            return {}
        scale, offset = inverse.scale, inverse.rest
        if self._moments:
            scale, offset = np.tile(scale, 2), np.concatenate([offset, 0 * offset])
        return {"scale": scale, "offset": offset}

    @contextmanager
    def _making(
        self, ranges: Sequence[RowRange], batches: Sequence[Sequence[BatchPart]]
    ) -> Iterator[Callable[[int], PatchBatch]]:
        """Give a function that makes a batch by its number, and has the next one's pages read."""

        def make(step: int) -> PatchBatch:
            return self._batch(self._indices(ranges, batches[step]))

        def plan_of(step: int) -> Plan:
            return self._constructor.plan_batch(self._indices(ranges, batches[step]))

        if not self._constructor.sampling.is_chunked:
            yield make
            return
        with reading_ahead(make, plan_of, len(batches)) as making:
            yield making

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
        """Run the model on a batch; return the channels that are chosen, always as many."""
        tiles = self._tiles_of(batch)
        n_channels, chosen = int(tiles.shape[1]), self._answer.channels
        if self._of_model is None:
            self._of_model = n_channels
            for i, channel in enumerate(chosen or ()):
                if channel >= n_channels:
                    words = f" is {channel}, but the model returns {n_channels} channels"
                    raise ValueError(Message(argument(f"channels[{i}]"), words))
            self._n_channels = n_channels if chosen is None else len(chosen)
            if self._normalization is not None:
                self._inverse = self._inverse_of(n_channels)
        elif self._of_model != n_channels:
            raise ValueError(
                f"model must return as many channels each time, found {n_channels} after "
                f"{self._of_model}"
            )
        return tiles if chosen is None else self._chosen(tiles, chosen)

    def _chosen(self, tiles: Any, channels: Sequence[int]) -> Any:
        """Return some channels of tiles, (B, C, (Z), Y, X), as tiles of their own."""
        shape = len(tiles), len(channels), *tiles.shape[2:]
        found = devices.empty(shape, tiles.dtype, self._constructor.device, "predictions")
        for i, channel in enumerate(channels):
            found[:, i] = tiles[:, channel]
        return found

    def _inverse_of(self, n_channels: int) -> Inverse | None:
        """Return what turns predictions of the chosen channels into the images' values."""
        assert self._normalization is not None
        inverse, chosen = self._normalization.inverse(n_channels), self._answer.channels
        if inverse is None or chosen is None:
            return inverse
        return Inverse(*(part[list(chosen)] for part in inverse))

    def _write(self, image: int, sample: int, start: int, rows: dict[str, NDArray[Any]]) -> None:
        """Write what complete rows of a slab have become."""
        self._results.write(image, sample, start, rows)

    def _predicted(self, batch: Any, writer: SlabWriter) -> Iterator[Any]:
        """Yield what the model predicts; of several samples mean and deviation, or quantiles.

        They are channels. Where tiles are summed, each sample comes by itself.
        """
        if self._n_samples == 1:
            yield self._tiles(batch)
            return
        together: Any = None  # moments of the samples, or all of them
        for number in range(1, self._n_samples + 1):
            # a model may work in place: it gets a copy, and the batch itself the last time
            given = batch if number == self._n_samples else writer.copy(batch)
            tiles = self._tiles(given)
            if self._sums:
                yield tiles
            else:
                if together is None:
                    together = self._room(tiles, writer)
                if self._moments:
                    ops.add_sample(tiles, together, number, self._n_samples)
                else:
                    together[number - 1] = tiles
            del given, tiles  # their memory is free for the next sample
        if self._moments:
            yield together
        elif not self._sums:
            yield self._quantiles(together, writer)

    def _room(self, tiles: Any, writer: SlabWriter) -> Any:
        """Return room for moments of samples, or for all samples where quantiles are wanted."""
        n_tiles, n_channels, *size = tiles.shape
        if self._moments:
            return writer.new((n_tiles, 2 * n_channels, *size))
        of_tile = n_channels * prod(size) * (self._n_samples + len(self._answer.quantiles))
        check_room(self._constructor.device, self._n_samples, n_tiles, 4 * of_tile)
        return writer.new((self._n_samples, n_tiles, n_channels, *size))

    def _quantiles(self, samples: Any, writer: SlabWriter) -> Any:
        at = self._answer.quantiles
        _, n_tiles, n_channels, *size = samples.shape
        found = writer.new((n_tiles, n_channels * len(at), *size))
        ops.quantiles(samples, found, at)
        return found

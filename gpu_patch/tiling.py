"""Tiles that cover an image, which part of each is kept, and where the parts are stitched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import choice

BLENDS = ("crop", "hann", "gaussian")
"""How tiles become an image: by cutting overlaps in two, or as a weighted mean."""


def sequential_starts(n: int, patch: int, overlap: int) -> list[int]:
    """Place a gap-free row of patches: every ``patch − overlap``, the last flush to the end.

    A patch longer than the axis starts at 0. (careamics 0.3.5, `SequentialPatching`.)
    """
    starts = list(range(0, max(n - patch, 0) + 1, patch - overlap))
    if starts[-1] + patch < n:
        starts.append(n - patch)
    return starts


class TileAxis(NamedTuple):
    """One axis of a tiling: where tiles start, what is kept of them, where that goes."""

    starts: list[int]
    crop_starts: list[int]
    crop_sizes: list[int]
    stitch_starts: list[int]


def tile_axis(n: int, patch: int, overlap: int) -> TileAxis:
    """Tile an axis of `n` pixels (careamics 0.3.5, `TiledPatching`).

    Neighbours overlap by `overlap`, and half of it is cropped from each. The last tile is flush
    to the end, however much it then overlaps the one before. Under odd overlaps neighbours share
    one pixel, of which the later tile's value wins.
    """
    axis = TileAxis([], [], [], [])
    for position in range(0, max(1, n - overlap), patch - overlap):
        if position == 0:
            tile = (0, 0, n if n <= patch else patch - overlap // 2, 0)
        elif position + patch < n:
            tile = (position, overlap // 2, patch - overlap, position + overlap // 2)
        else:
            start, stitch = max(0, n - patch), axis.stitch_starts[-1] + axis.crop_sizes[-1]
            tile = (start, stitch - start, n - stitch, stitch)
        for column, value in zip(axis, tile, strict=True):
            column.append(value)
    return axis


class AxisCover(NamedTuple):
    """One axis of a tiling, as stitching reads it.

    Attributes
    ----------
    starts : array of int64, shape (n_tiles,)
        First pixel of each tile.
    first, stop : array of int32, shape (n,)
        Per pixel of the image, the first tile that counts there, and one past the last.
    weights : array of float32, shape (n_tiles, patch)
        How much each pixel of each tile counts; exactly 1 where no other does, 0 where it does
        not.
    """

    starts: NDArray[np.int64]
    first: NDArray[np.int32]
    stop: NDArray[np.int32]
    weights: NDArray[np.float32]

    def spans(self) -> NDArray[np.int64]:
        """Return where each tile counts, (3, n_tiles) pixels of the image.

        From the first row on; from the second on no tile before it counts any more; up to the
        third.
        """
        tiles = np.arange(len(self.starts), dtype=np.int32)
        return np.stack(
            [
                np.searchsorted(self.stop, tiles, side="right"),
                np.searchsorted(self.first, tiles, side="left"),
                np.searchsorted(self.first, tiles, side="right"),
            ]
        )


def axis_cover(n: int, patch: int, overlap: int, blend: str) -> AxisCover:
    """Say which of the tiles of `tile_axis` count at each pixel, and how much.

    Parameters
    ----------
    n, patch, overlap : int
        As in `tile_axis`.
    blend : {"crop", "hann", "gaussian"}
        "crop": every pixel counts one tile, the one that careamics' stitching leaves there.
        "hann" and "gaussian": all tiles count, as the mean weighted by a raised cosine, or by a
        Gaussian of σ = patch / 8 (nnU-Net's choice).
    """
    choice("blend", blend, BLENDS)
    axis = tile_axis(n, patch, overlap)
    starts, pixels, inside = np.array(axis.starts, np.int64), np.arange(n), np.arange(patch)
    if blend == "crop":
        # of two tiles that keep a pixel, the later one counts
        first = np.searchsorted(axis.stitch_starts, pixels, side="right") - 1
        stop = first + 1
        profile = np.ones(patch)
    else:
        first = np.searchsorted(starts + patch, pixels, side="right")
        stop = np.searchsorted(starts, pixels, side="right")
        # measured at the centres of pixels, so that no weight is 0
        from_centre = (inside + 0.5) / patch - 0.5
        if blend == "hann":
            profile = 0.5 + 0.5 * np.cos(2 * np.pi * from_centre)
        else:
            profile = np.exp(-0.5 * (8 * from_centre) ** 2)
    at, tile = starts[:, None] + inside, np.arange(len(starts))[:, None]
    clipped = np.minimum(at, n - 1)
    counts = (at < n) & (first[clipped] <= tile) & (tile < stop[clipped])
    weights = np.where(counts, profile, 0.0)
    weights /= np.bincount(clipped.reshape(-1), weights.reshape(-1))[clipped]
    return AxisCover(
        starts, first.astype(np.int32), stop.astype(np.int32), weights.astype(np.float32)
    )


@dataclass(frozen=True, eq=False)
class TileGrid:
    """The tiles of one sample, in the order in which they are stitched.

    They follow each other along `slab_axis` last, so that what is done of the image grows along
    it; then along the other axes in (Z)YX order, the last running fastest.

    Parameters
    ----------
    size : tuple of int
        Pixels of the sample, (Z)YX.
    patch_size : tuple of int
        Pixels of a tile.
    covers : tuple of AxisCover
        Per axis.
    slab_axis : int
        0 … D − 1.
    """

    size: tuple[int, ...]
    patch_size: tuple[int, ...]
    covers: tuple[AxisCover, ...]
    slab_axis: int

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Tiles per axis."""
        return tuple(len(cover.starts) for cover in self.covers)

    @cached_property
    def spans(self) -> tuple[NDArray[np.int64], ...]:
        """Where each tile counts; see `AxisCover.spans`."""
        return tuple(cover.spans() for cover in self.covers)

    @cached_property
    def n_tiles(self) -> int:
        """Tiles of the sample."""
        return prod(self.shape)

    @cached_property
    def exclusive(self) -> bool:
        """Whether one tile alone counts at each pixel, so that stitching is copying."""
        return all((cover.stop - cover.first == 1).all() for cover in self.covers)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """How far along the order a tile's neighbour along each axis is."""
        order = [self.slab_axis, *(a for a in range(len(self.shape)) if a != self.slab_axis)]
        return tuple(
            prod(self.shape[b] for b in order[order.index(a) + 1 :]) for a in range(len(order))
        )

    def positions(self, sequence: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where tiles are in the grid, (D, n), from their places in the order."""
        return np.stack([sequence // s % n for s, n in zip(self.strides, self.shape, strict=True)])

    def indices(self, sequence: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return indices within the sample, as `TiledPatching` counts, from places in the order."""
        found: NDArray[np.int64] = np.ravel_multi_index(tuple(self.positions(sequence)), self.shape)
        return found

    def counts(self, rows: tuple[int, int]) -> list[NDArray[np.float64]]:
        """Return for each axis how many tiles count at its pixels; along `slab_axis` at `rows`."""
        found = [(cover.stop - cover.first).astype(np.float64) for cover in self.covers]
        found[self.slab_axis] = found[self.slab_axis][slice(*rows)]
        return found

    def slab_range(self, first: int, count: int) -> tuple[int, int]:
        """Return the pixels [start, stop) along `slab_axis` where some of these tiles count."""
        starts, _, stops = self.spans[self.slab_axis]
        layer = self.strides[self.slab_axis]
        return int(starts[first // layer]), int(stops[(first + count - 1) // layer])


def tile_grid(
    size: Sequence[int],
    patch_size: Sequence[int],
    overlaps: Sequence[int],
    blend: str,
    slab_axis: int = 0,
) -> TileGrid:
    """Tile a sample; see `TileGrid` and `axis_cover`."""
    covers = tuple(
        axis_cover(*axis, blend) for axis in zip(size, patch_size, overlaps, strict=True)
    )
    return TileGrid(tuple(size), tuple(patch_size), covers, slab_axis)


class TileColumns(NamedTuple):
    """Some tiles along one axis, (n,) each; pixels are those of the image.

    Attributes
    ----------
    place : array of int64
        Where they are in the grid.
    start : array of int64
        Their first pixels.
    low, high : array of int64
        Where they count and may be written: none where `high` is not above `low`.
    middle : array of int64
        From where on no tile before them counts.
    """

    place: NDArray[np.int64]
    start: NDArray[np.int64]
    low: NDArray[np.int64]
    middle: NDArray[np.int64]
    high: NDArray[np.int64]


class Segment(NamedTuple):
    """Tiles of a batch that follow each other in one sample, and where they are stitched.

    Attributes
    ----------
    slab : array, shape (C, (Z), Y, X)
        C-contiguous, float32; of running sums float64, see `ops.accumulate`. As large as the
        sample, but along the grid's slab axis it is a ring: pixel r of the image is pixel
        ``r % slab.shape[1 + slab_axis]`` of the slab.
    grid : TileGrid
        The sample's tiles.
    first, count : int
        Tiles ``first … first + count − 1`` of the grid's order are the next ones of the batch.
    slab_range : (int, int)
        Pixels [start, stop) along the slab axis that may be written; others are left alone.
    """

    slab: Any
    grid: TileGrid
    first: int
    count: int  # type: ignore[assignment]  # rather than the method of tuples
    slab_range: tuple[int, int]

    @property
    def written(self) -> tuple[int, int]:
        """Pixels [start, stop) of the image along the slab axis that these tiles write."""
        start, stop = self.grid.slab_range(self.first, self.count)
        return max(start, self.slab_range[0]), min(stop, self.slab_range[1])

    def columns(self) -> list[TileColumns]:
        """Return where its tiles are and count, by axis."""
        found, grid = [], self.grid
        positions = grid.positions(np.arange(self.first, self.first + self.count))
        axes = zip(grid.covers, grid.spans, positions, strict=True)
        for axis, (cover, spans, index) in enumerate(axes):
            low, middle, high = spans[:, index]
            if axis == grid.slab_axis:
                low = np.maximum(low, self.slab_range[0])
                high = np.minimum(high, self.slab_range[1])
            found.append(TileColumns(index, cover.starts[index], low, middle, high))
        return found

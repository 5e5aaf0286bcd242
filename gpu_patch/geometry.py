"""Pure integers and weights: windows, borders, FIR taps, grids of patches and tiles.

Everything here is arithmetic on small numbers and knows no image. It is the one place where
these formulas stand; kernels of other languages repeat them and are tested against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpu_patch.errors import choice

Pixels = TypeVar("Pixels", int, NDArray[np.int64])

PADDING_MODES = ("reflect", "wrap", "periodic")
"""How a window continues beyond the image; "zero", used for plain patches, comes on top."""

BLENDS = ("crop", "hann", "gaussian")
"""How tiles become an image: by cutting overlaps in two, or as a weighted mean."""


def window_start(coords: Pixels, size: Pixels, scale: int) -> Pixels:
    """First pixel of the window of `scale` around a patch.

    The window is ``size · 2**scale`` long and centred on the patch's centre pixel
    ``coords + size // 2`` (careamics 0.3.5, `_extract_lc_patch`). Works on arrays too.
    """
    return coords + size // 2 - (size << scale) // 2


def border_range(start: int, size: int, n: int, mode: str) -> tuple[int, int]:
    """Return the range of image indices that the border rule `mode` maps onto.

    Parameters
    ----------
    start, size : int
        The cut that upstream takes and pads, P·2^L long: "reflect" and "wrap" fold into the part
        of it that lies in the image. For "reflect" that is the same as folding into the image,
        unless the patch's centre is outside; for "wrap" it is not.
    n : int
        Pixels of the image along this axis.
    mode : {"zero", "reflect", "wrap", "periodic"}
        The border rule.

    Returns
    -------
    lo, hi : int
        Half-open range; empty where the cut misses the image.
    """
    if mode in ("zero", "periodic"):
        return 0, n
    return min(max(start, 0), n), min(max(start + size, 0), n)


def mirror(index: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Fold indices into 0 … n − 1 by mirroring at both ends, the edge pixel not repeated."""
    if n == 1:
        return np.zeros_like(index)
    folded = np.mod(index, 2 * (n - 1))
    return np.where(folded >= n, 2 * (n - 1) - folded, folded)


def border_index(virtual: NDArray[np.int64], lo: int, hi: int, mode: str) -> NDArray[np.int64]:
    """Image index that each virtual coordinate reads, −1 where it reads zero."""
    if mode == "zero":
        return np.where((virtual >= lo) & (virtual < hi), virtual, -1)
    if mode == "reflect":
        return lo + mirror(virtual - lo, hi - lo)
    return lo + np.mod(virtual - lo, hi - lo)


class Run(NamedTuple):
    """A stretch of a window that reads the image at a constant stride.

    Window pixels ``at … at + length − 1`` read image pixels ``first``, ``first + step``, … with
    step +1 or −1.
    """

    at: int
    first: int
    length: int
    step: int

    @property
    def window(self) -> slice:
        """The stretch as a slice of the window."""
        return slice(self.at, self.at + self.length)

    @property
    def image(self) -> slice:
        """The pixels it reads as a slice of the image."""
        stop = self.first + self.step * self.length
        return slice(self.first, stop if stop >= 0 else None, self.step)


def border_runs(start: int, size: int, lo: int, hi: int, mode: str) -> list[Run]:
    """Cut the window ``start … start + size − 1`` into stretches of constant stride.

    The same map as `border_index`, as a few slices instead of `size` indices. A window inside
    the image is one run; window pixels that read zero are in none.
    """
    if mode == "zero":
        first, last = max(start, lo), min(start + size, hi)
        return [Run(first - start, first, last - first, 1)] if first < last else []
    n = hi - lo
    runs: list[Run] = []
    at = 0
    period = max(1, 2 * (n - 1)) if mode == "reflect" else n
    while at < size:
        phase = (start + at - lo) % period
        if phase < n:  # forwards; under "reflect" up to and with the last pixel
            length = min(n - phase, size - at)
            runs.append(Run(at, lo + phase, length, 1))
        else:  # backwards: pixels n − 2 … 1
            length = min(period - phase, size - at)
            runs.append(Run(at, lo + period - phase, length, -1))
        at += length
    return runs


def fir_taps(scale: int) -> tuple[NDArray[np.float64], int]:
    """Taps of the anti-aliased downscaling by ``f = 2**scale`` along one axis.

    `skimage.transform.resize` with its defaults, which careamics 0.3.5 uses, is per axis a
    Gaussian of σ = (f − 1) / 2 cut at 4σ and then the mean of the two middle pixels. Both
    together are one FIR of stride f.

    Parameters
    ----------
    scale : int
        At least 0; scale 0 is a copy.

    Returns
    -------
    taps : array of float64
        1, 6, 14, 30, 62, … weights that sum to 1.
    offset : int
        Output i sums ``taps[k] · window[mirror(f · i + offset + k)]``.
    """
    if scale == 0:
        return np.ones(1), 0
    factor = 1 << scale
    sigma = (factor - 1) / 2
    radius = int(4 * sigma + 0.5)
    gauss = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    gauss /= gauss.sum()
    taps = np.zeros(2 * radius + 2)
    taps[:-1] += gauss / 2
    taps[1:] += gauss / 2
    return taps, factor // 2 - 1 - radius


class FirBlock(NamedTuple):
    """A few neighbouring outputs of a FIR as one small dense matrix.

    ``weights @ window[start : start + weights.shape[1]]`` gives outputs
    ``first … first + weights.shape[0] − 1``. The mirror at the window's edges is folded into the
    weights.
    """

    first: int
    start: int
    weights: NDArray[np.float32]


@lru_cache(maxsize=256)
def fir_blocks(size: int, scale: int, rows: int) -> tuple[FirBlock, ...]:
    """Operator that downscales ``size · 2**scale`` pixels to `size`, `rows` outputs at a time."""
    taps, offset = fir_taps(scale)
    n = size << scale
    outputs = np.arange(size)
    pixels = mirror((outputs[:, None] << scale) + offset + np.arange(len(taps)), n)
    blocks = []
    for first in range(0, size, rows):
        reads = pixels[first : first + rows]
        start, stop = int(reads.min()), int(reads.max()) + 1
        weights = np.zeros((len(reads), stop - start))
        np.add.at(weights, (np.arange(len(reads))[:, None], reads - start), taps)
        matrix = weights.astype(np.float32)
        matrix.setflags(write=False)
        blocks.append(FirBlock(first, start, matrix))
    return tuple(blocks)


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
        # where two keep a pixel, the later one
        first = np.searchsorted(axis.stitch_starts, pixels, side="right") - 1
        stop = first + 1
        profile = np.ones(patch)
    else:
        first = np.searchsorted(starts + patch, pixels, side="right")
        stop = np.searchsorted(starts, pixels, side="right")
        # of pixels' centres, so that no pixel's weight is 0
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

    def rows(self, first: int, count: int) -> tuple[int, int]:
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

"""Sliding windows: tiles at every multiple of a stride, of which each pixel gets many."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from gpu_patch.checks import Message, argument
from gpu_patch.tiling import AxisCover, TileAxis, TileGrid


def sliding_axis(n: int, patch: int, overlap: int, stride: int) -> TileAxis:
    """Place sliding tiles along an axis of `n` pixels (SWITi, arXiv 2607.18990; CAREamics PR 995).

    Tiles are thought at the multiples i of the stride whose kept part [i + o // 2, i + p − o // 2)
    meets the image. One that reaches beyond it is moved inside, and keeps what of that part is in
    the image. An axis no longer than the patch has one tile.
    """
    if n <= patch:
        return TileAxis([0], [0], [n], [0])
    margin = overlap // 2
    first = -((patch - margin - 1) // stride) * stride
    at = np.arange(first, n - margin, stride)
    starts = at.clip(0, n - patch)
    low, high = (at + margin).clip(0), (at + patch - margin).clip(None, n)
    columns = (starts, low - starts, high - low, low)
    return TileAxis(*(column.tolist() for column in columns))


def sliding_cover(n: int, patch: int, overlap: int, stride: int) -> AxisCover:
    """Say which tiles of `sliding_axis` count at each pixel: all alike, so that a mean comes."""
    axis = sliding_axis(n, patch, overlap, stride)
    starts, low, size = (np.array(axis[i], np.int64) for i in (0, 3, 2))
    pixels, inside = np.arange(n), np.arange(patch)
    first = np.searchsorted(low + size, pixels, side="right")
    stop = np.searchsorted(low, pixels, side="right")
    at, tile = starts[:, None] + inside, np.arange(len(starts))[:, None]
    clipped = np.minimum(at, n - 1)
    counts = (at < n) & (first[clipped] <= tile) & (tile < stop[clipped])
    weights = np.where(counts, 1 / (stop - first)[clipped], 0.0)
    return AxisCover(
        starts, first.astype(np.int32), stop.astype(np.int32), weights.astype(np.float32)
    )


def sliding_grid(
    size: Sequence[int],
    patch_size: Sequence[int],
    overlaps: Sequence[int],
    stride: Sequence[int],
    slab_axis: int = 0,
) -> TileGrid:
    """Tile a sample with sliding tiles; see `TileGrid` and `sliding_cover`."""
    covers = tuple(
        sliding_cover(*axis) for axis in zip(size, patch_size, overlaps, stride, strict=True)
    )
    return TileGrid(tuple(size), tuple(patch_size), covers, slab_axis)


def largest_stride(
    n_draws: int, patch_size: Sequence[int], overlaps: Sequence[int], z_stride: int | None
) -> tuple[int, ...]:
    """Return the largest stride, equal along Y and X, that gives every inner pixel enough tiles.

    Parameters
    ----------
    n_draws : int
        Tiles that each pixel should get, at least.
    patch_size, overlaps : sequence of int
        (Z)YX, checked.
    z_stride : int or None
        Stride along Z, checked; None is one tile at each Z.
    """
    kept = [p - o for p, o in zip(patch_size, overlaps, strict=True)]
    along_z = () if len(kept) == 2 else (kept[0] if z_stride is None else z_stride,)
    n_along_z = kept[0] // along_z[0] if along_z else 1
    for stride in range(min(kept[-2:]), 0, -1):
        if n_along_z * prod(n // stride for n in kept[-2:]) >= n_draws:
            return (*along_z, stride, stride)
    raise ValueError(
        Message(
            argument("n_draws"),
            f" must be at most {n_along_z * prod(kept[-2:])}, what a stride of 1 gives tiles that "
            f"keep {tuple(kept)} pixels, found {n_draws}",
        )
    )

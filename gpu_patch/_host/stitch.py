"""Tiles back into images, their running sums and means, by the compiled kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.arguments import address, n_threads_for
from gpu_patch._host.library import STITCH_TILE, Library, MeansJob, StitchJob
from gpu_patch.table import volume
from gpu_patch.tiling import Segment, TileGrid

_ONE = np.ones(1, np.float32)
"""Weight of Z where images have two axes."""


def stitch(
    library: Library,
    tiles: NDArray[Any],
    segments: Sequence[Segment],
    scale: NDArray[np.float32] | None,
    offset: NDArray[np.float32] | None,
) -> None:
    """Write tiles (B, C, (Z), Y, X) into slabs; see `ops.stitch`."""
    _write(library, tiles, segments, scale, offset)


def accumulate(
    library: Library,
    tiles: NDArray[Any],
    segments: Sequence[Segment],
    *,
    squares: bool,
    again: bool,
) -> None:
    """Add tiles (B, C, (Z), Y, X) to running sums; see `ops.accumulate`."""
    _write(library, tiles, segments, sums=1 + squares, again=again)


def means(
    library: Library,
    sums: NDArray[np.float64],
    grid: TileGrid,
    rows: tuple[int, int],
    out: NDArray[np.float32],
    *,
    n_samples: int,
    squares: bool,
) -> None:
    """Turn sums into means and standard deviations; see `ops.means`."""
    no_axis, axis = 3 - len(grid.size), grid.slab_axis
    counts = [np.ones(1)] * no_axis + grid.counts(rows)
    counts[0] = counts[0] * n_samples
    in_slab = [0, 0, 0]
    in_slab[no_axis + axis] = rows[0] % sums.shape[1 + axis]
    job = MeansJob(
        volume(sums.shape[1:]),
        tuple(in_slab),
        volume(out.shape[1:]),
        tuple(address(one) for one in counts),
        len(sums) // (1 + squares),
        squares,
        n_threads_for(out.size),
    )
    library.call("means", job, address(sums), address(out))


def _write(
    library: Library,
    tiles: NDArray[Any],
    segments: Sequence[Segment],
    scale: NDArray[np.float32] | None = None,
    offset: NDArray[np.float32] | None = None,
    *,
    sums: int = 0,
    again: bool = False,
) -> None:
    """Call the kernel on a batch of tiles; what they become is said by `sums`."""
    n_tiles, n_channels, *patch_size = tiles.shape
    records, at = np.zeros(n_tiles, STITCH_TILE), 0
    for segment in segments:
        _fill(segment, records[at : at + segment.count])
        at += segment.count
    is_half = tiles.dtype == np.float16
    n_threads = n_threads_for(tiles.size)
    job = StitchJob(volume(patch_size), n_tiles, n_channels, is_half, n_threads, sums, again)
    library.call("stitch", job, *map(address, (records, tiles, scale, offset)))


def _fill(segment: Segment, records: NDArray[np.void]) -> None:
    """Fill in the records of a segment's tiles."""
    slab, grid = segment.slab, segment.grid
    no_axis = 3 - len(grid.size)  # kernels know three axes: an image of two has one Z
    records["slab"], records["slab_size"] = address(slab), volume(slab.shape[1:])
    records["high"] = 1
    if not grid.exclusive:
        records["weights"] = address(_ONE)
    for axis, (cover, own) in enumerate(zip(grid.covers, segment.columns(), strict=True), no_axis):
        for name in ("start", "low", "middle", "high"):
            records[name][:, axis] = getattr(own, name)
        if not grid.exclusive:
            weights = cover.weights
            rows = own.place * weights.strides[0]
            records["weights"][:, axis] = weights.ctypes.data + rows

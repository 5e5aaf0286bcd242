"""Tiles back into images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gpu_patch._host.library import active
from gpu_patch._host.stitch import stitch as host_stitch
from gpu_patch._numpy.stitch import stitch as numpy_stitch
from gpu_patch.ops.image_set import runtime_of
from gpu_patch.tiling import Segment


def stitch(
    tiles: Any,
    segments: Sequence[Segment],
    *,
    scale: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> None:
    """Write a batch of tiles into slabs of the images that they are of.

    A pixel is the sum of the tiles that count there, times their weights, in the order of the
    grid. The first of them replaces what the slab holds, so that slabs need no zeros; it may have
    come in an earlier batch than the others. However a run of tiles is divided into batches, the
    result is the same to the last bit. Where no other counts, a tile is copied.

    Parameters
    ----------
    tiles : array of float32 or float16, shape (B, C, (Z), Y, X)
        C-contiguous; NumPy's or CuPy's.
    segments : sequence of Segment
        Where the tiles go, all B of them, in their order. Slabs are where the tiles are, and no
        two segments write the same pixels.
    scale, offset : array of float32, shape (C,), optional
        Values are multiplied and then added to these first, on the host.
    """
    runtime = checked(tiles, segments, 1, np.float32)
    factors = _per_channel("scale", scale, tiles.shape[1])
    summands = _per_channel("offset", offset, tiles.shape[1])
    if runtime is None and (library := active()) is not None:
        host_stitch(library, tiles, segments, factors, summands)
        return
    if runtime is None:
        # what exceeds 3.4e38 becomes infinite in float32: no warning of NumPy's
        with np.errstate(over="ignore", invalid="ignore"):
            numpy_stitch(tiles, segments, factors, summands)
        return
    from gpu_patch._cuda.stitch import stitch as cuda_stitch

    cuda_stitch(runtime, tiles, segments, factors, summands)


def checked(tiles: Any, segments: Sequence[Segment], planes_each: int, slab_type: DTypeLike) -> Any:
    """Check what backends do not, and return the runtime of the tiles.

    Parameters
    ----------
    tiles, segments
        As in `stitch`.
    planes_each : int
        Planes that slabs must have for each channel of the tiles.
    slab_type : data type
        Theirs.
    """
    runtime = runtime_of(tiles, "tiles")
    if tiles.dtype not in (np.float32, np.float16):
        raise TypeError(f"tiles must be float32 or float16, found {tiles.dtype}")
    if tiles.ndim not in (4, 5) or not tiles.flags.c_contiguous:
        raise ValueError(
            "tiles must be C-contiguous with the axes BC(Z)YX, found the shape "
            f"{tuple(tiles.shape)} and the strides {tuple(tiles.strides)}"
        )
    for i, segment in enumerate(segments):
        name = f"segments[{i}]"
        if runtime_of(segment.slab, f"{name}.slab") is not runtime:
            raise ValueError(f"{name}.slab must be on the device that the tiles are on")
        _check_segment(
            name, segment, (planes_each * tiles.shape[1], *tiles.shape[2:]), np.dtype(slab_type)
        )
    count = sum(segment.count for segment in segments)
    if count != len(tiles):
        raise ValueError(
            f"segments must have as many tiles as the batch, {len(tiles)}: found {count}"
        )
    return runtime


def _check_segment(
    name: str, segment: Segment, shape: tuple[int, ...], slab_type: np.dtype[Any]
) -> None:
    slab, grid, first, count, slab_range = segment
    if grid.patch_size != shape[1:]:
        raise ValueError(
            f"{name}.grid must have tiles as large as the batch's, {shape[1:]}, found "
            f"{grid.patch_size}"
        )
    if not (first >= 0 and 1 <= count <= grid.n_tiles - first):
        raise ValueError(
            f"{name} must have at least one of the grid's {grid.n_tiles} tiles, and no others, "
            f"found first = {first} and count = {count}"
        )
    size = grid.size[grid.slab_axis]
    if not 0 <= slab_range[0] <= slab_range[1] <= size:
        raise ValueError(
            f"{name}.slab_range must be [start, stop) in 0 … {size}, found {slab_range}"
        )
    wanted = [shape[0], *grid.size]
    wanted[1 + grid.slab_axis] = slab.shape[1 + grid.slab_axis] if slab.ndim == len(wanted) else 0
    if tuple(slab.shape) != tuple(wanted):
        raise ValueError(
            f"{name}.slab must have the shape {(shape[0], *grid.size)}, of any length along axis "
            f"{1 + grid.slab_axis}, found {tuple(slab.shape)}"
        )
    if slab.dtype != slab_type or not slab.flags.c_contiguous:
        raise ValueError(f"{name}.slab must be C-contiguous {slab_type}, found {slab.dtype}")
    start, stop = segment.written
    if stop - start > (height := slab.shape[1 + grid.slab_axis]):
        raise ValueError(
            f"{name}.slab must hold the {stop - start} pixels that these tiles write along axis "
            f"{1 + grid.slab_axis}, found {height}"
        )


def _per_channel(
    name: str, values: ArrayLike | None, n_channels: int
) -> NDArray[np.float32] | None:
    if values is None:
        return None
    found = np.asarray(values, np.float32)
    if found.shape != (n_channels,):
        raise ValueError(
            f"{name} must have one number per channel, {n_channels}, found the shape {found.shape}"
        )
    return np.ascontiguousarray(found)

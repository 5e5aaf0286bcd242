"""Running sums of the tiles that cover each pixel, and the means that they become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_patch._host.library import active
from gpu_patch._host.stitch import accumulate as host_accumulate
from gpu_patch._host.stitch import means as host_means
from gpu_patch._numpy.accumulate import accumulate as numpy_accumulate
from gpu_patch._numpy.accumulate import means as numpy_means
from gpu_patch.ops.image_set import runtime_of
from gpu_patch.ops.stitch import checked
from gpu_patch.tiling import Segment, TileGrid


def accumulate(
    tiles: Any, segments: Sequence[Segment], *, squares: bool = False, again: bool = False
) -> None:
    """Add a batch of tiles to running sums.

    A pixel is the sum, in float64, of the tiles that count there, all alike, in the order of the
    grid. The first of them replaces what the slab holds, so that slabs need no zeros. However a run
    of tiles is divided into batches, sums are the same to the last bit; where tiles come several
    times, their order is that of the calls, and sums may differ by float64's rounding, 1e-16 of
    their size for each summand.

    Parameters
    ----------
    tiles : array of float32 or float16, shape (B, C, (Z), Y, X)
        C-contiguous; NumPy's or CuPy's.
    segments : sequence of Segment
        Where the tiles go, as in `stitch`. Slabs are float64, (C, (Z), Y, X), or with squares
        (2C, (Z), Y, X): first the sums, then the sums of squares.
    squares : bool, default False
        Whether squares are summed too.
    again : bool, default False
        Whether these tiles have been added before, and are another sample of the same: nothing is
        replaced.
    """
    runtime = checked(tiles, segments, 2 if squares else 1, np.float64)
    if runtime is None and (library := active()) is not None:
        host_accumulate(library, tiles, segments, squares=squares, again=again)
        return
    if runtime is None:
        # what is not finite stays so: no warning of NumPy's
        with np.errstate(over="ignore", invalid="ignore"):
            numpy_accumulate(tiles, segments, squares=squares, again=again)
        return
    from gpu_patch._cuda.accumulate import accumulate as cuda_accumulate

    cuda_accumulate(runtime, tiles, segments, squares=squares, again=again)


def means(
    sums: Any, grid: TileGrid, rows: tuple[int, int], out: Any, *, n_samples: int, squares: bool
) -> None:
    """Turn sums into means, and with squares into standard deviations.

    How many tiles a pixel has is computed from the grid: along each axis, how many count there.

    Parameters
    ----------
    sums : array of float64, shape (C or 2C, (Z), Y, X)
        A slab of `accumulate`, a ring along the grid's slab axis.
    grid : TileGrid
        The tiles.
    rows : (int, int)
        Pixels [start, stop) of the image along the slab axis; in the ring they do not wrap.
    out : array of float32, shape (C or 2C, (Z), Y, X)
        As long as `rows` along the slab axis: first the means, then the standard deviations,
        unbiased (0 where there is one value).
    n_samples : int
        How often each tile was added.
    squares : bool
        Whether sums of squares follow the sums.
    """
    runtime = runtime_of(sums, "sums")
    if runtime_of(out, "out") is not runtime:
        raise ValueError("out must be on the device that the sums are on")
    axis = 1 + grid.slab_axis
    length = sums.shape[axis]
    first = rows[0] % length
    wanted = (*sums.shape[:axis], rows[1] - rows[0], *sums.shape[axis + 1 :])
    if tuple(out.shape) != wanted or out.dtype != np.float32 or sums.dtype != np.float64:
        raise ValueError(
            f"out must be float32 of the shape {wanted} for sums of float64, found {out.dtype} of "
            f"{tuple(out.shape)} for {sums.dtype}"
        )
    if (
        not 0 <= rows[0] < rows[1] <= grid.size[grid.slab_axis]
        or rows[1] - rows[0] > length - first
    ):
        raise ValueError(f"rows must be of the image and not wrap in {length} rows, found {rows}")
    if runtime is None and (library := active()) is not None:
        host_means(library, sums, grid, rows, out, n_samples=n_samples, squares=squares)
        return
    if runtime is None:
        with np.errstate(over="ignore", invalid="ignore"):
            numpy_means(sums, grid, rows, out, n_samples=n_samples, squares=squares)
        return
    from gpu_patch._cuda.accumulate import means as cuda_means

    cuda_means(runtime, sums, grid, rows, out, n_samples=n_samples, squares=squares)

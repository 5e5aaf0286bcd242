"""Running sums of tiles, in one launch a batch, and the means that they become, in one more."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gpu_patch._cuda.runtime import Runtime, launch
from gpu_patch._cuda.stitch import launch_on_tiles, tables_of
from gpu_patch.table import volume
from gpu_patch.tiling import Segment, TileGrid

_THREADS = 256

_JOB = np.dtype(
    [
        ("slab_size", np.int64, 3),
        ("in_slab", np.int64, 3),
        ("size", np.int64, 3),
        ("at", np.int64, 3),
        ("first", np.uint64, 3),
        ("stop", np.uint64, 3),
        ("n_channels", np.int64),
        ("n_samples", np.int64),
    ]
)
"""`struct MeansJob`."""


def accumulate(
    runtime: Runtime, tiles: Any, segments: Sequence[Segment], *, squares: bool, again: bool
) -> None:
    """Add tiles (B, C, (Z), Y, X) to running sums; see `ops.accumulate`."""
    launch_on_tiles(runtime, tiles, segments, {"SUMS": 2 if squares else 1}, again=again)


def means(
    runtime: Runtime,
    sums: Any,
    grid: TileGrid,
    rows: tuple[int, int],
    out: Any,
    *,
    n_samples: int,
    squares: bool,
) -> None:
    """Turn sums into means and standard deviations; see `ops.means`."""
    slab_axis = 3 - len(grid.size) + grid.slab_axis
    n_channels = len(sums) // (1 + squares)
    job = np.zeros(1, _JOB)
    job["slab_size"], job["size"] = volume(sums.shape[1:]), volume(out.shape[1:])
    job["at"][:, slab_axis] = rows[0]
    job["in_slab"][:, slab_axis] = rows[0] % sums.shape[1 + grid.slab_axis]
    job["n_channels"], job["n_samples"] = n_channels, n_samples
    with runtime.active():
        tables = tables_of(runtime, grid)
        job["first"], job["stop"] = tables[:, 1], tables[:, 2]
        device = runtime.upload(job.view(np.uint8))
        launch(
            runtime.kernel("means", "means", {"SQUARES": int(squares)}),
            -(-n_channels * prod(out.shape[1:]) // _THREADS),
            (_THREADS,),
            [runtime.pointer(array) for array in (device, sums, out)],
        )

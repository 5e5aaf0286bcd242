"""Patches at their native scale, by the compiled kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.arguments import address, check_coords, job_of
from gpu_patch._host.library import Library
from gpu_patch._host.records import fill_records
from gpu_patch.checks import choice
from gpu_patch.device.host_memory import pool
from gpu_patch.epilogue import Epilogue
from gpu_patch.sources import ChannelSources
from gpu_patch.table import MODES, WindowTable, check_cuts, patch_values


def gather(
    library: Library,
    table: WindowTable,
    sources: ChannelSources,
    patch_size: Sequence[int],
    n_scales: int,
    mode: str,
    dtype: np.dtype[Any],
    *,
    epilogue: Epilogue | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the patches of `sources`, (B, C, (Z), Y, X), in `out` if given; see `ops.gather`.

    Integers are those of images that are whole: they are not read by page.
    """
    choice("mode", mode, MODES)
    job = job_of(sources.shape, patch_size, n_scales, mode, dtype, 0)
    places, records = table.sources(sources), None
    if epilogue is not None:
        records = fill_records(library, job, epilogue.orientation, **patch_values(epilogue))
    if not check_cuts(table, sources, patch_size, n_scales, mode):
        check_coords(sources.coords)
    if out is None:
        out = pool.take((*sources.shape, *patch_size), dtype)
    if dtype.kind in "biu":
        library.call(f"gather_{dtype.itemsize}_bytes", job, *map(address, (places, records, out)))
    else:
        pages = table.all_pages(sources, patch_size, 0, n_scales, mode) or (None, None)
        library.call("gather", job, *map(address, (places, *pages, records, out)))
    return out

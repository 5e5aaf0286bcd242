"""Patches at their native scale, by the compiled kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.arguments import address
from gpu_patch._host.batch import HostBatch
from gpu_patch._host.library import Library
from gpu_patch.checks import choice
from gpu_patch.device.host_memory import pool
from gpu_patch.epilogue import Epilogue
from gpu_patch.records import Windows
from gpu_patch.sources import ChannelSources
from gpu_patch.table import MODES, WindowTable


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
    windows = Windows(table, sources, patch_size, n_scales, mode, epilogue=epilogue)
    batch = HostBatch(library, windows, dtype)
    if out is None:
        out = pool.take((*sources.shape, *patch_size), dtype)
    if dtype.kind in "biu":
        batch.call(f"gather_{dtype.itemsize}_bytes", address(out))
    else:
        batch.call("gather", *batch.pages(0), address(out))
    return out

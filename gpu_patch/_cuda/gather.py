"""Patches at their native scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch._cuda.runtime import Runtime, launch
from gpu_patch.checks import choice
from gpu_patch.epilogue import Epilogue
from gpu_patch.records import NUMPY_RECORDS, RecordMaker, Windows
from gpu_patch.sources import ChannelSources
from gpu_patch.table import (
    EPILOGUE,
    MODES,
    PAGED,
    WindowTable,
    as_table,
    pack,
    volume,
)

_ROWS = 16
"""Rows per block, ROWS in gather.cu: few, so that a batch of 32 has blocks for a whole device."""

_JOB = np.dtype(
    [
        ("patch", np.int64, 3),
        ("n_row_groups", np.int64),
        ("cut_scale", np.int32),
        ("mode", np.int32),
        ("half_output", np.int32),
        ("unused", np.int32),
    ]
)


def gather(
    runtime: Runtime,
    images: WindowTable | Sequence[Any],
    sources: ChannelSources,
    patch_size: Sequence[int],
    n_scales: int,
    mode: str,
    dtype: DTypeLike,
    *,
    epilogue: Epilogue | None = None,
    rows: NDArray[np.int64] | None = None,
    records: RecordMaker = NUMPY_RECORDS,
    out: Any = None,
) -> Any:
    """Return the patches of `sources`, or of some rows of it, in `out` if given; see `ops.gather`.

    They are (B, C, (Z), Y, X).
    """
    choice("mode", mode, MODES)
    with runtime.active():
        table = as_table(runtime, images)
        windows = Windows(table, sources, patch_size, n_scales, mode, epilogue=epilogue, rows=rows)
        places, *finish = records.full(windows)
        pages = records.pages(windows, 0)
        if out is None:
            out = runtime.output((*windows.shape, *patch_size), dtype)
        depth, height, width = volume(patch_size)
        n_row_groups = -(-depth * height // _ROWS)
        job = np.array(
            (
                (depth, height, width),
                n_row_groups,
                n_scales,
                MODES.index(mode),
                out.dtype == np.float16,
                0,
            ),
            _JOB,
        )
        packed, offsets = pack(job, places, *pages, *finish)
        constants = (PAGED if pages else {}) | (EPILOGUE if finish else {})
        device = runtime.upload(packed)
        if out.dtype.kind in "biu":
            constants = {**constants, "INTEGER_BYTES": out.dtype.itemsize}
        addresses = [runtime.pointer(device) + offset for offset in offsets]
        launch(
            runtime.kernel("gather", "gather", constants),
            places.size * n_row_groups,
            (32, 8),
            [*addresses[:2], runtime.pointer(out), *addresses[2:]],
        )
    return out

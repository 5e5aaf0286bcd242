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


class HostGather:
    """Patches of `sources`, (B, C, (Z), Y, X); see `ops.gather`.

    Integers are those of images that are whole: they are not read by page.
    """

    def __init__(
        self,
        library: Library,
        table: WindowTable,
        sources: ChannelSources,
        patch_size: Sequence[int],
        n_scales: int,
        mode: str,
        dtype: np.dtype[Any],
        *,
        epilogue: Epilogue | None = None,
    ) -> None:
        choice("mode", mode, MODES)
        windows = Windows(table, sources, patch_size, n_scales, mode, epilogue=epilogue)
        self.library = library
        self._batch = HostBatch(library, windows, dtype)
        self._dtype, self._n_samples = dtype, len(sources.image_idx)
        self._shape = len(sources.channels), *patch_size

    def __call__(
        self, rows: NDArray[np.int64] | None = None, *, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return the patches, or those of some rows, in `out` if given."""
        if out is None:
            n_samples = self._n_samples if rows is None else len(rows)
            out = pool.take((n_samples, *self._shape), self._dtype)
        if self._dtype.kind in "biu":
            self._batch.call(f"gather_{self._dtype.itemsize}_bytes", address(out), rows=rows)
        else:
            pages = self._batch.pages(0, rows)  # kept until they are read
            self._batch.call("gather", *map(address, (*pages, out)), rows=rows)
        return out

"""Mixed channels at several scales around a patch, by the compiled kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.arguments import address
from gpu_patch._host.batch import HostBatch
from gpu_patch._host.library import Library
from gpu_patch.checks import choice
from gpu_patch.device.host_memory import pool
from gpu_patch.epilogue import Epilogue
from gpu_patch.geometry import PADDING_MODES, fir_taps
from gpu_patch.records import Windows
from gpu_patch.sources import ChannelSources
from gpu_patch.table import WindowTable


class HostContext:
    """Input (B, L, (Z), Y, X) and target (B, C, (Z), Y, X); see `ops.lateral_context`."""

    def __init__(
        self,
        library: Library,
        table: WindowTable,
        sources: ChannelSources,
        weights: NDArray[np.float32],
        patch_size: Sequence[int],
        n_scales: int,
        mode: str,
        dtype: np.dtype[Any],
        *,
        targets: bool = True,
        epilogue: Epilogue | None = None,
    ) -> None:
        choice("mode", mode, PADDING_MODES)
        windows = Windows(table, sources, patch_size, n_scales, mode, weights, epilogue, targets)
        self.library = library
        self._batch = HostBatch(library, windows, dtype, scale=n_scales - 1)
        self._shape, self._n_scales, self._patch_size = sources.shape, n_scales, tuple(patch_size)
        self._dtype, self._targets = dtype, targets
        self._taps = _taps(n_scales)

    def __call__(
        self,
        rows: NDArray[np.int64] | None = None,
        *,
        out: tuple[NDArray[Any], NDArray[Any] | None] | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return input and target, or those of some rows, in `out` if given."""
        if out is None:
            shape = self._shape if rows is None else (len(rows), self._shape[1])
            how = self._n_scales, self._patch_size, self._dtype
            out = new_outputs(shape, *how, targets=self._targets)
        pages = self._batch.pages(self._n_scales - 1, rows)  # kept until they are read
        taps = ctypes.addressof(self._taps[0])
        self._batch.call("lateral_context", taps, *map(address, (*pages, *out)), rows=rows)
        return out


def new_outputs(
    shape: tuple[int, int],
    n_scales: int,
    patch_size: Sequence[int],
    dtype: np.dtype[Any],
    *,
    targets: bool,
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return arrays for input and target of sources of this shape, (B, C)."""
    n_samples, n_channels = shape
    mixed = pool.take((n_samples, n_scales, *patch_size), dtype)
    target = pool.take((n_samples, n_channels, *patch_size), dtype) if targets else None
    return mixed, target


@lru_cache(maxsize=32)
def _taps(n_scales: int) -> tuple[ctypes.Array[ctypes.c_void_p], list[NDArray[np.float32]]]:
    """Return the addresses of each scale's taps, and the arrays that live there."""
    taps = [fir_taps(scale)[0].astype(np.float32) for scale in range(n_scales)]
    return (ctypes.c_void_p * n_scales)(*(own.ctypes.data for own in taps)), taps

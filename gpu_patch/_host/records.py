"""The records of a batch, as CUDA's kernels read them, by compiled functions."""

from __future__ import annotations

from math import prod
from operator import is_not
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.batch import HostBatch
from gpu_patch._host.library import ImpossiblePlaceError, Library
from gpu_patch.records import MOST_SHORT, Windows
from gpu_patch.table import CHANNEL_SOURCE, EPILOGUE_RECORD

_FLOAT32 = np.dtype(np.float32)


class HostRecords:
    """A `RecordMaker` of compiled functions, for batches of the same columns.

    Parameters
    ----------
    library : Library
        The functions.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._known: tuple[Windows, HostBatch] | None = None

    def _batch(self, windows: Windows) -> HostBatch:
        """Return what is planned; the same as long as no more than the rows are others."""
        known, n_others = self._known, Windows._fields.index("rows")
        if known is None or any(map(is_not, known[0][:n_others], windows[:n_others])):
            known = self._known = windows, HostBatch(self._library, windows, _FLOAT32)
        return known[1]

    def pages(self, windows: Windows, scale: int) -> tuple[NDArray[Any], ...]:
        return (
            () if windows.table.paged is None else self._batch(windows).boxes(scale, windows.rows)
        )

    def full(self, windows: Windows) -> list[NDArray[np.void]]:
        kinds = [CHANNEL_SOURCE] if windows.epilogue is None else [CHANNEL_SOURCE, EPILOGUE_RECORD]
        made = [np.empty(windows.shape, kind) for kind in kinds]
        where = made[0].ctypes.data, made[1].ctypes.data if made[1:] else None
        self._batch(windows).call("fill_records", *where, rows=windows.rows)
        return made

    def short(self, windows: Windows, memory: NDArray[np.void]) -> bool:
        assert memory.size >= prod(windows.shape)
        batch, where = self._batch(windows), memory.ctypes.data
        try:
            batch.call("fill_short_records", MOST_SHORT, where, rows=windows.rows)
        except ImpossiblePlaceError:
            return False
        return True

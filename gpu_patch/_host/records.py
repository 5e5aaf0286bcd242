"""The records of a batch, as CUDA's kernels read them, by compiled functions."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.batch import HostBatch
from gpu_patch._host.library import ImpossiblePlaceError, Library
from gpu_patch.records import MOST_SHORT, Windows
from gpu_patch.table import CHANNEL_SOURCE, EPILOGUE_RECORD

_FLOAT32 = np.dtype(np.float32)


class HostRecords:
    """A `RecordMaker` of compiled functions, for one batch.

    Parameters
    ----------
    library : Library
        The functions.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._known: tuple[Windows, HostBatch] | None = None

    def _batch(self, windows: Windows) -> HostBatch:
        """Return what is planned; the same as long as it is asked for the same."""
        if self._known is None or self._known[0] is not windows:
            self._known = windows, HostBatch(self._library, windows, _FLOAT32)
        return self._known[1]

    def pages(self, windows: Windows, scale: int) -> tuple[NDArray[Any], ...]:
        return () if windows.table.paged is None else self._batch(windows).boxes(scale)

    def full(self, windows: Windows) -> list[NDArray[np.void]]:
        kinds = [CHANNEL_SOURCE] if windows.epilogue is None else [CHANNEL_SOURCE, EPILOGUE_RECORD]
        made = [np.empty(windows.sources.shape, kind) for kind in kinds]
        where = made[0].ctypes.data, made[1].ctypes.data if made[1:] else None
        self._batch(windows).call("fill_records", *where)
        return made

    def short(self, windows: Windows, memory: NDArray[np.void]) -> bool:
        assert memory.size >= prod(windows.sources.shape)
        try:
            self._batch(windows).call("fill_short_records", MOST_SHORT, memory.ctypes.data)
        except ImpossiblePlaceError:
            return False
        return True

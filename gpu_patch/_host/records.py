"""The records of a batch, as CUDA's kernels read them, by compiled functions."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.batch import HostBatch
from gpu_patch._host.library import ImpossiblePlaceError, Library
from gpu_patch.records import MOST_SHORT, Windows
from gpu_patch.table import CHANNEL_SOURCE, EPILOGUE_RECORD

_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class HostRecords:
    """A `RecordMaker` of compiled functions.

    Parameters
    ----------
    library : Library
        The functions.
    """

    library: Library

    def full(self, windows: Windows) -> list[NDArray[np.void]]:
        kinds = [CHANNEL_SOURCE] if windows.epilogue is None else [CHANNEL_SOURCE, EPILOGUE_RECORD]
        made = [np.empty(windows.sources.shape, kind) for kind in kinds]
        batch = HostBatch(self.library, windows, _FLOAT32)
        batch.call("fill_records", made[0].ctypes.data, made[1].ctypes.data if made[1:] else None)
        return made

    def short(self, windows: Windows, memory: NDArray[np.void]) -> bool:
        assert memory.size >= prod(windows.sources.shape)
        batch = HostBatch(self.library, windows, _FLOAT32)
        try:
            batch.call("fill_short_records", MOST_SHORT, memory.ctypes.data)
        except ImpossiblePlaceError:
            return False
        return True

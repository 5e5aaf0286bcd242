"""The records of a batch, as CUDA's kernels read them, by compiled functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.batch import HostBatch
from gpu_patch._host.library import ImpossiblePlaceError, Library
from gpu_patch.epilogue import Epilogue
from gpu_patch.records import MOST_SHORT, fields_of
from gpu_patch.sources import ChannelSources
from gpu_patch.table import CHANNEL_SOURCE, EPILOGUE_RECORD, WindowTable

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

    def full(
        self,
        table: WindowTable,
        sources: ChannelSources,
        patch_size: Sequence[int],
        n_scales: int,
        mode: str,
        *,
        weights: NDArray[np.float32] | None = None,
        epilogue: Epilogue | None = None,
        targets: bool = True,
    ) -> list[NDArray[np.void]]:
        batch = HostBatch(
            self.library, table, sources, patch_size, n_scales, mode, _FLOAT32,
            weights=weights, epilogue=epilogue, fields=fields_of(weights is not None, targets),
        )  # fmt: skip
        kinds = [CHANNEL_SOURCE] if epilogue is None else [CHANNEL_SOURCE, EPILOGUE_RECORD]
        made = [np.empty(sources.shape, kind) for kind in kinds]
        batch.call("fill_records", made[0].ctypes.data, made[1].ctypes.data if made[1:] else None)
        return made

    def short(
        self,
        memory: NDArray[np.void],
        table: WindowTable,
        sources: ChannelSources,
        patch_size: Sequence[int],
        n_scales: int,
        mode: str,
        weights: NDArray[np.float32],
        epilogue: Epilogue | None,
        targets: bool,
    ) -> bool:
        batch = HostBatch(
            self.library, table, sources, patch_size, n_scales, mode, _FLOAT32,
            weights=weights, epilogue=epilogue, fields=fields_of(True, targets),
        )  # fmt: skip
        assert memory.size >= weights.size
        try:
            batch.call("fill_short_records", MOST_SHORT, memory.ctypes.data)
        except ImpossiblePlaceError:
            return False
        return True

"""The records that kernels read, by the compiled functions of the CPU where there are some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.batch import HostBatch
from gpu_patch._host.library import ImpossiblePlaceError, active
from gpu_patch.epilogue import Epilogue
from gpu_patch.sources import ChannelSources
from gpu_patch.table import (
    CHANNEL_SOURCE,
    EPILOGUE_RECORD,
    OF_CONTEXT,
    OF_INPUT,
    OF_PATCH,
    Fields,
    WindowTable,
    all_within,
    check_cuts,
    epilogue_records,
)

MOST_SHORT = 1 << 30
"""Coordinates and sizes below it can be added, a few at a time, without leaving 32 bits."""
_FLOAT32 = np.dtype(np.float32)


def records(
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
    """Return `CHANNEL_SOURCE` records of shape (B, C), and `EPILOGUE_RECORD` records if any.

    Parameters
    ----------
    table, sources, patch_size, n_scales, mode
        What is read; see `WindowTable`.
    weights : array of float32, shape (B, C), optional
        Of lateral contexts; without them patches are plain.
    epilogue : Epilogue, optional
        What happens to values.
    targets : bool, default True
        Whether lateral contexts come with targets.

    Raises
    ------
    IndexError, ValueError
        Something that is to be read is not there.
    """
    fields = OF_PATCH if weights is None else _fields(targets)
    library = active()
    if library is None:
        found = [table.sources(sources, weights)]
        check_cuts(table, sources, patch_size, n_scales, mode)
        if epilogue is not None:
            values = {field: getattr(epilogue, column) for field, column in fields}
            orientation = epilogue.orientation
            found.append(epilogue_records(sources.shape, patch_size, orientation, **values))
        return found
    batch = HostBatch(
        library, table, sources, patch_size, n_scales, mode, _FLOAT32,
        weights=weights, epilogue=epilogue, fields=fields,
    )  # fmt: skip
    kinds = [CHANNEL_SOURCE] if epilogue is None else [CHANNEL_SOURCE, EPILOGUE_RECORD]
    made = [np.empty(sources.shape, kind) for kind in kinds]
    batch.call("fill_records", made[0].ctypes.data, made[1].ctypes.data if made[1:] else None)
    return made


def short_records(
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
    """Fill in `short_record` records, (B, C) of them at the beginning of some memory.

    Returns
    -------
    bool
        Whether all places fit them.

    Raises
    ------
    IndexError, ValueError
        Something that is to be read is not there.
    """
    library, fields = active(), _fields(targets)
    if library is not None:
        batch = HostBatch(
            library, table, sources, patch_size, n_scales, mode, _FLOAT32,
            weights=weights, epilogue=epilogue, fields=fields,
        )  # fmt: skip
        try:
            batch.call("fill_short_records", MOST_SHORT, memory.ctypes.data)
        except ImpossiblePlaceError:
            return False
        return True
    table.check(sources)
    check_cuts(table, sources, patch_size, n_scales, mode)
    if not all_within(sources.coords, -MOST_SHORT, MOST_SHORT):
        return False
    own = memory[: weights.size].reshape(weights.shape)
    table.fill_short(own, sources)
    own["weight"] = weights
    if epilogue is not None:
        if epilogue.orientation is not None:
            own["orientation"] = epilogue.orientation[:, None]
        for field, column in fields:
            if (values := getattr(epilogue, column)) is not None:
                own[field] = values
    return True


def _fields(targets: bool) -> Fields:
    return OF_CONTEXT if targets else OF_INPUT

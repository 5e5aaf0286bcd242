"""What is planned of a batch, as compiled functions take it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from gpu_patch._host.arguments import address, n_threads_for_windows
from gpu_patch._host.library import Columns, ImpossiblePlaceError, Job, Library
from gpu_patch.epilogue import NUMBERS, columns_of
from gpu_patch.records import Fields, Windows, check_coords
from gpu_patch.table import MODES, VALUES, volume


class HostBatch:
    """A batch for compiled functions: they make each channel's records out of the plan's columns.

    Parameters
    ----------
    library : Library
        The functions.
    windows : Windows
        What is read, and what happens to it.
    dtype : dtype
        Of the results.
    scale : int, default 0
        The largest that is read.

    Raises
    ------
    IndexError
        An image that is read does not have these channels.
    """

    def __init__(
        self, library: Library, windows: Windows, dtype: np.dtype[Any], *, scale: int = 0
    ) -> None:
        self._library, self._windows = library, windows
        table, sources, patch_size, n_scales, mode, weights, epilogue, _ = windows
        image_idx, sample_idx, coords, channels = sources
        # what is read and written has these sizes
        n_channels = len(channels)
        assert n_channels
        assert image_idx.shape[1] in (1, n_channels)
        assert image_idx.shape == sample_idx.shape == coords.shape[:2]
        assert coords.shape[2] == len(patch_size) == table.n_dims
        assert weights is None or weights.shape == sources.shape
        if not table.has_checked(channels):
            table.check(sources)
        known = table.of_channels(channels)
        values, widths, orientation = None, None, None
        if epilogue is not None:
            (values, widths), orientation = epilogue.packed(), epilogue.orientation
        n_threads = n_threads_for_windows(sources.shape, patch_size, scale)
        of_images = image_idx.shape[1], len(known)
        self._job = _job(
            sources.shape, of_images, tuple(patch_size), n_scales, mode, dtype.char, n_threads,
            widths, windows.fields,
        )  # fmt: skip
        self._arrays = (
            known,
            table.samples,
            np.ascontiguousarray(image_idx, np.int64),
            np.ascontiguousarray(sample_idx, np.int64),
            np.ascontiguousarray(coords, np.int64),
            None if weights is None else np.ascontiguousarray(weights, np.float32),
            None if values is None else np.ascontiguousarray(values),
            None if orientation is None else np.ascontiguousarray(orientation, np.uint8),
        )
        self._columns = Columns(*map(address, self._arrays))

    def call(self, name: str, *arguments: int | None) -> None:
        """Call a function with what follows job and columns.

        Raises
        ------
        IndexError, ValueError
            An image or sample that is read is not there, or a place cannot be.
        ImpossiblePlaceError
            A place is beyond what the function counts in.
        MemoryError
            A thread had no memory.
        """
        try:
            self._library.call(name, self._job, self._columns, *arguments)
        except ImpossiblePlaceError:
            self._windows.check()
            check_coords(self._windows.sources.coords)
            raise


@lru_cache(maxsize=64)  # batches are alike, and to make it takes longer than to look it up
def _job(
    shape: tuple[int, int],
    of_images: tuple[int, int],
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    kind: str,
    n_threads: int,
    widths: tuple[int, ...] | None,
    fields: Fields,
) -> Job:
    n_values, value_at = 0, dict.fromkeys(VALUES, -1)
    if widths is not None:
        parts = dict(zip(NUMBERS, columns_of(widths), strict=True))
        n_values = sum(part.stop - part.start for part in parts.values() if part is not None)
        for field, column in fields:
            if (part := parts[column]) is not None:
                value_at[field] = part.start
    return Job(
        volume(patch_size),
        *shape,
        n_scales,
        len(patch_size),
        MODES.index(mode),
        kind == "e",
        n_threads,
        *of_images,
        n_values,
        tuple(value_at.values()),
    )

"""What is planned of a batch, as compiled functions take it."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.arguments import address, n_threads_for_windows
from gpu_patch._host.library import Columns, ImpossiblePlaceError, Job, Library
from gpu_patch.epilogue import NUMBERS, columns_of
from gpu_patch.pages.slot_table import PAGE_BOX
from gpu_patch.records import Fields, Windows, check_coords
from gpu_patch.table import MODES, VALUES, check_index, volume
from gpu_patch.threads import get_num_threads

_MOST_PAGES = 32
"""Pages of a window that there is room for without asking."""


class HostBatch:
    """A batch for compiled functions: they make each channel's records out of the plan's columns.

    Any rows of these can be the batch, one after the other or at once.

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

    Attributes
    ----------
    library : Library
        As given.

    Raises
    ------
    IndexError
        An image that is read does not have these channels.
    """

    def __init__(
        self, library: Library, windows: Windows, dtype: np.dtype[Any], *, scale: int = 0
    ) -> None:
        self.library, self._windows, self._scale = library, windows, scale
        table, sources, patch_size, n_scales, mode, weights, epilogue, *_ = windows
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
        of_images = image_idx.shape[1], len(known)
        self._of_job = (
            n_channels, len(image_idx), of_images, tuple(patch_size), n_scales, mode, dtype.char,
            widths, windows.fields,
        )  # fmt: skip
        self._job: tuple[tuple[int, int], Job] | None = None
        self._arrays: tuple[NDArray[Any] | None, ...] = (
            known,
            table.samples,
            np.ascontiguousarray(image_idx, np.int64),
            np.ascontiguousarray(sample_idx, np.int64),
            np.ascontiguousarray(coords, np.int64),
            np.ascontiguousarray(channels, np.int64),
            None if weights is None else np.ascontiguousarray(weights, np.float32),
            None if values is None else np.ascontiguousarray(values),
            None if orientation is None else np.ascontiguousarray(orientation, np.uint8),
        )
        self._columns = Columns(*map(address, self._arrays))

    def pages(
        self, scale: int, rows: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[Any] | None, NDArray[np.void] | None, NDArray[np.int32] | None]:
        """Return images, boxes and slots for a kernel of the CPU, as far as it takes them.

        Parameters
        ----------
        scale : int
            The largest that is read.
        rows : array of int64, shape (B,), optional
            As in `call`.
        """
        table = self._windows.table
        if table.paged is None:
            return None, None, None
        if table.slots is not None:  # whole images are as good as what is read of them
            return table.paged, None, table.slots
        return None, *self.boxes(scale, rows)

    def boxes(
        self, scale: int, rows: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.void], NDArray[np.int32]]:
        """Return what `WindowTable.pages` does, of images by page.

        Parameters
        ----------
        scale : int
            The largest that is read.
        rows : array of int64, shape (B,), optional
            As in `call`.

        Raises
        ------
        IndexError, ValueError, MemoryError
            As `call` does.
        RuntimeError
            A page is not held: this is a fault of gpu_patch.
        """
        windows = self._windows._replace(rows=rows)
        table, shape = windows.table, windows.shape
        boxes, n_pages = np.empty(shape, PAGE_BOX), np.empty(3, np.int64)
        n_windows, most = prod(shape), _MOST_PAGES
        while True:
            slots = np.empty(n_windows * most, np.int32)
            places = map(address, (n_pages, boxes, slots))
            self.call("find_boxes", address(table.paged), scale, slots.size, *places, rows=rows)
            n = prod(n_pages.tolist())
            if n <= most:
                return boxes, slots[: n_windows * n].reshape(*shape, n)
            most = n

    def call(
        self, name: str, *arguments: int | None, rows: NDArray[np.int64] | None = None
    ) -> None:
        """Call a function.

        Parameters
        ----------
        name : str
            Which.
        *arguments : int or None
            What follows job, columns and rows.
        rows : array of int64, shape (B,), optional
            Which of the columns' samples are the batch's; default all.

        Raises
        ------
        IndexError, ValueError
            An image or sample that is read is not there, or a place cannot be.
        ImpossiblePlaceError
            A place is beyond what the function counts in.
        MemoryError
            A thread had no memory.
        """
        assert rows is None or (rows.dtype == np.int64 and rows.ndim == 1)
        try:
            self.library.call(name, self._job_of(rows), self._columns, address(rows), *arguments)
        except ImpossiblePlaceError:
            if rows is not None:
                check_index("rows", rows, len(self._windows.sources.image_idx))
            own = self._windows._replace(rows=rows).alone()
            own.check()
            check_coords(own.sources.coords)
            raise

    def _job_of(self, rows: NDArray[np.int64] | None) -> Job:
        """Return the job of these samples, most often that of the last."""
        n_samples = len(self._windows.sources.image_idx) if rows is None else len(rows)
        key = n_samples, get_num_threads()
        known = self._job
        if known is None or known[0] != key:
            n_channels, patch_size = len(self._windows.sources.channels), self._windows.patch_size
            shape = n_samples, n_channels
            n_threads = n_threads_for_windows(shape, patch_size, self._scale)
            known = self._job = key, _job(n_samples, n_threads, *self._of_job)
        return known[1]


@lru_cache(maxsize=64)  # batches are alike, and to make it takes longer than to look it up
def _job(
    n_samples: int,
    n_threads: int,
    n_channels: int,
    n_planned: int,
    of_images: tuple[int, int],
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    kind: str,
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
        n_samples,
        n_planned,
        n_channels,
        n_scales,
        len(patch_size),
        MODES.index(mode),
        kind == "e",
        n_threads,
        *of_images,
        n_values,
        tuple(value_at.values()),
    )

"""The records of a batch, as CUDA's kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpu_patch.epilogue import Epilogue, turned_places
from gpu_patch.sources import ChannelSources
from gpu_patch.table import EPILOGUE_RECORD, WindowTable, all_within, check_cuts

MOST_SHORT = 1 << 30
"""Coordinates and sizes below it can be added, a few at a time, without leaving 32 bits."""
_MOST_COORDS = 1 << 56
"""The same of 64 bits: MOST_COORDS in _host/kernels.cpp."""

_FLOATS_OF_EPILOGUE = {
    name: 3 + number for number, name in enumerate(EPILOGUE_RECORD.names or ()) if number > 2
}
"""Places in a record, counted as float32: three words are before them."""

Fields: TypeAlias = tuple[tuple[str, str], ...]
"""Fields of a record, one of `VALUES`, beside the column of an epilogue that each holds."""

_OF_PATCH: Fields = tuple((name, f"input_{name}") for name in ("shift", "scale", "offset"))
_OF_MIXTURE: Fields = tuple((column, column) for _, column in _OF_PATCH)
_OF_CONTEXT: Fields = (*((name, f"target_{name}") for name, _ in _OF_PATCH), *_OF_MIXTURE)


class Windows(NamedTuple):
    """What a batch reads, and what happens to it: all that its records say.

    Of N planned samples, which are all of the batch's, or those of its epoch.

    Attributes
    ----------
    table, sources, patch_size, n_scales, mode
        What is read; see `WindowTable`.
    weights : array of float32, shape (N, C), or None
        Of lateral contexts; without them patches are plain.
    epilogue : Epilogue or None
        What happens to values.
    targets : bool, default True
        Whether lateral contexts come with targets.
    rows : array of int64, shape (B,), or None
        Which of the samples of sources, weights and epilogue are the batch's; None for all. What is
        before it is of the plan.
    """

    table: WindowTable
    sources: ChannelSources
    patch_size: Sequence[int]
    n_scales: int
    mode: str
    weights: NDArray[np.float32] | None = None
    epilogue: Epilogue | None = None
    targets: bool = True
    rows: NDArray[np.int64] | None = None

    @property
    def n_samples(self) -> int:
        """Of the batch."""
        return len(self.sources.image_idx if self.rows is None else self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, C)."""
        return self.n_samples, len(self.sources.channels)

    def alone(self) -> Windows:
        """Return those of the batch's samples, without others."""
        if (rows := self.rows) is None:
            return self
        return self._replace(
            sources=self.sources.rows(rows),
            weights=None if self.weights is None else self.weights.take(rows, axis=0),
            epilogue=self.epilogue and self.epilogue.rows(rows),
            rows=None,
        )

    @property
    def fields(self) -> Fields:
        """Which columns of the epilogue records have."""
        if self.weights is None:
            return _OF_PATCH
        return _OF_CONTEXT if self.targets else _OF_MIXTURE

    def check(self) -> None:
        """Check that what is read is there; raises IndexError or ValueError."""
        self.table.check(self.sources)
        check_cuts(self.table, self.sources, self.patch_size, self.n_scales, self.mode)


class RecordMaker(Protocol):
    """What makes records of a plan's columns."""

    def pages(self, windows: Windows, scale: int) -> tuple[NDArray[Any], ...]:
        """Return where the pages are that are read up to a scale; see `WindowTable.pages`."""

    def full(self, windows: Windows) -> list[NDArray[np.void]]:
        """Return `CHANNEL_SOURCE` records of shape (B, C), and `EPILOGUE_RECORD` records if any.

        Raises
        ------
        IndexError, ValueError
            Something that is to be read is not there.
        """

    def short(self, windows: Windows, memory: NDArray[np.void]) -> bool:
        """Fill in `short_record` records, (B, C) of them at the beginning of some memory.

        They are of lateral contexts, in images smaller than 2^31 pixels.

        Returns
        -------
        bool
            Whether all places fit them.

        Raises
        ------
        IndexError, ValueError
            Something that is to be read is not there.
        """


class NumpyRecords:
    """A `RecordMaker` in NumPy."""

    def pages(self, windows: Windows, scale: int) -> tuple[NDArray[Any], ...]:
        if windows.table.paged is None:
            return ()
        table, sources, patch_size, n_scales, mode, *_ = windows.alone()
        return table.pages(sources, patch_size, scale, n_scales, mode)

    def full(self, windows: Windows) -> list[NDArray[np.void]]:
        windows = windows.alone()
        windows.check()
        sources, epilogue = windows.sources, windows.epilogue
        check_coords(sources.coords)
        found = [windows.table.sources(sources, windows.weights)]
        if epilogue is not None:
            values = {field: getattr(epilogue, column) for field, column in windows.fields}
            where = sources.shape, windows.patch_size, epilogue.orientation
            found.append(_epilogue_records(*where, **values))
        return found

    def short(self, windows: Windows, memory: NDArray[np.void]) -> bool:
        windows = windows.alone()
        windows.check()
        sources, epilogue = windows.sources, windows.epilogue
        if not all_within(sources.coords, -MOST_SHORT, MOST_SHORT):
            return False
        n_samples, n_channels = sources.shape
        own = memory[: n_samples * n_channels].reshape(sources.shape)
        windows.table.fill_short(own, sources)
        own["weight"] = windows.weights
        if epilogue is not None:
            if epilogue.orientation is not None:
                own["orientation"] = epilogue.orientation[:, None]
            for field, column in windows.fields:
                if (values := getattr(epilogue, column)) is not None:
                    own[field] = values
        return True


NUMPY_RECORDS = NumpyRecords()


def check_coords(coords: NDArray[np.int64]) -> None:
    """Check that windows around these places can be counted in 64 bits."""
    if not all_within(coords, -_MOST_COORDS, _MOST_COORDS):
        raise ValueError("sources.coords must be within ±2^56")


def _epilogue_records(
    shape: tuple[int, int],
    patch_size: Sequence[int],
    orientation: NDArray[np.uint8] | None,
    **values: NDArray[np.float32] | None,
) -> NDArray[np.void]:
    """Return `EPILOGUE_RECORD` records.

    Parameters
    ----------
    shape : (int, int)
        (B, C).
    patch_size : sequence of int
        (Z)YX.
    orientation : array of uint8, shape (B,), or None
        See `epilogue.turn`.
    **values : array of float32, shape (B, C) or (B, 1), or None
        `shift`, `scale`, `offset` and those of the input, as far as the kernel reads them; None
        is all 0.
    """
    # as words: NumPy writes fields of a record more slowly
    words = np.zeros((*shape, EPILOGUE_RECORD.itemsize // 8), np.int64)
    places = turned_places(*patch_size[-2:])
    words[..., :3] = places[0] if orientation is None else places[orientation][:, None]
    floats = words.view(np.float32)
    for name, numbers in values.items():
        if numbers is not None:
            floats[..., _FLOATS_OF_EPILOGUE[name]] = numbers
    found: NDArray[np.void] = words.view(EPILOGUE_RECORD)[..., 0]
    return found

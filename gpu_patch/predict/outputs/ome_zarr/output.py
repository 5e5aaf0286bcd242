"""`ZarrOutput`: collects rows until whole chunks can be written, and finishes the image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.predict.outputs.axes import merged_axes, put_rows
from gpu_patch.predict.outputs.base import Output, Predicted, UnitKey
from gpu_patch.predict.outputs.ome_zarr.image import Storage, open_levels, stored_shape
from gpu_patch.predict.outputs.ome_zarr.multiscale import (
    fill,
    halve,
    levels,
    without_others,
)
from gpu_patch.predict.outputs.ome_zarr.unfinished import UnfinishedImage


class ZarrOutput(Output):
    """An image that is being written, in whole chunks.

    Parameters
    ----------
    unfinished : UnfinishedImage
        Where it is.
    predicted : Predicted
        Its description.
    unit_rows : int
        Rows that are kept until all of them are there.
    storage : Storage
        Chunks and shards.
    path : Path
        Where it will be.
    publish : callable
        Puts it there.
    done : callable
        Called when it is given up.
    alone : bool
        Whether no other process writes.
    """

    def __init__(
        self,
        unfinished: UnfinishedImage,
        predicted: Predicted,
        unit_rows: int,
        storage: Storage,
        path: Path,
        publish: Callable[[], object],
        done: Callable[[], object],
        *,
        alone: bool,
    ) -> None:
        self._unfinished, self._predicted, self._unit_rows = unfinished, predicted, unit_rows
        self._storage, self._path, self._alone = storage, path, alone
        self._publish, self._done = publish, done
        self._axes = merged_axes(predicted.original_axes, predicted.shape[1])
        self._level, self._writes = open_levels(unfinished.image, unfinished.disk)
        self._array = self._level(0)
        self._kept: NDArray[Any] | None = None
        self._unit: UnitKey | None = None
        self._next = 0
        self._is_over = False

    def write(self, sample: int, start: int, rows: NDArray[Any]) -> None:
        """Keep rows until a unit is complete, and write that."""
        axis = 1 + self._predicted.slab_axis
        length = self._predicted.shape[1 + axis]
        before = (slice(None),) * axis
        taken = 0
        while taken < rows.shape[axis]:
            row = start + taken
            first = row - row % self._unit_rows
            stop = min(first + self._unit_rows, length)
            part = rows[(*before, slice(taken, taken + stop - row))]
            taken += part.shape[axis]
            self._take((sample, first), row, stop, part)

    def _take(self, unit: UnitKey, start: int, stop: int, part: NDArray[Any]) -> None:
        """Take rows of one unit, which ends at `stop`."""
        sample, first = unit
        slab_axis, axis = self._predicted.slab_axis, 1 + self._predicted.slab_axis
        expected = (self._unit, self._next) if self._unit else (unit, first)
        if (unit, start) != expected:
            raise ValueError(
                f"start must go on where rows ended: {start} of sample {sample} came, "
                f"{expected[1]} of sample {expected[0][0]} is next"
            )
        if part.shape[axis] == stop - first:
            self._put(unit, part)
            return
        if self._kept is None:
            shape = list(self._predicted.shape[1:])
            shape[axis] = self._unit_rows
            self._kept = np.empty(shape, self._predicted.dtype)
        put_rows(self._kept, slab_axis, start - first, part)
        self._unit, self._next = unit, start + part.shape[axis]
        if self._next == stop:
            self._put(unit, self._kept[(slice(None),) * axis + (slice(0, stop - first),)])
            self._unit = None

    def _put(self, unit: UnitKey, rows: NDArray[Any]) -> None:
        sample, first = unit
        slab_axis = self._predicted.slab_axis
        spatial = [slice(None)] * len(self._predicted.size)
        spatial[slab_axis] = slice(first, first + rows.shape[1 + slab_axis])
        outer = {"T": slice(sample, sample + 1), "C": slice(None)}
        key = tuple(outer[axis] for axis in self._axes if axis in outer)
        block = rows if "C" in self._axes else rows[0]
        self._array[(*key, *spatial)] = block[None] if "T" in self._axes else block
        self._writes.flush_folders()
        self._unfinished.record(unit)

    def finish(self) -> Path:
        """Make the other levels and put the image at its path, where this was the last rank."""
        if self._unit is not None:
            raise RuntimeError(
                f"rows of {self._path} are missing: {self._next} of sample {self._unit[0]} is next"
            )
        n_units = self._predicted.shape[0] * -(
            -self._predicted.size[self._predicted.slab_axis] // self._unit_rows
        )
        written = len(self._unfinished.units())  # 0 where another rank has just finished it
        if written < n_units and self._alone:
            raise RuntimeError(
                f"{n_units - written} of {n_units} units of {self._path} are missing"
            )
        if written == n_units and self._unfinished.finishing():
            self._fill_levels()
            self._writes.flush_folders()
            self._publish()
        self._is_over = True
        return self._path

    def _fill_levels(self) -> None:
        found = levels(self._predicted.size, self._predicted.calibration.physical_sizes)
        fine = self._array
        for i, level in enumerate(found[1:], 1):
            coarse = self._level(i)
            stored = stored_shape(self._storage.together(level.size), self._axes)
            make = without_others if self._predicted.is_labels else halve
            fill(fine, coarse, stored, make, self._unfinished.alive)
            fine = coarse

    def close(self) -> None:
        """Drop the rows of a unit that is not complete; complete units stay for resuming."""
        self._kept = self._unit = None
        self._writes.end()
        if self._alone and not self._is_over and not self._unfinished.units():
            self._unfinished.remove()
        self._is_over = True
        self._done()

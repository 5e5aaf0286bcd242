"""Predictions as NumPy arrays in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.predict.outputs.axes import put_rows, restore
from gpu_patch.predict.outputs.base import Output, Predicted, Store


class ArrayStore(Store):
    """NumPy arrays, in the axes of the images as given."""

    def open(self, predicted: Predicted) -> Output:
        """Make the array."""
        return ArrayOutput(predicted)


class ArrayOutput(Output):
    """An array that is being filled.

    Parameters
    ----------
    predicted : Predicted
        Its description.
    """

    def __init__(self, predicted: Predicted) -> None:
        self._predicted = predicted
        try:
            self._data = np.empty(predicted.shape, predicted.dtype)
        except MemoryError as error:
            raise MemoryError(
                f"the host has no room for the prediction of {predicted.source}: {error}. "
                "Give out, a path to write it to"
            ) from error

    def write(self, sample: int, start: int, rows: NDArray[Any]) -> None:
        """Copy rows."""
        put_rows(self._data[sample], self._predicted.slab_axis, start, rows)

    def finish(self) -> Any:
        """Return the array."""
        predicted = self._predicted
        return restore(self._data, predicted.original_axes, predicted.original_shape)

    def close(self) -> None:
        """Nothing is held that needs closing."""

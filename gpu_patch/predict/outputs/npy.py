"""Predictions as .npy files, in the axes of the images as given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpu_patch.predict.outputs.axes import restored_axes, restored_shape
from gpu_patch.predict.outputs.base import Predicted
from gpu_patch.predict.outputs.files import FileStore


class NpyStore(FileStore):
    """Files as `numpy.save` writes them."""

    def _create(self, path: Path, predicted: Predicted) -> tuple[np.memmap[Any, Any], str]:
        axes = predicted.original_axes
        shape = restored_shape(predicted.shape, axes, predicted.original_shape)
        image = np.lib.format.open_memmap(path, "w+", predicted.dtype, shape)
        return image, restored_axes(axes, predicted.shape[1])

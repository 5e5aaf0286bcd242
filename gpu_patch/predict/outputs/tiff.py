"""Predictions as OME-TIFF, by tifffile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpu_patch.predict.outputs._axes import merged_axes, merged_shape
from gpu_patch.predict.outputs._base import Predicted
from gpu_patch.predict.outputs._files import FileStore

_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


class TiffStore(FileStore):
    """OME-TIFF, not compressed, big where it has to be; S and T are one axis T."""

    def __init__(self, *args: Any, **options: Any) -> None:
        _tifffile()
        super().__init__(*args, **options)

    def _create(self, path: Path, predicted: Predicted) -> tuple[np.memmap[Any, Any], str]:
        if predicted.dtype.name not in _DTYPES:
            raise ValueError(
                f"OME-TIFF has no {predicted.dtype}, only {', '.join(_DTYPES)}: choose one of "
                "them, or the format 'ome-zarr' or 'npy'"
            )
        axes = merged_axes(predicted.original_axes, predicted.shape[1])
        metadata: dict[str, Any] = {"axes": axes, "Name": predicted.name}
        for axis in axes:
            if axis in predicted.physical_sizes:
                metadata[f"PhysicalSize{axis}"] = predicted.physical_sizes[axis]
                metadata[f"PhysicalSize{axis}Unit"] = "µm"
        image = _tifffile().memmap(
            path,
            shape=merged_shape(predicted.shape, axes),
            dtype=predicted.dtype,
            ome=True,
            photometric="minisblack",
            metadata=metadata,
        )
        return image, axes


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ImportError("writing TIFF needs tifffile: pip install 'gpu_patch[io]'") from error
    return tifffile

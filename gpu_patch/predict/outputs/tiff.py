"""Predictions as OME-TIFF, by tifffile."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from gpu_patch.optional import imported
from gpu_patch.predict.outputs.axes import merged_axes, merged_shape
from gpu_patch.predict.outputs.base import Predicted
from gpu_patch.predict.outputs.files import FileStore

_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


class TiffStore(FileStore):
    """OME-TIFF without compression, BigTIFF where it is large; S and T become one axis T."""

    def __init__(self, *args: Any, **options: Any) -> None:
        imported("tifffile", "writing TIFF")
        super().__init__(*args, **options)

    def _create(self, path: Path, predicted: Predicted) -> tuple[np.memmap[Any, Any], str]:
        if predicted.dtype.name not in _DTYPES:
            raise ValueError(
                f"OME-TIFF has no {predicted.dtype}, only {', '.join(_DTYPES)}: choose one of "
                "them, or the format 'ome-zarr' or 'npy'"
            )
        axes = merged_axes(predicted.original_axes, predicted.shape[1])
        shape = merged_shape(predicted.shape, axes)
        image = imported("tifffile", "writing TIFF").memmap(
            path,
            shape=shape,
            dtype=predicted.dtype,
            ome=True,
            photometric="minisblack",
            metadata=_metadata(predicted, axes, prod(shape[:-2])),
        )
        return image, axes


def _metadata(predicted: Predicted, axes: str, n_planes: int) -> dict[str, Any]:
    """Return the metadata that tifffile writes as OME-XML."""
    known = predicted.calibration
    metadata: dict[str, Any] = {"axes": axes, "Name": predicted.name}
    for axis, size in known.physical_sizes.items():
        if axis in axes:
            metadata[f"PhysicalSize{axis}"] = size
            metadata[f"PhysicalSize{axis}Unit"] = "µm"
    if predicted.time_interval is not None and "T" in axes:
        metadata |= {"TimeIncrement": predicted.time_interval, "TimeIncrementUnit": "s"}
    if predicted.notes:
        metadata["Description"] = json.dumps(predicted.notes)
    if predicted.channel_names:
        names = list(predicted.channel_names)
        metadata["Channel"] = {"Name": names if len(names) > 1 else names[0]}
    if known.origin:
        plane: dict[str, list[Any]] = {}
        metadata["Plane"] = plane
        for axis, at in known.origin.items():
            plane[f"Position{axis}"] = [at] * n_planes
            plane[f"Position{axis}Unit"] = ["µm"] * n_planes
    return metadata

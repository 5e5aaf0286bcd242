"""The metadata of an OME-Zarr 0.5 image: axes, pixel sizes, levels and channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_patch.predict.outputs.base import Predicted
from gpu_patch.predict.outputs.ome_zarr.multiscale import Level

VERSION = "0.5"

_KINDS = {"T": "time", "C": "channel"}


def image_attributes(predicted: Predicted, axes: str, levels: Sequence[Level]) -> dict[str, Any]:
    """Return the attributes of the group of an image, under the key "ome".

    Parameters
    ----------
    predicted : Predicted
        The image.
    axes : str
        Letters of "TCZYX", in this order.
    levels : sequence of Level
        The full resolution first; level i is the array with the path "i".
    """
    sizes = predicted.calibration.physical_sizes
    listed: list[dict[str, Any]] = []
    for axis in axes:
        listed.append({"name": axis.lower(), "type": _KINDS.get(axis, "space")})
        if axis in "ZYX" and (axis in sizes or axis in predicted.calibration.origin):
            listed[-1]["unit"] = "micrometer"
        elif axis == "T" and predicted.time_interval is not None:
            listed[-1]["unit"] = "second"
    datasets = [
        {"path": str(i), "coordinateTransformations": _transforms(predicted, axes, level)}
        for i, level in enumerate(levels)
    ]
    image = {"name": predicted.name, "axes": listed, "datasets": datasets}
    if len(levels) > 1:
        image["type"] = "nearest" if predicted.is_labels else "mean"
    found: dict[str, Any] = {"version": VERSION, "multiscales": [image]}
    if predicted.channel_names and "C" in axes:
        found["omero"] = {"channels": _channels(predicted)}
    return found


def _channels(predicted: Predicted) -> list[dict[str, Any]]:
    """Return the channels with the colour and range that the format wants beside their names."""
    whole = predicted.dtype.kind in "iu"
    limits = (np.iinfo(predicted.dtype).min, np.iinfo(predicted.dtype).max) if whole else (0, 1)
    low, high = map(float, limits)
    window = {"min": low, "max": high, "start": low, "end": high}
    return [
        {"label": name, "color": "FFFFFF", "window": window, "active": True}
        for name in predicted.channel_names
    ]


def _transforms(predicted: Predicted, axes: str, level: Level) -> list[dict[str, Any]]:
    spatial = [axis for axis in axes if axis in "ZYX"]
    factors = dict(zip(spatial, level.factor, strict=True))
    known = predicted.calibration
    size = {axis: float(known.physical_sizes.get(axis, 1.0)) for axis in spatial}
    if predicted.time_interval is not None:
        size["T"] = predicted.time_interval
    scale = [size.get(axis, 1.0) * factors.get(axis, 1) for axis in axes]
    found: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if known.origin or any(factor > 1 for factor in level.factor):
        # a coarse pixel is centred between the pixels that it is the mean of
        shift = [
            known.origin.get(axis, 0.0) + size.get(axis, 0.0) * (factors.get(axis, 1) - 1) / 2
            for axis in axes
        ]
        found.append({"type": "translation", "translation": shift})
    return found

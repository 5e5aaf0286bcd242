"""What OME-Zarr 0.5 says about an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_patch.predict.outputs._levels import Level

VERSION = "0.5"

_KINDS = {"T": "time", "C": "channel"}


def image_attributes(
    name: str, axes: str, physical_sizes: Mapping[str, float], levels: Sequence[Level]
) -> dict[str, Any]:
    """Return the attributes of the group of an image, under the key "ome".

    Parameters
    ----------
    name : str
        Name of the image.
    axes : str
        Letters of "TCZYX", in this order.
    physical_sizes : dict of str to float
        Size of a pixel in micrometres along those axes where it is known.
    levels : sequence of Level
        The full resolution first; level i is the array with the path "i".
    """
    listed: list[dict[str, Any]] = []
    for axis in axes:
        listed.append({"name": axis.lower(), "type": _KINDS.get(axis, "space")})
        if axis in "ZYX" and axis in physical_sizes:
            listed[-1]["unit"] = "micrometer"
    datasets = [
        {"path": str(i), "coordinateTransformations": _transforms(axes, physical_sizes, level)}
        for i, level in enumerate(levels)
    ]
    image = {"name": name, "axes": listed, "datasets": datasets}
    if len(levels) > 1:
        image["type"] = "mean"
    return {"version": VERSION, "multiscales": [image]}


def _transforms(
    axes: str, physical_sizes: Mapping[str, float], level: Level
) -> list[dict[str, Any]]:
    spatial = [axis for axis in axes if axis in "ZYX"]
    factors = dict(zip(spatial, level.factor, strict=True))
    size = {axis: float(physical_sizes.get(axis, 1.0)) for axis in spatial}
    scale = [size.get(axis, 1.0) * factors.get(axis, 1) for axis in axes]
    found: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if any(factor > 1 for factor in level.factor):
        # the centre of a coarse pixel lies between those of the pixels that it is the mean of
        shift = [size.get(axis, 0.0) * (factors.get(axis, 1) - 1) / 2 for axis in axes]
        found.append({"type": "translation", "translation": shift})
    return found

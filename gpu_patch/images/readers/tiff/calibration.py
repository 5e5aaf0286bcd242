"""Pixel sizes and times that TIFF files state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gpu_patch.images.readers.tiff.ome import (
    calibration,
    pixels_of,
)
from gpu_patch.images.readers.units import Calibration, is_length, micrometres, seconds

_RESOLUTION = ("XResolution", "YResolution", "ResolutionUnit")


def calibration_of(tiff: Any, scene: int) -> Calibration:
    """Return what a file says of one of its images, at full resolution."""
    if tiff.is_ome:
        found = pixels_of(tiff.ome_metadata)
        return calibration(found[scene]) if scene < len(found) else Calibration()
    if tiff.is_imagej and scene == 0:
        return _calibration_of_imagej(tiff.imagej_metadata or {}, tiff.pages[0].tags)
    return Calibration()


def _calibration_of_imagej(found: Mapping[str, Any], tags: Any) -> Calibration:
    values = {name: tags[name].value for name in _RESOLUTION if name in tags}
    unit = str(found.get("unit", ""))
    if not is_length(unit):
        # ImageJ writes inches and centimetres as the TIFF tag ResolutionUnit; 72 dots per inch is
        # that tag's default, and says nothing of the sample
        unit = {2: "inch", 3: "cm"}.get(int(values.get("ResolutionUnit", 1)), "")
        if unit == "inch" and values.get("XResolution") == (72, 1):
            unit = ""
    sizes: dict[str, tuple[Any, Any]] = {"Z": (found.get("spacing"), unit)}
    for axis in "YX":
        above, below = values.get(f"{axis}Resolution", (0, 1))
        sizes[axis] = (below / above if above else None, unit)  # pixels per unit
    interval = seconds(found.get("finterval"), found.get("tunit", "sec"))
    return Calibration(micrometres(sizes), time_interval=interval)


def of_level(full: Calibration, sizes: Mapping[str, int], level: Any) -> Calibration:
    """Return the calibration of a level of a pyramid, from that of the full resolution.

    Parameters
    ----------
    full : Calibration
        That of the full resolution.
    sizes : dict of str to int
        Pixels along each axis of the full resolution.
    level : tifffile.TiffPageSeries
        The level.
    """
    found = dict(full.physical_sizes)
    for axis, n in zip(level.axes, level.shape, strict=True):
        if axis in found and axis in sizes:
            factor = sizes[axis] / n
            whole = round(factor) or 1
            # of an odd length, the last pixel may have been dropped or kept: both are this factor
            is_whole = n in (sizes[axis] // whole, -(-sizes[axis] // whole))
            found[axis] *= whole if is_whole else factor
    return replace(full, physical_sizes=found)


def lengths(series: Any) -> dict[str, int]:
    """Return the length of each axis of a series."""
    return dict(zip(series.axes, map(int, series.shape), strict=True))

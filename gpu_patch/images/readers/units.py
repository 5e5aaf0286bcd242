"""Calibration of images: lengths in micrometres, times in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

_MICROMETRES = {
    "angstrom": 1e-4,
    "Å": 1e-4,
    "picometer": 1e-6,
    "pm": 1e-6,
    "nanometer": 1e-3,
    "nm": 1e-3,
    "micrometer": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00B5m": 1.0,
    "millimeter": 1e3,
    "mm": 1e3,
    "centimeter": 1e4,
    "cm": 1e4,
    "inch": 25_400.0,
    "inches": 25_400.0,
    "in": 25_400.0,
    "foot": 304_800.0,
    "ft": 304_800.0,
    "meter": 1e6,
    "m": 1e6,
}
_SECONDS = {
    "nanosecond": 1e-9,
    "ns": 1e-9,
    "microsecond": 1e-6,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "millisecond": 1e-3,
    "ms": 1e-3,
    "msec": 1e-3,
    "second": 1.0,
    "seconds": 1.0,
    "sec": 1.0,
    "s": 1.0,
    "minute": 60.0,
    "minutes": 60.0,
    "min": 60.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "hr": 3600.0,
    "h": 3600.0,
    "day": 86_400.0,
    "days": 86_400.0,
    "d": 86_400.0,
}


@dataclass(frozen=True)
class Calibration:
    """Where the pixels of an image are, and when they were recorded, as far as it is known.

    Attributes
    ----------
    physical_sizes : dict of str to float
        Size of a pixel along Z, Y and X in micrometres.
    origin : dict of str to float
        Position along Z, Y and X in micrometres, of the first pixel or the stage, as the file
        means it.
    time_interval : float or None
        Seconds from one time point to the next.
    """

    physical_sizes: Mapping[str, float] = field(default_factory=dict)
    origin: Mapping[str, float] = field(default_factory=dict)
    time_interval: float | None = None


def is_length(unit: object) -> bool:
    """Tell whether `micrometres` knows a unit."""
    return unit in _MICROMETRES


def micrometres(sizes: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
    """Return the sizes, given as numbers and units, that are lengths; others are left out."""
    return {axis: size for axis, size in positions(sizes).items() if size > 0}


def positions(found: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
    """Return the positions in micrometres, likewise; they may be 0 or less."""
    converted = {
        axis: _converted(number, unit, _MICROMETRES) for axis, (number, unit) in found.items()
    }
    return {axis: at for axis, at in converted.items() if at is not None}


def seconds(number: Any, unit: Any) -> float | None:
    """Return a time in seconds, None where it is none, or nothing."""
    time = _converted(number, unit, _SECONDS)
    return time if time is not None and time > 0 else None


def _converted(number: Any, unit: Any, factors: Mapping[str, float]) -> float | None:
    factor = factors.get(unit) if isinstance(unit, str) else None
    if factor is None:
        return None
    try:
        value = float(number) * factor
    except (TypeError, ValueError):
        return None
    return value if isfinite(value) else None

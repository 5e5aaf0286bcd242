"""Lengths in micrometres."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

_MICROMETRES = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "nm": 1e-3,
    "micrometer": 1.0,
    "micron": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00B5m": 1.0,
    "millimeter": 1e3,
    "mm": 1e3,
    "centimeter": 1e4,
    "cm": 1e4,
    "meter": 1e6,
    "m": 1e6,
}


def micrometres(sizes: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
    """Return the sizes, given as numbers and units, that are lengths; others are left out."""
    found = {}
    for axis, (number, unit) in sizes.items():
        factor = _MICROMETRES.get(unit) if isinstance(unit, str) else None
        try:
            size = float(number) * (factor or 0.0)
        except (TypeError, ValueError):
            continue
        if isfinite(size) and size > 0:
            found[axis] = size
    return found

"""From any order of axes to SC(Z)YX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpu_patch.errors import argument, instance

AXES = "STCZYX"


def checked_axes(axes: object, shape: tuple[int, ...]) -> str:
    """Return `axes` where it names each axis of `shape` once and has Y and X."""
    instance("axes", axes, str, f"a string of letters of {AXES!r}")
    assert isinstance(axes, str)
    name = argument("axes")
    unknown = sorted(set(axes) - set(AXES))
    if unknown:
        raise ValueError(f"{name} may have the letters {AXES!r}, found {axes!r} with {unknown}")
    if len(set(axes)) != len(axes):
        raise ValueError(f"{name} must name each axis once, found {axes!r}")
    if not {"Y", "X"} <= set(axes):
        raise ValueError(f"{name} must contain Y and X, found {axes!r}")
    if len(axes) != len(shape):
        guesses = likely_axes(shape)
        hint = f": {argument('axes', *guesses)}?" if guesses else ""
        raise ValueError(
            f"{name} must name every axis of the data: {axes!r} has {len(axes)} letters, the shape "
            f"{shape} has {len(shape)} axes{hint}"
        )
    return axes


def to_canonical(data: Any, axes: str) -> Any:
    """Return a view (a copy where S and T cannot be merged in place) with the axes SC(Z)YX."""
    present = [axis for axis in AXES if axis in axes]
    ordered = data.transpose([axes.index(axis) for axis in present])
    n_samples = sum(axis in "ST" for axis in present)
    ordered = ordered.reshape(-1, *ordered.shape[n_samples:]) if n_samples else ordered[None]
    return ordered if "C" in axes else ordered[:, None]


_COMMON = ("YX", "ZYX", "TYX", "CYX", "YXC", "SCYX", "TCYX", "TZYX", "CZYX", "ZCYX", "TYXC",
           "SCZYX", "TCZYX", "TZCYX", "TZYXC", "STCZYX")  # fmt: skip
_MOST_CHANNELS = 8


def likely_axes(shape: Sequence[int]) -> list[str]:
    """Return what the axes of a shape may be, at most three guesses."""
    fitting = []
    for axes in _COMMON:
        size = dict(zip(axes, shape, strict=False))
        plausible = size.get("C", 1) <= min(_MOST_CHANNELS, size.get("Y", 0), size.get("X", 0))
        if len(axes) == len(shape) and plausible:
            fitting.append(axes)
    # channels last are rare, unless the image would be as narrow as they are few
    last = bool(shape) and shape[-1] <= 4
    fitting.sort(key=lambda axes: axes.endswith("C") != last)
    return fitting[:3]

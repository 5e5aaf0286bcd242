"""From SC(Z)YX back to the axes of the image as given."""

from __future__ import annotations

from math import prod
from typing import Any

from gpu_patch.images._axes import AXES


def restored_axes(original_axes: str, n_channels: int) -> str:
    """Return the axes of a prediction: the image's own, with C where they need it.

    Parameters
    ----------
    original_axes : str
        Axes of the image as given.
    n_channels : int
        Channels of the model. Several where the image had no C come before (Z)YX.

    Examples
    --------
    >>> restored_axes("TYXC", 1), restored_axes("TZYX", 1), restored_axes("TZYX", 2)
    ('TYXC', 'TZYX', 'TCZYX')
    """
    if "C" in original_axes or n_channels == 1:
        return original_axes
    first = min(original_axes.index(axis) for axis in "ZYX" if axis in original_axes)
    return f"{original_axes[:first]}C{original_axes[first:]}"


def restore(data: Any, original_axes: str, original_shape: tuple[int, ...]) -> Any:
    """Return a view of SC(Z)YX with the axes of the image as given.

    Parameters
    ----------
    data : array
        C-contiguous, SC(Z)YX.
    original_axes, original_shape : str, tuple of int
        Of the image as given. Its S and T are what the samples are split into.
    """
    axes = restored_axes(original_axes, data.shape[1])
    outer = [length for axis, length in _samples(original_axes, original_shape)]
    inner = data.shape[1:] if "C" in axes else data.shape[2:]
    present = [axis for axis in AXES if axis in axes]
    return data.reshape(*outer, *inner).transpose([present.index(axis) for axis in axes])


def restored_shape(
    shape: tuple[int, ...], original_axes: str, original_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the shape that `restore` gives to data of a shape SC(Z)YX."""
    size = dict(_samples(original_axes, original_shape))
    size |= zip("CZYX" if "Z" in original_axes else "CYX", shape[1:], strict=True)
    assert shape[0] == prod(length for _, length in _samples(original_axes, original_shape))
    return tuple(size[axis] for axis in restored_axes(original_axes, shape[1]))


def _samples(axes: str, shape: tuple[int, ...]) -> list[tuple[str, int]]:
    """Return those of S and T that an image has, and their lengths, S first."""
    size = dict(zip(axes, shape, strict=True))
    return [(axis, size[axis]) for axis in "ST" if axis in size]

"""Axes of results: from SC(Z)YX, in which rows come, to those of the image or of a file."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.axes import AXES, to_canonical


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


def restored_shape(
    shape: tuple[int, ...], original_axes: str, original_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the shape that data of a shape SC(Z)YX have in the axes of the image as given."""
    size = _samples(original_axes, original_shape)
    if prod(size.values()) != shape[0]:
        raise ValueError(
            f"the shape {shape} has {shape[0]} samples, the image {original_shape} with the axes "
            f"{original_axes!r} has {prod(size.values())}"
        )
    size |= zip("CZYX" if "Z" in original_axes else "CYX", shape[1:], strict=True)
    return tuple(size[axis] for axis in restored_axes(original_axes, shape[1]))


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
    shape = dict(zip(axes, restored_shape(data.shape, original_axes, original_shape), strict=True))
    present = [axis for axis in AXES if axis in axes]
    split = data.reshape([shape[axis] for axis in present])
    return split.transpose([present.index(axis) for axis in axes])


def merged_axes(original_axes: str, n_channels: int) -> str:
    """Return the axes of a prediction in formats of OME, which know no S: it becomes part of T."""
    kept = restored_axes(original_axes, n_channels)
    merged = "T" if "S" in kept else ""
    return "".join(axis for axis in "TCZYX" if axis in kept + merged)


def merged_shape(shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """Return the shape that data of a shape SC(Z)YX have with such axes."""
    size = dict(zip("TCZYX" if len(shape) == 5 else "TCYX", shape, strict=True))
    return tuple(size[axis] for axis in axes)


def sample_of(data: NDArray[Any], axes: str, sample: int) -> NDArray[Any]:
    """Return a view C(Z)YX of one sample of data with any axes; S counts before T."""
    lengths = _samples(axes, data.shape)
    place = np.unravel_index(sample, tuple(lengths.values())) if lengths else ()
    of_axis = dict(zip(lengths, place, strict=True))
    part = data[tuple(of_axis.get(axis, slice(None)) for axis in axes)]
    found: NDArray[Any] = to_canonical(part, "".join(a for a in axes if a not in of_axis))[0]
    return found


def put_rows(sample: NDArray[Any], slab_axis: int, start: int, rows: NDArray[Any]) -> None:
    """Copy rows into a sample; both are C(Z)YX."""
    stop = start + rows.shape[1 + slab_axis]
    sample[(slice(None),) * (1 + slab_axis) + (slice(start, stop),)] = rows


def _samples(axes: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Return the lengths of S and T, of those that an image has."""
    size = dict(zip(axes, shape, strict=True))
    return {axis: size[axis] for axis in "ST" if axis in size}

"""Resolution levels: along an axis that is halved, a pixel is the mean of 2 of the level before.

Of labels it is the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

SMALLEST = 256
"""Levels are added while Y or X is longer."""

Halving: TypeAlias = Callable[[NDArray[Any], tuple[int, ...]], NDArray[Any]]

_PIECE_BYTES = 1 << 22


@dataclass(frozen=True)
class Level:
    """A resolution of an image.

    Attributes
    ----------
    size : tuple of int
        (Z)YX.
    factor : tuple of int
        How many pixels of the full resolution are one here, along each axis.
    """

    size: tuple[int, ...]
    factor: tuple[int, ...]


def levels(size: tuple[int, ...], physical_sizes: Mapping[str, float]) -> list[Level]:
    """Return the levels of an image, the full resolution first.

    Y and X are halved each time; Z where its pixel is known to be no longer than that of Y.

    Parameters
    ----------
    size : tuple of int
        (Z)YX.
    physical_sizes : dict of str to float
        Size of a pixel along Z and Y, where known.
    """
    found = [Level(size, (1,) * len(size))]
    while max(found[-1].size[-2:]) > SMALLEST:
        last = found[-1]
        factor = [f * 2 if n > 1 else f for n, f in zip(last.size, last.factor, strict=True)]
        if len(size) == 3:
            deep = {"Z", "Y"} <= set(physical_sizes)
            z, y = last.factor[:2]
            if not deep or z * physical_sizes["Z"] > y * physical_sizes["Y"]:
                factor[0] = z
        shorter = tuple(-(-n // f) for n, f in zip(size, factor, strict=True))
        found.append(Level(shorter, tuple(factor)))
    return found


def halve(data: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Return means of 2 pixels along axes; the last pixel of an odd length is taken alone.

    Whole numbers are rounded to the nearest, to the even one where two are as near.
    """
    # sums of 8 values of up to 16 bits are exact in float32
    mean = data.astype(np.result_type(data.dtype, np.float32), copy=False)
    for axis in axes:
        even = np.arange(0, mean.shape[axis], 2)
        odd = np.minimum(even + 1, mean.shape[axis] - 1)
        # halved before they are added: the sum of the largest numbers would be infinite
        mean = mean.take(even, axis) * mean.dtype.type(0.5) + mean.take(odd, axis) * (
            mean.dtype.type(0.5)
        )
    return (np.rint(mean) if data.dtype.kind in "iu" else mean).astype(data.dtype, copy=False)


def without_others(data: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Return every other pixel along axes, from the first on: labels have no mean."""
    return data[tuple(slice(None, None, 2 if axis in axes else 1) for axis in range(data.ndim))]


def fill(
    fine: Any, coarse: Any, stored: tuple[int, ...], make: Halving, alive: Callable[[], object]
) -> None:
    """Fill a level from the one before, in pieces of some chunks.

    Parameters
    ----------
    fine, coarse : zarr.Array
        The levels, of the same axes.
    stored : tuple of int
        Shape of what is stored together in `coarse`: its parts are written whole.
    make : callable
        Makes coarse pixels of fine ones, given the axes that are halved.
    alive : callable
        Called for each piece.
    """
    halved = [a for a, (m, n) in enumerate(zip(fine.shape, coarse.shape, strict=True)) if m != n]
    for region in _pieces(coarse.shape, stored, coarse.dtype.itemsize):
        source = list(region)
        for a in halved:
            stop = min(2 * region[a].stop, fine.shape[a])
            source[a] = slice(2 * region[a].start, stop)
        coarse[region] = make(np.asarray(fine[tuple(source)]), tuple(halved))
        alive()


def _pieces(
    shape: tuple[int, ...], stored: tuple[int, ...], itemsize: int
) -> Iterator[tuple[slice, ...]]:
    size = list(stored)
    for axis in reversed(range(len(shape))):
        room = _PIECE_BYTES // (prod(size) * itemsize)
        size[axis] = min(shape[axis], size[axis] * max(1, room))
    starts = [range(0, length, step) for length, step in zip(shape, size, strict=True)]
    for place in product(*starts):
        yield tuple(
            slice(start, min(start + step, length))
            for start, step, length in zip(place, size, shape, strict=True)
        )

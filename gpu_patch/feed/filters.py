"""Background filters: what tells cells of an image with signal from background.

Definitions and defaults are those of careamics 0.3.5 (`careamics.dataset.patch_filter`).
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from math import prod
from numbers import Real
from typing import Any

import numpy as np

from gpu_patch.checks import probability, shorten
from gpu_patch.device import library_of
from gpu_patch.ops.cells import count_marked, count_near, entropies, mean_and_deviation


class PatchFilter(ABC):
    """What tells cells with signal from background.

    Works on NumPy and CuPy arrays alike. Subclass it for a filter of your own.
    """

    @abstractmethod
    def scores(self, cells: Any) -> dict[str, Any]:
        """Measure cells.

        Parameters
        ----------
        cells : array, shape (N, (Z), Y, X)
            Cells of one channel.

        Returns
        -------
        dict of str to array, shape (N,)
            By the name of the parameter that it is compared with.
        """
        raise NotImplementedError

    def keeps(self, cells: Any) -> Any:
        """Tell which cells hold signal: those whose every score reaches the parameter of its name.

        Parameters
        ----------
        cells : array, shape (N, (Z), Y, X)
            Cells of one channel.

        Returns
        -------
        array of bool, shape (N,)
            Where `cells` are.
        """
        limits = ((score, getattr(self, name)) for name, score in self.scores(cells).items())
        return reduce(operator.and_, [score >= low for score, low in limits if low is not None])


@dataclass(frozen=True)
class MaxFilter(PatchFilter):
    """Keeps cells in which enough pixels are near one above a threshold.

    A pixel counts where the largest value of the box around it, half as long as the cell along
    each axis, is above the threshold; zeros are outside the cell. After careamics'
    `MaxPatchFilter`.

    NaN is below every threshold.

    Parameters
    ----------
    threshold : float
        In the images' units.
    coverage : float or None, default None
        Share of the pixels that must count, in [0, 1]; None is 1/4 in 2D and 1/8 in 3D.
    """

    threshold: float
    coverage: float | None = None

    def __post_init__(self) -> None:
        _check_number("threshold", self.threshold)
        if self.coverage is not None:
            probability("coverage", self.coverage)

    def scores(self, cells: Any) -> dict[str, Any]:
        """Return the largest value that enough pixels have near them."""
        xp, n = library_of(cells), _n_pixels(cells)
        numbers = xp.where(cells == cells, cells, -np.inf)  # NaN is the least
        filtered = _largest_nearby(numbers, 0).reshape(-1, n)
        too_few = int((np.arange(1, n + 1) / n < _coverage(self.coverage, cells)).sum())
        return {"threshold": xp.sort(filtered, axis=1)[:, n - 1 - too_few]}

    def keeps(self, cells: Any) -> Any:
        """Tell which cells have enough pixels near one above the threshold."""
        axes = _spatial_axes(cells)
        counted = count_near(cells, self.threshold)
        if counted is None:
            # some value exceeds the threshold exactly where the largest does
            near = _largest_nearby(cells > self.threshold, self.threshold < 0).sum(axis=axes)
            counted = near, (cells >= self.threshold).any(axis=axes)
        near, reaches = counted
        return (near / _n_pixels(cells) >= _coverage(self.coverage, cells)) & reaches


@dataclass(frozen=True)
class MeanStdFilter(PatchFilter):
    """Keeps cells of at least a mean, and of at least a standard deviation.

    After careamics' `MeanStdPatchFilter`. Cells with NaN are background.

    Parameters
    ----------
    mean_threshold : float
        Smallest mean.
    std_threshold : float or None, default None
        Smallest standard deviation (of the population), at least 0; None is any.
    """

    mean_threshold: float
    std_threshold: float | None = None

    def __post_init__(self) -> None:
        _check_number("mean_threshold", self.mean_threshold)
        if self.std_threshold is not None:
            _check_number("std_threshold", self.std_threshold, minimum=0)

    def scores(self, cells: Any) -> dict[str, Any]:
        """Return means and standard deviations."""
        axes = _spatial_axes(cells)
        measured = mean_and_deviation(cells)
        if measured is None:
            mean = cells.mean(axis=axes, dtype=np.float64)
            deviation = cells - mean.reshape(-1, *(1 for _ in axes))
            measured = mean, (deviation * deviation).mean(axis=axes) ** 0.5
        return dict(zip(("mean_threshold", "std_threshold"), measured, strict=True))


@dataclass(frozen=True)
class ShannonFilter(PatchFilter):
    """Keeps cells of at least an entropy.

    −Σ p log₂ p over the different values of a cell, p the share of its pixels that have one, after
    careamics' `ShannonPatchFilter` and scikit-image's `shannon_entropy`. All NaN are one value.

    Parameters
    ----------
    threshold : float
        Smallest entropy in bits, at least 0.
    """

    threshold: float

    def __post_init__(self) -> None:
        _check_number("threshold", self.threshold, minimum=0)

    def scores(self, cells: Any) -> dict[str, Any]:
        """Return entropies in bits."""
        xp, n = library_of(cells), _n_pixels(cells)
        measured = entropies(cells)
        if measured is not None:
            return {"threshold": measured}
        values = xp.sort(cells.reshape(-1, n), axis=1)
        before, after = values[:, :-1], values[:, 1:]
        is_first = xp.ones(values.shape, bool)
        # NaN are last, and equal nothing, themselves included
        is_first[:, 1:] = (before != after) & (before == before)
        first = xp.flatnonzero(is_first)
        last = xp.concatenate([first[1:], xp.full(1, values.size)])
        # values that occur equally often are taken together, as the CPU's kernel does
        cell_and_times, n_alike = xp.unique(first // n * (n + 1) + last - first, return_counts=True)
        share = cell_and_times % (n + 1) / n
        weights = n_alike * (share * xp.log2(share))
        bits = xp.bincount(cell_and_times // (n + 1), weights=weights, minlength=len(cells))
        return {"threshold": 0.0 - bits}


@dataclass(frozen=True)
class MaskFilter(PatchFilter):
    """Keeps cells of which a mask marks enough.

    Its images are masks: pixels that are not 0, NaN among them, are marked. After careamics'
    `MaskPatchFilter`.

    Parameters
    ----------
    coverage : float or None, default None
        Smallest share of marked pixels, in [0, 1]; None is 1/4 in 2D and 1/8 in 3D.
    """

    coverage: float | None = None

    def __post_init__(self) -> None:
        if self.coverage is not None:
            probability("coverage", self.coverage)

    def scores(self, cells: Any) -> dict[str, Any]:
        """Return shares of marked pixels."""
        axes, marked = _spatial_axes(cells), count_marked(cells)
        if marked is None:
            marked = (cells != 0).sum(axis=axes)
        return {"coverage": marked / _n_pixels(cells)}

    def keeps(self, cells: Any) -> Any:
        """Tell which cells have enough marked pixels."""
        return self.scores(cells)["coverage"] >= _coverage(self.coverage, cells)


def _check_number(name: str, value: object, minimum: float = -np.inf) -> None:
    at_least = "" if minimum == -np.inf else f" of at least {minimum}"
    wanted = f"{name} must be a finite number{at_least}, found {shorten(value)}"
    if not isinstance(value, Real):
        raise TypeError(wanted)
    if not minimum <= float(value) < np.inf or float(value) == -np.inf:
        raise ValueError(wanted)


def _coverage(coverage: float | None, cells: Any) -> float:
    return 0.5 ** (cells.ndim - 1) if coverage is None else coverage


def _spatial_axes(cells: Any) -> tuple[int, ...]:
    if cells.ndim not in (3, 4) or 0 in cells.shape[1:]:
        raise ValueError(
            "cells must have the axes N(Z)YX and at least one pixel each, found the shape "
            f"{tuple(cells.shape)}"
        )
    return tuple(range(1, cells.ndim))


def _n_pixels(cells: Any) -> int:
    return prod(cells.shape[axis] for axis in _spatial_axes(cells))


def _largest_nearby(cells: Any, outside: float) -> Any:
    """Return each pixel's largest value within a box of half the cell, given that outside it.

    As `scipy.ndimage.maximum_filter`: boxes of even length reach a pixel further to the start.
    """
    xp, found = library_of(cells), cells
    for axis in _spatial_axes(cells):
        length = max(1, cells.shape[axis] // 2)
        margins = [(0, 0)] * cells.ndim
        margins[axis] = (length // 2, length - 1 - length // 2)
        found = xp.pad(found, margins, constant_values=outside).swapaxes(axis, 0)
        reach = 1
        while reach < length:  # the largest of `reach` pixels from each on
            step = min(reach, length - reach)
            found = xp.maximum(found[:-step], found[step:])
            reach += step
        found = found.swapaxes(axis, 0)
    return found

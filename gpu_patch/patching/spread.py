"""How often patches should start where, so that they cover a grid of cells evenly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, reduce
from itertools import product
from math import prod
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_T = TypeVar("_T", bound=np.generic)

_POWERS = [1.5] * 40 + [1.0] * 3
"""Exponents of the steps of the search: those above 1 go faster, the last ones make it exact."""

_FARTHEST = 3
"""How many intervals apart two starts may be whose patches still share pixels."""

_NOISE = 1e-9
"""Parts of an area that are none."""

_TOLERANCE = 0.02
"""By how much a cell's mean coverage may fall short while searching."""

_TOGETHER = 1 << 18
"""Boxes of samples that are looked at in one go."""


class Axis:
    """Starts of patches along an axis: the first pixels of cells, and what lies between them.

    A patch that starts on a cell's first pixel covers that cell alone, from the others it reaches
    into the next. If the last cell is smaller, the last start is by itself too, since it alone
    covers that cell.

    Parameters
    ----------
    n_pixels, patch : int
        Of the axis.

    Attributes
    ----------
    first, size : array of int64, shape (n,)
        First start and number of starts of each interval, in order; a number can be 0.
    cells : array of int64, shape (2, n)
        First and last cell that patches of an interval touch.
    shares : array of float64, shape (2, n)
        What part of them a patch covers on average; 0 for the second where both are one.
    shared : array of float64, shape (7, n)
        Pixels that a patch of an interval shares on average with one of the interval 3 before it,
        2 before it, … 3 behind it. With others it shares none.
    cell_sizes : array of int64, shape (n_cells,)
        In pixels.
    reach : int
        Pixels of the image that a patch covers.
    """

    def __init__(self, n_pixels: int, patch: int) -> None:
        self.reach = min(n_pixels, patch)
        last = n_pixels - self.reach
        n_whole = last // patch
        first = np.arange(2 * n_whole + 1) // 2 * patch + np.arange(2 * n_whole + 1) % 2
        size = np.where(np.arange(len(first)) % 2, patch - 1, 1)
        if last % patch:
            first = np.append(first, [n_whole * patch + 1, last])
            size = np.append(size, [last % patch - 1, 1])
        self.first, self.size = first, size
        self.cell_sizes = np.minimum(patch, n_pixels - np.arange(0, n_pixels, patch))
        # starts per pixel that cover an axis once; one start where a patch is as long as the axis
        self.rate = 1 if n_pixels <= patch else 1 / patch
        cell = first // patch
        end_cell = (first + np.maximum(size, 1) + self.reach - 2) // patch
        offset = first - cell * patch + (size - 1) / 2
        self.cells = np.stack([cell, end_cell])
        self.shares = np.stack([1 - offset / self.reach, offset / self.cell_sizes[end_cell]])
        self._groups = np.flatnonzero(np.diff(cell, prepend=-1))
        self.shared = np.zeros((2 * _FARTHEST + 1, len(first)))
        for d in range(min(_FARTHEST + 1, len(first))):
            n = len(first) - d
            pixels = self._overlap(first[:n], first[d:], size[:n], size[d:])
            self.shared[_FARTHEST + d, :n] = self.shared[_FARTHEST - d, d:] = pixels

    def _overlap(
        self,
        first: NDArray[np.int64],
        other: NDArray[np.int64],
        size: NDArray[np.int64],
        other_size: NDArray[np.int64],
    ) -> Floats:
        """Return the pixels that patches of two intervals share on average.

        Two patches share max(0, reach − |difference of starts|), a sum of three ramps. A ramp
        summed over both intervals is a difference of its double sums.
        """
        total = np.zeros(len(first))
        for shift, weight in ((self.reach, 1), (0, -2), (-self.reach, 1)):
            top = first + size - 1 - other + shift
            for corner, sign in ((0, 1), (size, -1), (other_size, -1), (size + other_size, 1)):
                ramp = np.maximum(top - corner, 0).astype(float)
                total += weight * sign * ramp * (ramp + 1) * (ramp + 2) / 6
        mean: Floats = total / np.maximum(size * other_size, 1)
        return mean

    def overlap(self, mass: Floats) -> Floats:
        """Return the pixels that patches of each interval share with all those of `mass`."""
        shared = self.shared.reshape(*self.shared.shape, *[1] * (mass.ndim - 1))
        found: Floats = mass * shared[_FARTHEST]
        for d in range(1, min(_FARTHEST + 1, len(mass))):
            found[:-d] += shared[_FARTHEST + d, :-d] * mass[d:]
            found[d:] += shared[_FARTHEST - d, d:] * mass[:-d]
        return found

    def cover(self, mass: Floats) -> Floats:
        """Return the mean coverage of cells, (n_cells, ...), by `mass` of intervals, (n, ...)."""
        found = np.zeros((len(self.cell_sizes), *mass.shape[1:]))
        first, second = (
            np.add.reduceat(mass * share.reshape(-1, *[1] * (mass.ndim - 1)), self._groups)
            for share in self.shares
        )
        found[: len(first)] = first
        found[1 : len(second) + 1] += second[: len(found) - 1]
        return found


class Spread:
    """Boxes of starts in a sample, and how patches are best spread over them.

    All starts of a box touch the same cells.

    Parameters
    ----------
    shape, patch_size : sequence of int
        (Z)YX.

    Attributes
    ----------
    axes : list of Axis
        Boxes are the product of their intervals.
    areas : array of float64, shape (cells of the grid)
        Pixels of each cell.
    patch_area : int
        Pixels of the image that a patch covers.
    """

    def __init__(self, shape: Iterable[int], patch_size: Iterable[int]) -> None:
        self.axes = [Axis(n, p) for n, p in zip(shape, patch_size, strict=True)]
        self.areas = _product(axis.cell_sizes for axis in self.axes)
        self.patch_area = prod(axis.reach for axis in self.axes)
        self._counts = _product(axis.size for axis in self.axes)
        self._rate = prod(axis.rate for axis in self.axes)

    def allowed(self, excluded: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which boxes touch no excluded cell, (..., boxes of the grid)."""
        free = ~excluded
        for i, axis in enumerate(self.axes, excluded.ndim - len(self.axes)):
            free = free.take(axis.cells[0], i) & free.take(axis.cells[1], i)
        return free & (self._counts > 0)

    def at_corners(self, values: NDArray[_T]) -> NDArray[_T]:
        """Return cells' `values` for the cell that each box of starts lies in."""
        for i, axis in enumerate(self.axes):
            values = values.take(axis.cells[0], i)
        return values

    @cached_property
    def lined_up(self) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
        """The order of boxes cell by cell, and each one's first start and size, both (n, D)."""
        cells = np.arange(self.areas.size).reshape(self.areas.shape)
        order = np.argsort(self.at_corners(cells), axis=None, kind="stable")
        first, size = (
            np.stack(np.meshgrid(*columns, indexing="ij"), axis=-1).reshape(len(order), -1)[order]
            for columns in ([a.first for a in self.axes], [a.size for a in self.axes])
        )
        return order, first, size

    def masses(self, excluded: NDArray[np.bool_]) -> Floats:
        """Return the expected number of patches in each box that covers most evenly.

        Every start that is allowed has its part of a uniform distribution, one patch per area
        of a patch, which covers nothing more than once. What coverage lacks of 1 after that is
        made up by least squares over the pixels, so that no cell's mean coverage is lower than
        uniform starts would make it, as far as that is below 1. A cell that no patch shares with
        others has one patch.

        Parameters
        ----------
        excluded : array of bool, shape (S, cells of the grid)
            Of S samples.

        Returns
        -------
        array of float64, shape (S, boxes of the grid)
            Masses; their sum covers once what patches can reach.
        """
        kinds: dict[bytes, int] = {}
        kind = [kinds.setdefault(sample.tobytes(), len(kinds)) for sample in excluded]
        distinct = excluded[np.unique(kind, return_index=True)[1]]
        step = max(1, _TOGETHER // self._counts.size)
        parts = [distinct[i : i + step] for i in range(0, len(distinct), step)]
        return np.concatenate([self._even(part) for part in parts])[kind]

    def _even(self, excluded: NDArray[np.bool_]) -> Floats:
        free = self.allowed(excluded)
        starts = np.where(free, self._counts, 0.0)
        mass = starts * self._rate
        by_itself = starts * (self._overlap(free.astype(float)) < self.patch_area * (1 + _NOISE))
        mass[by_itself == 1] = 1
        covered = self._cover(starts)
        total = _total(np.where(covered > 0, self.areas, 0.0)) / self.patch_area
        uniform = covered * np.divide(
            total, _total(starts), out=np.zeros_like(total), where=total > 0
        )
        floor = np.minimum(uniform, 1) - _TOLERANCE - self._cover(mass)
        # how much coverage the pixels of a patch at each start still lack
        lack = self.patch_area - self._overlap(mass)
        where = np.nonzero(free & (lack > _NOISE * self.patch_area))
        if len(where[0]):
            search = _Search(self, where, free.shape, lack[where], floor)
            mass[where] += search.run(np.sqrt(mass[where]), (total - _total(mass)).ravel())
        return mass

    def _cover(self, boxes: Floats) -> Floats:
        return self._by_axis([axis.cover for axis in self.axes], boxes)

    def _overlap(self, boxes: Floats) -> Floats:
        return self._by_axis([axis.overlap for axis in self.axes], boxes)

    def _by_axis(self, functions: list[Callable[[Floats], Floats]], values: Floats) -> Floats:
        for i, function in enumerate(functions, 1):
            values = function(values.swapaxes(i, 0)).swapaxes(i, 0)
        return values


class _Search:
    """Least squares for the masses of those boxes where coverage lacks.

    By multiplicative updates for problems without negative numbers (Lee and Seung, "Algorithms
    for non-negative matrix factorization", 2001), with multipliers for cells that fall short.

    Parameters
    ----------
    spread : Spread
        Of the boxes.
    where : tuple of array of int64, shape (n,)
        Sample of each box, and its position along each axis.
    shape : tuple of int
        Of all boxes, samples first.
    lack : array of float64, shape (n,)
        Pixels that a box's patches are to share with those of all boxes.
    floor : array of float64, shape (S, cells of the grid)
        What the mean coverage of cells must reach at least.
    """

    def __init__(
        self,
        spread: Spread,
        where: tuple[NDArray[np.intp], ...],
        shape: tuple[int, ...],
        lack: Floats,
        floor: Floats,
    ) -> None:
        self._sample, *at = where
        self._lack, self._floor = lack, floor.ravel()
        self._area = np.broadcast_to(spread.areas, floor.shape).ravel()
        number = np.full(shape, -1)
        number[where] = np.arange(len(self._sample))
        neighbours, shared = [], []
        for offsets in product(range(-_FARTHEST, _FARTHEST + 1), repeat=len(at)):
            weight: Floats | float = 1.0
            beside = [self._sample]
            for axis, position, d in zip(spread.axes, at, offsets, strict=True):
                weight = weight * axis.shared[_FARTHEST + d][position]
                beside.append(np.clip(position + d, 0, len(axis.first) - 1))
            neighbour = number[tuple(beside)]
            weight = np.where(neighbour < 0, 0.0, weight)
            if weight.any():
                neighbours.append(np.maximum(neighbour, 0))
                shared.append(weight)
        self._neighbours, self._shared = np.stack(neighbours), np.stack(shared)
        cells, shares = [], []
        for ends in product((0, 1), repeat=len(at)):
            cell, share = self._sample, np.ones(len(self._sample))
            for axis, position, end in zip(spread.axes, at, ends, strict=True):
                cell = cell * len(axis.cell_sizes) + axis.cells[end][position]
                share = share * axis.shares[end][position]
            cells.append(cell)
            shares.append(share)
        self._cells, self._shares = np.stack(cells), np.stack(shares)

    def run(self, mass: Floats, totals: Floats) -> Floats:
        """Return the masses found from a first guess, which sum to `totals` in each sample."""
        multipliers = np.zeros(len(self._floor))
        for power in _POWERS:
            covered = np.bincount(
                self._cells.ravel(), (self._shares * mass).ravel(), len(multipliers)
            )
            multipliers = np.maximum(multipliers + self._area * (self._floor - covered), 0)
            wanted = self._lack + (self._shares * multipliers[self._cells]).sum(axis=0)
            there = np.einsum("kn,kn->n", self._shared, mass[self._neighbours])
            mass = (
                mass * np.divide(wanted, there, out=np.zeros_like(there), where=there > 0) ** power
            )
            found = np.bincount(self._sample, mass, len(totals))
            mass *= np.divide(totals, found, out=np.zeros_like(found), where=found > 0)[
                self._sample
            ]
        return mass


def _product(factors: Iterable[NDArray[np.int64]]) -> Floats:
    found: Floats = reduce(np.multiply.outer, (factor.astype(float) for factor in factors))
    return found


def _total(masses: Floats) -> Floats:
    total: Floats = masses.sum(axis=tuple(range(1, masses.ndim)), keepdims=True)
    return total

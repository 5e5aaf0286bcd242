"""Which of the places of patches to hold out: whole images first, then a compact block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.patching.footprint import Places

Counts = NDArray[np.int64]

_SIDES = 12
"""Lengths of a block's side that are tried, along all axes but the last."""
_SAMPLES = 8
"""Samples among which the one where a block costs least is looked for."""
_ENOUGH = 0.75
"""Part of a fraction that whole images fill, with which no block is taken beside them."""


class Holdout(NamedTuple):
    """What is held out.

    Attributes
    ----------
    samples : list of int
        Those that are held out as a whole.
    chosen : array of int64
        The places that are held out, of these samples and of a block.
    """

    samples: list[int]
    chosen: NDArray[np.int64]


def hold_out(
    places: Places,
    image_of: NDArray[np.int64],
    n_wanted: int,
    ring: Sequence[int],
    rng: np.random.Generator,
    *,
    exact: bool,
) -> Holdout | None:
    """Choose places to hold out, so that little is lost around them.

    Parameters
    ----------
    places : Places
        That may be chosen.
    image_of : array of int64
        Image stack of each sample.
    n_wanted : int
        How many; fewer than there are.
    ring : sequence of int
        Pixels around a patch that are lost with it, per axis.
    rng : numpy.random.Generator
        Decides among what costs the same.
    exact : bool
        Whether it must be `n_wanted`, or may be somewhat fewer.

    Returns
    -------
    Holdout or None
        None where no sample has room for what is left beside whole ones.
    """
    counts = np.bincount(places.sample, minlength=len(image_of))
    samples = _whole_samples(counts, image_of, n_wanted, rng)
    chosen = [np.flatnonzero(np.isin(places.sample, samples))]
    rest = n_wanted - len(chosen[0])
    if rest and (exact or len(chosen[0]) < _ENOUGH * n_wanted):
        free = [s for s in rng.permutation(len(counts)).tolist() if s not in samples]
        # in a series, the neighbour of what is held out
        free.sort(key=lambda s: s + 1 not in samples or image_of[s] != image_of[s + 1])
        blocks = [
            _block(places, s, rest, ring, rng) for s in free if counts[s] > rest
        ][:_SAMPLES]  # fmt: skip
        found = [block for block in blocks if block is not None]
        if not found:
            return None
        chosen.append(min(found, key=lambda block: block[0])[1])
    return Holdout(samples, np.concatenate(chosen))


def _whole_samples(
    counts: Counts, image_of: NDArray[np.int64], n_wanted: int, rng: np.random.Generator
) -> list[int]:
    """Return samples with no more places than wanted: of whole image stacks, then of one."""
    rest, held = n_wanted, []
    order = rng.permutation(int(image_of.max()) + 1).tolist()
    for image in order:
        total = int(counts[image_of == image].sum())
        if 0 < total <= rest:
            held += np.flatnonzero(image_of == image).tolist()
            rest -= total
    for image in order:
        samples = [s for s in np.flatnonzero(image_of == image).tolist() if s not in held]
        if not rest or len(samples) < 2:
            continue
        # the last ones of a series, which follow each other
        while samples and counts[samples[-1]] <= rest:
            rest -= int(counts[samples[-1]])
            held.append(samples.pop())
        break
    return sorted(held)


def _block(
    places: Places, sample: int, n_wanted: int, ring: Sequence[int], rng: np.random.Generator
) -> tuple[int, NDArray[np.int64]] | None:
    """Return what a compact block in a sample costs, in places, and the places in it."""
    (inside,) = np.nonzero(places.sample == sample)
    size = places.sizes[inside].max(axis=0)
    cells = np.maximum(places.coords[inside], 0) // size
    grid = np.zeros(cells.max(axis=0) + 1, np.int64)
    np.add.at(grid, tuple(cells.T), 1)
    lost = tuple(ceil(r / s) for r, s in zip(ring, size.tolist(), strict=True))
    table = _Sums(grid)
    best: tuple[float, float, NDArray[np.int64], NDArray[np.int64]] | None = None
    for box in _boxes(table, n_wanted):
        held = table.of_boxes(box)
        cost = np.where(held >= n_wanted, table.of_boxes(box, lost), np.inf)
        # among equals, anywhere
        cost = cost + rng.random(cost.shape) / 2
        at = np.unravel_index(int(cost.argmin()), cost.shape)
        if best is None or cost[at] < best[0]:
            best = float(cost[at]), float(held[at]), np.array(at), np.array(box)
    if best is None:
        return None
    cost_of_best, _, first, box_size = best
    within = ((cells >= first) & (cells < first + box_size)).all(axis=1)
    return int(cost_of_best) - n_wanted, inside[within][:n_wanted]


def _boxes(table: _Sums, n_wanted: int) -> Iterator[tuple[int, ...]]:
    """Yield sizes of boxes that hold enough places somewhere, as small as they can be."""
    *others, last = table.shape
    usual = n_wanted ** (1 / len(table.shape))
    sides = []
    for n in others:
        near = np.geomspace(max(1, usual / 4), max(1, usual * 4), _SIDES).round().astype(int)
        sides.append(sorted({1, n, *(int(side) for side in near if side <= n)}))
    for side in product(*sides):
        low, high = 1, last
        if table.most((*side, high)) < n_wanted:
            continue
        while low < high:  # the smallest last side that will do
            middle = (low + high) // 2
            if table.most((*side, middle)) >= n_wanted:
                high = middle
            else:
                low = middle + 1
        yield (*side, low)


class _Sums:
    """Sums over boxes of a grid, by its summed-area table.

    Parameters
    ----------
    grid : array of int64
        Counts.
    """

    def __init__(self, grid: Counts) -> None:
        self.shape = grid.shape
        self._table = np.pad(grid, [(1, 0)] * grid.ndim)
        for axis in range(grid.ndim):
            self._table = self._table.cumsum(axis)

    def of_boxes(self, size: Sequence[int], ring: Sequence[int] | None = None) -> Counts:
        """Return the sums of the boxes of a size, by first cell, with the cells around them."""
        bounds = []
        for n, s, r in zip(self.shape, size, ring or (0,) * len(size), strict=True):
            first = np.arange(n - s + 1)
            bounds.append((np.maximum(first - r, 0), np.minimum(first + s + r, n)))
        total = np.zeros([len(low) for low, _ in bounds], np.int64)
        for ends in product((0, 1), repeat=len(bounds)):
            corner = np.ix_(*(bound[end] for bound, end in zip(bounds, ends, strict=True)))
            total += (-1) ** (len(ends) - sum(ends)) * self._table[corner]
        return total

    def most(self, size: Sequence[int]) -> int:
        """Return the largest sum of a box of a size."""
        return int(self.of_boxes(size).max())

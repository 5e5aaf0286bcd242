"""Which patches come when, and to whom: the order of an epoch, and its division among processes.

Both are functions of a few numbers, so that any process finds any batch without the others, and
goes on from anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from gpu_patch.constructors import PatchConstr
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.draws import DrawPurpose, DrawSpec
from gpu_patch.ops.draws import CounterDraws

_KEYS = [DrawSpec(DrawPurpose.ORDER, 0, 1)]
_BLOCK_KEYS = [DrawSpec(DrawPurpose.ORDER, 1, 1)]
_BLOCKS_IN_WINDOW = (8, 4, 2, 1)
_MOST_READ = 1.5
"""How often a pixel may be read in an epoch, on average, before boxes are made larger."""


def epoch_order(
    n_patches: int,
    seed: int,
    epoch: int,
    *,
    shuffle: bool,
    blocks: NDArray[np.int64] | None = None,
    window: float = 0.0,
) -> NDArray[np.int64]:
    """Return the indices of all patches in the order of an epoch.

    Sorted by random keys, which are the same on every machine: NumPy does not promise that of its
    generators' `permutation`.

    Parameters
    ----------
    n_patches, seed, epoch : int
        What the order is a function of, with what follows.
    shuffle : bool
        Whether the order is random.
    blocks : array of int64, shape (n_patches,), or None
        Number of the block that each patch belongs to. Blocks then begin one after the other, in
        random order, and the patches of each are spread at random over a window from its
        beginning on. So at any time patches come from the blocks that began within the last
        window.
    window : float, default 0
        Length of the window as a part of the epoch, but at least a block's own number of patches;
        at 0 a block ends before the next one begins.
    """
    index = np.arange(n_patches)
    if not shuffle or n_patches == 0:
        return index
    keys = _uniform(_KEYS, seed, epoch, n_patches)
    if blocks is None or not n_patches:
        return np.argsort(keys, kind="stable")
    sizes = np.bincount(blocks)
    order = np.argsort(_uniform(_BLOCK_KEYS, seed, epoch, len(sizes)), kind="stable")
    begin = np.empty(len(sizes), np.int64)
    begin[order] = np.cumsum(sizes[order]) - sizes[order]
    spread = np.maximum(sizes, window * n_patches)
    return np.argsort(begin[blocks] + keys * spread[blocks], kind="stable")


def _uniform(draw_specs: Sequence[DrawSpec], seed: int, epoch: int, n: int) -> NDArray[np.float64]:
    (keys,) = CounterDraws(draw_specs)(seed, epoch, np.arange(n))
    first: NDArray[np.float64] = keys[0]
    return first


def image_numbers(sites: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the block of each patch where every image is one; see `block_numbers`."""
    return np.unique(sites[:, 0], return_inverse=True)[1]


def sites_of(constructor: PatchConstr) -> NDArray[np.int64]:
    """Return roughly where every patch lies, (n_patches, 2 + D): image, sample, first pixel."""
    if isinstance(constructor, PlannedConstr):
        return constructor.sampling.principal.sites()
    # somebody's own constructor tells images alone
    shapes = constructor.input_shapes
    sites = np.zeros((constructor.n_patches, len(shapes[0])), np.int64)
    for image in range(len(shapes)):
        sites[list(constructor.get_patch_indices(image)), 0] = image
    return sites


def n_blocks(shapes: Sequence[Sequence[int]], window_size: Sequence[int], window: float) -> int:
    """Return how many boxes to cut images into, so that `window` of them are a few boxes.

    Many boxes make an order more random. But patches read beyond their box, which is read again
    for its neighbours: so boxes are not made so small that this would be most of it.

    Parameters
    ----------
    shapes : sequence of sequence of int
        SC(Z)YX of every image.
    window_size : sequence of int
        (Z)YX that a patch reads.
    window : float
        Part of the images that patches are taken from at a time.
    """
    volumes = [shape[0] * prod(shape[2:]) for shape in shapes]
    for in_window in _BLOCKS_IN_WINDOW:
        n = ceil(in_window / window)
        read = 0.0
        for shape, volume in zip(shapes, volumes, strict=True):
            sides = [
                s / g for s, g in zip(shape[2:], _grid(shape[2:], sum(volumes) / n), strict=True)
            ]
            read += volume * prod(
                min(size, side + reach) / side
                for size, side, reach in zip(shape[2:], sides, window_size, strict=True)
            )
        if read <= _MOST_READ * sum(volumes):
            break
    return n


def block_numbers(
    sites: NDArray[np.int64], shapes: Sequence[Sequence[int]], n_blocks: int
) -> NDArray[np.int64]:
    """Cut images into boxes of about one size, and number them.

    Parameters
    ----------
    sites : array of int64, shape (n, 2 + D)
        Image, sample and first pixel of each patch.
    shapes : sequence of sequence of int
        SC(Z)YX of every image.
    n_blocks : int
        About how many boxes there are to be; a sample is at least one.

    Returns
    -------
    array of int64, shape (n,)
        Number of the box in which each patch begins; boxes without any have none.
    """
    total = sum(shape[0] * prod(shape[2:]) for shape in shapes)
    grids = np.array([_grid(shape[2:], total / n_blocks) for shape in shapes])
    sizes = np.array([shape[2:] for shape in shapes])
    image, sample, coords = sites[:, 0], sites[:, 1], sites[:, 2:]
    cell = np.clip(coords * grids[image] // sizes[image], 0, grids[image] - 1)
    # every box of every sample of every image, end to end
    per_sample = grids.prod(axis=1)
    per_image = per_sample * np.array([shape[0] for shape in shapes])
    number = (np.cumsum(per_image) - per_image)[image] + per_sample[image] * sample
    for axis in range(cell.shape[1]):
        number += cell[:, axis] * grids[image][:, axis + 1 :].prod(axis=1)
    return np.unique(number, return_inverse=True)[1]


def _grid(size: Sequence[int], volume: float) -> list[int]:
    """Halve the longest side until a box has at most this volume."""
    grid = [1] * len(size)
    while prod(n / g for n, g in zip(size, grid, strict=True)) > volume:
        sides = [n / g for n, g in zip(size, grid, strict=True)]
        if max(sides) <= 1:
            break
        grid[sides.index(max(sides))] *= 2
    return grid


@dataclass(frozen=True)
class Division:
    """Cuts the positions first … stop − 1 of an epoch into steps, and each step among ranks.

    A step takes the next world_size · batch_size positions, batch_size for each rank. The last
    one takes what is left, divided evenly; where that would not do for all ranks, the step before
    takes it too, and some batches have one patch more. So all ranks make the same number of steps:
    where they exchange gradients, one that made more would wait for the others forever.

    Attributes
    ----------
    first, stop : int
        Positions.
    batch_size : int
        Of one rank.
    world_size : int
        Number of ranks, at most stop − first unless there is nothing to divide.
    drop_last : bool
        Whether to leave out what does not fill a step.
    """

    first: int
    stop: int
    batch_size: int
    world_size: int
    drop_last: bool

    @cached_property
    def n_steps(self) -> int:
        """Number of steps, the same for every rank."""
        full, left = divmod(self.stop - self.first, self._step_size)
        return full + (left >= self.world_size and not self.drop_last)

    def position(self, step: int) -> int:
        """Return where a step begins; at `n_steps`, where the last one ends."""
        if step == self.n_steps and not self.drop_last:
            return self.stop
        return self.first + step * self._step_size

    def part(self, step: int, rank: int) -> tuple[int, int]:
        """Return the first and the last + 1 position of a rank's batch."""
        begin, end = self.position(step), self.position(step + 1)
        each, more = divmod(end - begin, self.world_size)
        first = begin + rank * each + min(rank, more)
        return first, first + each + (rank < more)

    def step_of(self, rank: int) -> NDArray[np.int64]:
        """Return at which step a rank takes each of the positions 0 … stop − 1; −1 for never."""
        found = np.full(self.stop, -1, np.int64)
        n_steps, size = self.n_steps, self.batch_size
        if not n_steps:
            return found
        # all steps but the last are of one size
        stop = self.position(n_steps - 1)
        regular = found[self.first : stop].reshape(n_steps - 1, self.world_size, size)
        regular[:, rank] = np.arange(n_steps - 1)[:, None]
        found[slice(*self.part(n_steps - 1, rank))] = n_steps - 1
        return found

    @property
    def _step_size(self) -> int:
        return self.batch_size * self.world_size

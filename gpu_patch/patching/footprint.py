"""Where the patches of strategies lie, or may lie, in every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.patching.base import BatchPatching
from gpu_patch.patching.protocol import Patching
from gpu_patch.patching.random import FixedRandomPatching, RandomPatching
from gpu_patch.patching.region import RegionPatching
from gpu_patch.patching.stratified import StratifiedPatching
from gpu_patch.patching.subset import SubsetPatching
from gpu_patch.patching.table import FixedPatching, WholeSamplePatching
from gpu_patch.tiling import sequential_starts

Drawing = RandomPatching | RegionPatching | StratifiedPatching
"""Strategies that draw places, but for `FixedRandomPatching`, which does so once."""
Shapes = Sequence[tuple[int, ...]]
"""SC(Z)YX of each image stack."""


class Places(NamedTuple):
    """Places of patches, n of them.

    Attributes
    ----------
    sample : array of int64, shape (n,)
        Position among the samples of all image stacks.
    coords, sizes : array of int64, shape (n, D)
        First pixels, and sizes of patches.
    """

    sample: NDArray[np.int64]
    coords: NDArray[np.int64]
    sizes: NDArray[np.int64]


def draws(strategy: Patching) -> bool:
    """Tell whether a strategy draws places, rather than listing them."""
    return isinstance(strategy, Drawing) and not isinstance(strategy, FixedRandomPatching)


def candidates(strategy: BatchPatching, shapes: Shapes) -> Places:
    """Return the places that validation patches may have: listed ones, or ones side by side."""
    if not draws(strategy):
        return _listed(strategy, shapes)
    assert isinstance(strategy, Drawing)
    size = np.array(strategy.patch_size)
    samples, coords = [], []
    for sample, shape in enumerate(_spatial(shapes)):
        axes = [sequential_starts(n, p, 0) for n, p in zip(shape, size.tolist(), strict=True)]
        corners = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
        if not isinstance(strategy, RandomPatching):
            corners = corners[_in_boxes(corners, strategy.start_boxes(sample))]
        samples.append(np.full(len(corners), sample))
        coords.append(corners)
    found = np.concatenate(coords)
    return Places(np.concatenate(samples), found, np.broadcast_to(size, found.shape))


def covered(strategy: Patching, shapes: Shapes) -> Mapping[int, NDArray[np.int64]]:
    """Return what patches lie on or may lie on, by sample: boxes (n, 2, D) of first and stop."""
    if isinstance(strategy, RegionPatching | StratifiedPatching):
        found = {}
        for sample in range(sum(shape[0] for shape in shapes)):
            first, size = strategy.start_boxes(sample).swapaxes(0, 1)
            found[sample] = np.stack([first, first + size - 1 + strategy.patch_size], axis=1)
        return found
    assert isinstance(strategy, BatchPatching)
    places = _listed(strategy, shapes)
    boxes = np.stack([places.coords, places.coords + places.sizes], axis=1)
    return {int(sample): boxes[places.sample == sample] for sample in np.unique(places.sample)}


def paint(
    shape: Sequence[int], layers: Sequence[tuple[NDArray[np.int64], int]]
) -> tuple[list[NDArray[np.int64]], NDArray[np.uint8]]:
    """Paint boxes onto an image without making one.

    Parameters
    ----------
    shape : sequence of int
        (Z)YX.
    layers : sequence of (array of int64, int)
        Boxes (n, 2, D) of first and stop, and their value; later ones cover earlier ones.

    Returns
    -------
    cuts : list of array of int64
        Along each axis: the image is cut there.
    painted : array of uint8
        The value of each piece, 0 where there is no box.
    """
    clipped = [np.clip(boxes, 0, np.array(shape)) for boxes, _ in layers]
    cuts = [
        np.unique(np.concatenate([[0, n], *(boxes[..., axis].ravel() for boxes in clipped)]))
        for axis, n in enumerate(shape)
    ]
    if prod(map(len, cuts)) > prod(shape):  # many boxes at odd places
        cuts = [np.arange(n + 1) for n in shape]
    painted = np.zeros([len(cut) - 1 for cut in cuts], np.uint8)
    for boxes, (_, value) in zip(clipped, layers, strict=True):
        steps = np.zeros([len(cut) for cut in cuts], np.int64)
        ends = [cut.searchsorted(boxes[..., axis]) for axis, cut in enumerate(cuts)]
        for corner in np.ndindex(*(2,) * len(cuts)):
            at = tuple(end[:, which] for end, which in zip(ends, corner, strict=True))
            np.add.at(steps, at, (-1) ** sum(corner))
        for axis in range(len(cuts)):
            steps = steps.cumsum(axis)
        inside = steps[tuple(slice(-1) for _ in cuts)] > 0
        painted[inside] = value
    return cuts, painted


def _listed(strategy: BatchPatching, shapes: Shapes) -> Places:
    """Return the places of a strategy that draws nothing."""
    sites = strategy.sites()
    first = np.cumsum([0, *(shape[0] for shape in shapes)])
    sample = first[sites[:, 0]] + sites[:, 1]
    return Places(sample, sites[:, 2:], _sizes(strategy, sample, shapes))


def _sizes(strategy: BatchPatching, sample: NDArray[np.int64], shapes: Shapes) -> NDArray[np.int64]:
    if isinstance(strategy, SubsetPatching):
        return _listed(strategy.strategy, shapes).sizes[strategy.indices]
    if isinstance(strategy, FixedPatching):
        return np.array([spec["patch_size"] for spec in strategy.fixed_patch_specs], np.int64)
    if isinstance(strategy, WholeSamplePatching):
        return np.array(_spatial(shapes), np.int64)[sample]
    (size,) = strategy.patch_sizes
    return np.broadcast_to(np.array(size, np.int64), (len(sample), len(size)))


def _spatial(shapes: Shapes) -> list[tuple[int, ...]]:
    return [shape[2:] for shape in shapes for _ in range(shape[0])]


def _in_boxes(starts: NDArray[np.int64], boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which starts (n, D) are in one of the boxes (m, 2, D) of first and size."""
    if not len(starts) or not len(boxes):
        return np.zeros(len(starts), bool)
    shape = starts.max(axis=0) + 1
    stops = boxes.copy()
    stops[:, 1] += stops[:, 0]
    cuts, painted = paint(shape.tolist(), [(stops, 1)])
    at = tuple(cut.searchsorted(starts[:, axis], "right") - 1 for axis, cut in enumerate(cuts))
    found: NDArray[np.bool_] = painted[at] > 0
    return found

"""What a strategy becomes when some of its places are held out, and what is left of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from gpu_patch.patching.base import BatchPatching
from gpu_patch.patching.footprint import Drawing, Places, candidates, draws
from gpu_patch.patching.holdout import Holdout, hold_out
from gpu_patch.patching.protocol import Patching
from gpu_patch.patching.random import RandomPatching
from gpu_patch.patching.region import RegionPatching
from gpu_patch.patching.stratified import StratifiedPatching
from gpu_patch.patching.subset import SubsetPatching
from gpu_patch.patching.table import FixedPatching
from gpu_patch.patching.windows import AxisWindows

Masks = list[NDArray[np.bool_]]
"""A mask along each axis."""


class Splitting:
    """One strategy to be split, and the images that it is for.

    Parameters
    ----------
    strategy : BatchPatching
        Stays as it is.
    shapes : list of tuple of int
        SC(Z)YX of the image stacks.
    padding_mode : {"reflect", "wrap", "periodic"}
        Of the constructor that it is for.
    """

    def __init__(
        self, strategy: BatchPatching, shapes: list[tuple[int, ...]], padding_mode: str
    ) -> None:
        self.strategy, self.shapes, self._mode = strategy, shapes, padding_mode
        self.image_of = np.repeat(np.arange(len(shapes)), [shape[0] for shape in shapes])
        self.sizes = [shape[2:] for shape in shapes for _ in range(shape[0])]
        self.places = candidates(strategy, shapes)

    def attempt(
        self, n_wanted: int, n_scales: int, strict: bool, exact: bool, rng: np.random.Generator
    ) -> tuple[Patching, Patching] | None:
        """Return both strategies, None where nothing would be left to train on."""
        if n_wanted >= len(self.places.sample):
            return None
        widest = self.places.sizes.max(axis=0)
        ring = ((widest << (n_scales - 1)) - widest).tolist()
        if not strict:
            ring = [-(-r // 2) for r in ring]
        held = hold_out(self.places, self.image_of, n_wanted, ring, rng, exact=exact)
        if held is None:
            return None
        training = self._training(held, self._blocks(held, n_scales, strict), n_scales)
        if training is None or training.n_patches == 0:
            return None
        return training, self._validation(held)

    def _axes(self, sample: int, size: Sequence[int], n_scales: int) -> list[AxisWindows]:
        return [
            AxisWindows(n, patch, n_scales, self._mode)
            for n, patch in zip(self.sizes[sample], size, strict=True)
        ]

    def _blocks(self, held: Holdout, n_scales: int, strict: bool) -> dict[int, Masks]:
        """Return the pixels that must not be read, by sample, as the product of their axes."""
        found: dict[int, Masks] = {}
        chosen = Places(*(column[held.chosen] for column in self.places))
        for sample in np.unique(chosen.sample).tolist():
            if sample in held.samples:
                continue
            own = chosen.sample == sample
            masks = [np.zeros(n, bool) for n in self.sizes[sample]]
            for size, coords in _by_size(chosen.sizes[own], chosen.coords[own]):
                axes = self._axes(sample, size, n_scales if strict else 1)
                for mask, axis, starts in zip(masks, axes, coords.T, strict=True):
                    mask |= axis.read_by(starts)
            found[sample] = masks
        return found

    def _validation(self, held: Holdout) -> Patching:
        if not draws(self.strategy):
            return SubsetPatching(self.strategy, np.sort(held.chosen))
        first = np.searchsorted(self.image_of, self.image_of)
        return FixedPatching(
            [
                {
                    "data_idx": int(self.image_of[sample]),
                    "sample_idx": int(sample - first[sample]),
                    "coords": tuple(self.places.coords[i].tolist()),
                    "patch_size": tuple(self.places.sizes[i].tolist()),
                }
                for i in np.sort(held.chosen)
                for sample in [self.places.sample[i]]
            ]
        )

    def _training(
        self, held: Holdout, blocks: dict[int, Masks], n_scales: int
    ) -> BatchPatching | None:
        """Return what is left of the strategy."""
        strategy = self.strategy
        if not draws(strategy):
            kept = self._kept(held, blocks, n_scales)
            return SubsetPatching(strategy, kept) if len(kept) else None
        assert isinstance(strategy, Drawing)
        bad = {
            sample: [
                axis.touch(np.arange(max(axis.n_pixels - axis.patch, 0) + 1), mask)
                for axis, mask in zip(
                    self._axes(sample, strategy.patch_size, n_scales), masks, strict=True
                )
            ]
            for sample, masks in blocks.items()
        }
        if isinstance(strategy, StratifiedPatching):
            return self._without_cells(strategy, held.samples, bad)
        return self._of_regions(strategy, held.samples, bad)

    def _kept(self, held: Holdout, blocks: dict[int, Masks], n_scales: int) -> NDArray[np.int64]:
        """Return which listed places read nothing that they must not."""
        kept = ~np.isin(self.places.sample, held.samples)
        for sample, masks in blocks.items():
            (own,) = np.nonzero(self.places.sample == sample)
            for size, which in _by_size(self.places.sizes[own], own):
                touched = np.ones(len(which), bool)
                axes = self._axes(sample, size, n_scales)
                for axis, mask, starts in zip(
                    axes, masks, self.places.coords[which].T, strict=True
                ):
                    touched &= axis.touch(starts, mask)
                kept[which[touched]] = False
        return np.flatnonzero(kept)

    def _of_regions(
        self, strategy: RandomPatching | RegionPatching, whole: list[int], bad: dict[int, Masks]
    ) -> RegionPatching:
        boxes, counts = [], []
        for sample in range(len(self.sizes)):
            before, n_patches = self._drawn(strategy, sample)
            left = before
            if sample in whole:
                left = before[:0]
            elif sample in bad:
                left = _common(before, _left_boxes(bad[sample]))
            part = _n_starts(left) / max(_n_starts(before), 1)
            boxes.append(left)
            counts.append(max(1, round(n_patches * part)) if len(left) else 0)
        return RegionPatching(
            strategy.data_shapes, strategy.patch_size, boxes, counts, copy.deepcopy(strategy.rng)
        )

    def _drawn(
        self, strategy: RandomPatching | RegionPatching, sample: int
    ) -> tuple[NDArray[np.int64], int]:
        """Return the boxes where a sample's patches start, and how many there are."""
        if isinstance(strategy, RegionPatching):
            return strategy.boxes[sample], strategy.count(sample)
        shape, size = np.array(self.sizes[sample]), np.array(strategy.patch_size)
        everywhere = np.stack([np.zeros_like(shape), np.maximum(shape - size, 0) + 1])
        return everywhere[None], int(np.prod(-(-shape // size)))

    def _without_cells(
        self, strategy: StratifiedPatching, whole: list[int], bad: dict[int, Masks]
    ) -> StratifiedPatching:
        left = copy.deepcopy(strategy)
        for (image, sample), cells in strategy.get_all_grid_coords().items():
            number = int(np.searchsorted(self.image_of, image)) + sample
            if number in whole:
                left.exclude_patches(image, sample, cells)
            elif number in bad:
                axes = [
                    _cells_that_stop(mask, patch, n)
                    for mask, patch, n in zip(
                        bad[number], strategy.patch_size, self.sizes[number], strict=True
                    )
                ]
                left.exclude_patches(image, sample, list(product(*axes)))
        return left


def _by_size(
    sizes: NDArray[np.int64], values: NDArray[np.int64]
) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
    """Yield each patch size, and the values of patches of that size."""
    kinds, kind = np.unique(sizes, axis=0, return_inverse=True)
    for i, size in enumerate(kinds.tolist()):
        yield size, values[kind.reshape(-1) == i]


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the ranges [start, stop) where a mask is set."""
    ends = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(ends[::2].tolist(), ends[1::2].tolist(), strict=True))


def _left_boxes(bad: Masks) -> NDArray[np.int64]:
    """Return boxes of the starts that are not bad along every axis."""
    found = []
    for axis, mask in enumerate(bad):
        ranges = [
            _runs(bad[other]) if other < axis
            else _runs(~mask) if other == axis
            else [(0, len(bad[other]))]
            for other in range(len(bad))
        ]  # fmt: skip
        for box in product(*ranges):
            found.append([[low for low, _ in box], [high - low for low, high in box]])
    return np.array(found, np.int64).reshape(-1, 2, len(bad))


def _n_starts(boxes: NDArray[np.int64]) -> int:
    return int(boxes[:, 1].prod(axis=1).sum())


def _common(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what boxes (n, 2, D) of first and size share with others, which do not overlap."""
    first = np.maximum(a[:, None, 0], b[None, :, 0])
    size = np.minimum(a[:, None].sum(axis=2), b[None].sum(axis=2)) - first
    boxes: NDArray[np.int64] = np.stack([first, size], axis=2)[(size > 0).all(axis=-1)]
    return boxes


def _cells_that_stop(bad: NDArray[np.bool_], patch: int, n_pixels: int) -> list[int]:
    """Return cells along an axis, of which every patch with a bad start touches one."""
    last = -(-n_pixels // patch) - 1
    cells: set[int] = set()
    for low, high in _runs(bad):
        first, stop = -(-low // patch), (high - 1) // patch
        # starts between two cells' first pixels: all their patches reach into the second
        cells.update(range(first, stop + 1) if first <= stop else [min(first, last)])
    return sorted(cells)

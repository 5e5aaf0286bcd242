"""The boxes of pages that windows read, for a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gpu_patch.geometry import window_start
from gpu_patch.pages.image import PagedImage
from gpu_patch.sources import ChannelSources
from gpu_patch.table import all_within


class Spans:
    """Knows sizes and pages of images.

    Parameters
    ----------
    images : sequence of PagedImage
        The images.
    """

    def __init__(self, images: Sequence[PagedImage]) -> None:
        self._sizes = np.array([image.shape[2:] for image in images], np.int64)
        self._last_pixels = self._sizes - 1
        self._least_side = int(self._sizes.min())
        self._sides = np.array([image.page_shape[2:] for image in images], np.int64)
        self._grids = np.array([image.grid[2:] for image in images], np.int64)

    def of(
        self,
        sources: ChannelSources,
        patch_size: Sequence[int],
        scale: int,
        n_scales: int,
        mode: str,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_] | None]:
        """Return first and last page per axis, and whether all between are read; None: all are.

        Of windows that go round the image, last pages may be beyond its end.
        """
        size, length, ends = _ends(tuple(patch_size), scale)
        which = 0 if len(self._sizes) == 1 else sources.image_idx
        sides, most = self._sides[which], self._last_pixels[which]
        pixels = sources.coords + ends  # first and last ones, (2, B, 1 or C, D)
        # outside of the image on one side, the page at its end stands for none
        inside = np.minimum(np.maximum(pixels, 0), most)
        outside = inside != pixels
        exact: NDArray[np.bool_] | None = None
        if not np.logical_or.reduce(outside, axis=None):
            first, last = inside // sides
            return first, last, exact
        leaves: NDArray[np.bool_] = outside.any(axis=(0, -1))
        if mode == "periodic":
            return *self._around(sources, pixels[0], length, leaves), exact
        if mode == "zero":  # of a window of zeros alone nothing is read
            exact = np.all((pixels[0] <= most) & (pixels[1] >= 0), axis=-1)
        else:
            folds = self._folds(sources, patch_size, leaves, mode)
            if folds is not None and folds.any():
                exact, n = ~folds, self._sizes[sources.image_idx][folds]
                cuts = window_start(sources.coords, size, n_scales)[folds]
                inside[0][folds] = np.clip(cuts, 0, n)
                inside[1][folds] = np.clip(cuts + (size << n_scales), 0, n) - 1
                inside = np.minimum(np.maximum(inside, 0), most)
            if mode == "reflect":  # mirrored at the first pixel, one pixel more is read
                inside[1] = np.minimum(inside[1] + leaves[..., None], most)
        first, last = inside // sides
        return first, last, exact

    def _folds(
        self,
        sources: ChannelSources,
        patch_size: Sequence[int],
        leaves: NDArray[np.bool_],
        mode: str,
    ) -> NDArray[np.bool_] | None:
        """Tell which windows may read any page of the cut that borders fold into; None: none."""
        if mode == "wrap":
            return leaves
        if all_within(sources.coords, 0, self._least_side - max(patch_size)):
            return None  # quicker
        centre = sources.coords + np.array(patch_size) // 2
        n = self._sizes[sources.image_idx]
        far: NDArray[np.bool_] = np.any((centre < 0) | (centre >= n), axis=-1)
        return leaves & far

    def _around(
        self,
        sources: ChannelSources,
        start: NDArray[np.int64],
        length: NDArray[np.int64],
        leaves: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first and last page of windows that go round the image, maybe beyond its end."""
        sides, n = self._sides[sources.image_idx], self._sizes[sources.image_idx]
        grids = self._grids[sources.image_idx]
        own = start % n
        end = own + (length - 1)
        whole = (length >= n) & leaves[..., None]
        first = np.where(whole, 0, own // sides)
        last = end % n // sides + np.where(end >= n, grids, 0)
        return first, np.where(whole, grids - 1, np.minimum(last, first + grids - 1))


@lru_cache(maxsize=64)
def _ends(
    patch_size: tuple[int, ...], scale: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the size of a patch, of its window, and where this begins and ends, (2, 1, 1, D)."""
    size = np.array(patch_size, np.int64)
    length = size << scale
    start = window_start(np.zeros_like(size), size, scale)
    return size, length, np.stack([start, start + length - 1])[:, None, None]

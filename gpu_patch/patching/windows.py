"""Which pixels patches read along an axis, with context and beyond borders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu_patch.geometry import border_range, border_stretches, window_start


class AxisWindows:
    """Windows of patches of one size along an axis: the largest, which holds all others.

    Along several axes a patch reads the product of what it reads along each.

    Parameters
    ----------
    n_pixels, patch : int
        Of the axis, and of a patch.
    n_scales : int
        Scales of the context, 1 for the patch alone.
    mode : {"reflect", "wrap", "periodic", "zero"}
        Where windows go on beyond the image.
    """

    def __init__(self, n_pixels: int, patch: int, n_scales: int, mode: str) -> None:
        self.n_pixels, self.patch = n_pixels, patch
        self._n_scales, self._mode = n_scales, mode
        self._size = patch << (n_scales - 1)

    def read_by(self, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which pixels, (n_pixels,), some of the patches that start there read."""
        steps = np.zeros(self.n_pixels + 1, np.int64)
        first, inside = self._inside(starts)
        np.add.at(steps, first[inside], 1)
        np.add.at(steps, first[inside] + self._size, -1)
        for start in np.unique(starts[~inside]).tolist():
            for low, high in self._folded(start):
                steps[low] += 1
                steps[high] -= 1
        found: NDArray[np.bool_] = steps[:-1].cumsum() > 0
        return found

    def touch(self, starts: NDArray[np.int64], pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which patches, by their `starts`, read one of the `pixels`, (n_pixels,)."""
        before = np.concatenate([[0], pixels.cumsum()])
        first, inside = self._inside(starts)
        found = np.zeros(len(starts), bool)
        found[inside] = before[first[inside] + self._size] > before[first[inside]]
        at_border, which = np.unique(starts[~inside], return_inverse=True)
        touched = [
            any(before[high] > before[low] for low, high in self._folded(start))
            for start in at_border.tolist()
        ]
        found[~inside] = np.array(touched, bool)[which]
        return found

    def _inside(self, starts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the windows' first pixels, and which windows lie in the image."""
        first = window_start(starts, np.full_like(starts, self.patch), self._n_scales - 1)
        return first, (first >= 0) & (first + self._size <= self.n_pixels)

    def _folded(self, start: int) -> list[tuple[int, int]]:
        """Return the ranges of pixels that a patch at the border reads."""
        cut = window_start(start, self.patch, self._n_scales)
        low, high = border_range(cut, self.patch << self._n_scales, self.n_pixels, self._mode)
        if low >= high:
            return []
        first = window_start(start, self.patch, self._n_scales - 1)
        return [
            (min(run.first, last), max(run.first, last) + 1)
            for run in border_stretches(first, self._size, low, high, self._mode)
            for last in [run.first + run.step * (run.length - 1)]
        ]

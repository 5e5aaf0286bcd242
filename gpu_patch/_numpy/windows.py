"""Reading windows of images: many small ones at once, or a large one piece by piece."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.geometry import border_index, border_range, border_runs

_MOST_RUNS = 8


def read_inside(
    image: NDArray[Any],
    sample_idx: NDArray[np.int64],
    channel_idx: NDArray[np.int64],
    start: NDArray[np.int64],
    size: Sequence[int],
) -> NDArray[Any]:
    """Read windows that lie inside one image.

    A single fancy index over all windows, with a row of a window as its item: NumPy then moves
    whole rows instead of pixels.

    Parameters
    ----------
    image : array, SC(Z)YX
        C-contiguous.
    sample_idx, channel_idx : array of int
        Planes or volumes; of shapes that broadcast to one shape N.
    start : array of int, shape (..., D)
        First pixels, likewise.
    size : sequence of int
        Pixels, (Z)YX.

    Returns
    -------
    array, shape (*N, *size)
        In the image's data type.
    """
    spatial, steps = image.shape[2:], image.strides
    every_start = [n - s + 1 for n, s in zip(spatial, size, strict=True)]
    rows: NDArray[Any] = np.ndarray(
        (*image.shape[:2], *every_start, *size[:-1]),
        f"V{size[-1] * image.itemsize}",
        image,
        strides=(*steps, *steps[2:-1]),
    )
    found = rows[(sample_idx, channel_idx, *(start[..., d] for d in range(len(size))))]
    return found.view(image.dtype).reshape(*found.shape[: 1 - len(size)], *size)


def read_window(
    image: NDArray[Any],
    start: Sequence[int],
    cut: Sequence[tuple[int, int]],
    mode: str,
    out: NDArray[Any],
) -> None:
    """Read one window that may leave the image.

    Parameters
    ----------
    image : array, (Z)YX
        A plane or a volume.
    start : sequence of int
        First pixel of the window.
    cut : sequence of (start, size)
        Per axis, the cut that "wrap" wraps; see `geometry.border_range`.
    mode : {"zero", "reflect", "wrap", "periodic"}
        Border rule.
    out : array, (Z)YX
        Filled with the window.
    """
    ranges = [border_range(*c, n, mode) for c, n in zip(cut, image.shape, strict=True)]
    runs = [
        border_runs(s, size, lo, hi, mode)
        for s, size, (lo, hi) in zip(start, out.shape, ranges, strict=True)
    ]
    if mode == "zero" and prod(sum(run.length for run in axis) for axis in runs) < out.size:
        out[...] = 0
    if max(len(axis) for axis in runs) > _MOST_RUNS:  # the window repeats a small image
        maps = [
            border_index(np.arange(s, s + size), lo, hi, mode)
            for s, size, (lo, hi) in zip(start, out.shape, ranges, strict=True)
        ]
        out[...] = image[np.ix_(*maps)]
        return
    for box in itertools.product(*runs):
        out[tuple(run.window for run in box)] = image[tuple(run.image for run in box)]

"""Reading windows of images: small ones many at a time, large ones one by one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.indexing import SMALL_WINDOW, rows_at
from gpu_patch._numpy.paged import read_paged
from gpu_patch.distinct import distinct
from gpu_patch.epilogue import turn_back
from gpu_patch.geometry import border_index, border_range, border_stretches, window_start
from gpu_patch.pages.image import PagedImage
from gpu_patch.sources import ChannelSources

_PIXELS_AT_ONCE = 1 << 20
_MOST_RUNS = 8


def read_windows(
    images: Sequence[NDArray[Any] | PagedImage],
    sources: ChannelSources,
    start: NDArray[np.int64],
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    out: NDArray[Any],
    orientation: NDArray[np.uint8] | None = None,
) -> None:
    """Read the windows of a batch.

    Parameters
    ----------
    images : sequence of array or PagedImage, SC(Z)YX
        C-contiguous; of paged ones, the pages under the windows are there.
    sources : ChannelSources
        What to read.
    start : array of int, shape (B, 1 or C, D)
        First pixels of the windows; `sources.coords` for the patches themselves.
    patch_size, n_scales : tuple of int, int
        Size and number of scales of the patches; they say what "reflect" and "wrap" fold into.
    mode : {"zero", "reflect", "wrap", "periodic"}
        What a window holds where it leaves the image.
    out : array, shape (B, C, (Z), Y, X)
        Filled with the windows, in its data type.
    orientation : array of uint8, shape (B,), optional
        How to turn each sample's windows; see `epilogue.turn`.
    """
    samples = None
    if orientation is not None:
        samples = [turn_back(*each) for each in zip(out, orientation.tolist(), strict=True)]
    size = out.shape[2:]
    for i in distinct(sources.image_idx).tolist() if len(images) > 1 else [0]:
        todo = sources.image_idx == i
        image = images[i]
        if isinstance(image, PagedImage):
            into = out if samples is None else samples
            read_paged(image, sources, start, todo, patch_size, n_scales, mode, into, size)
            continue
        if prod(size) <= SMALL_WINDOW:
            last = np.array(image.shape[2:]) - size
            inside = todo & ((start >= 0) & (start <= last)).all(axis=-1)
            if inside.any():
                _read_inside(image, sources, start, inside, out, samples)
            todo &= ~inside
        for b, k in np.argwhere(todo).tolist() if todo.any() else []:
            # a place shared by all channels stands in column 0
            c = slice(None) if sources.image_idx.shape[1] == 1 else slice(k, k + 1)
            _read_one(
                image[sources.sample_idx[b, k]],
                sources.channels[c].tolist(),
                start[b, k].tolist(),
                [
                    (window_start(x, p, n_scales), p << n_scales)
                    for x, p in zip(sources.coords[b, k].tolist(), patch_size, strict=True)
                ],
                mode,
                (out if samples is None else samples)[b][c],
            )


def _read_inside(
    image: NDArray[Any],
    sources: ChannelSources,
    start: NDArray[np.int64],
    which: NDArray[np.bool_],
    out: NDArray[Any],
    samples: list[NDArray[Any]] | None,
) -> None:
    """Read windows that lie inside one image, `which` (B, 1 or C) of them.

    They go to `out`, or to `samples`, the turned views of its samples.
    """
    size = out.shape[2:]
    correlated = which.shape[1] == 1
    if which.all() and samples is None:
        # part by part: `rows_at` makes a copy of the pixels before they become float32
        step = max(1, _PIXELS_AT_ONCE * len(out) // out.size)
        for first in range(0, len(out), step):
            part = slice(first, first + step)
            out[part] = rows_at(
                image, sources.sample_idx[part], sources.channels, start[part], size
            )
        return
    b, k = np.nonzero(which)
    if correlated:
        found = rows_at(image, sources.sample_idx[b], sources.channels, start[b], size)
    else:
        found = rows_at(image, sources.sample_idx[b, k], sources.channels[k], start[b, k], size)
    if samples is None:
        out[b if correlated else (b, k)] = found
        return
    for i, channel, pixels in zip(b.tolist(), k.tolist(), found, strict=True):
        samples[i][... if correlated else channel] = pixels


def _read_one(
    volumes: NDArray[Any],
    channels: Sequence[int],
    start: Sequence[int],
    cut: Sequence[tuple[int, int]],
    mode: str,
    out: NDArray[Any],
) -> None:
    """Read one window of some channels of a sample C(Z)YX; it may leave the image."""
    if all(
        first >= 0 and first + size <= n
        for first, size, n in zip(start, out.shape[1:], volumes.shape[1:], strict=True)
    ):
        inside = tuple(slice(a, a + n) for a, n in zip(start, out.shape[1:], strict=True))
        for c, channel in enumerate(channels):
            out[c] = volumes[channel][inside]
        return
    axes = [
        (first, size, *border_range(*at, n, mode))
        for first, size, at, n in zip(start, out.shape[1:], cut, volumes.shape[1:], strict=True)
    ]
    runs = [border_stretches(*axis, mode) for axis in axes]
    if mode == "zero":
        out[...] = 0
    if max(map(len, runs)) > _MOST_RUNS:  # the window repeats a small image many times
        maps = [border_index(np.arange(a, a + n), lo, hi, mode) for a, n, lo, hi in axes]
        for c, channel in enumerate(channels):
            out[c] = volumes[channel][np.ix_(*maps)]
        return
    for box in itertools.product(*runs):
        window = tuple(run.window for run in box)
        source = tuple(run.image for run in box)
        for c, channel in enumerate(channels):
            out[c][window] = volumes[channel][source]

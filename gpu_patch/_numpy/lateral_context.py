"""Mixed channels at several scales around a patch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.fir import downscale
from gpu_patch._numpy.gather import gather
from gpu_patch._numpy.memory import pool
from gpu_patch._numpy.windows import read_window
from gpu_patch.geometry import window_start
from gpu_patch.plan import Rows

# Mixed pixels in work at once: a few windows that fit the cache while they are small, and never
# more than a quarter of a gigabyte with the channel being added.
_PIXELS_IN_CACHE = 1 << 17
_MOST_PIXELS = 1 << 25


def lateral_context(
    images: Sequence[NDArray[Any]],
    rows: Rows,
    weights: NDArray[np.float32],
    patch_size: tuple[int, ...],
    mode: str,
    out: NDArray[np.float32],
    target: NDArray[np.float32],
) -> None:
    """Fill `out` (B, L, (Z), Y, X) and `target` (B, C, (Z), Y, X); see `ops.lateral_context`."""
    n_samples, n_scales = out.shape[:2]
    gather(images, rows, patch_size, mode, n_scales, target)
    _mix_targets(target, weights, out[:, 0])
    if n_scales == 1:
        return
    mixer = _Mixer(images, rows, weights, patch_size, n_scales, mode)
    step = max(1, _PIXELS_IN_CACHE // prod(mixer.window_size(n_scales - 1)))
    for first in range(0, n_samples, step):
        if prod(mixer.window_size(n_scales - 1)) <= _MOST_PIXELS:
            _all_scales(mixer, range(first, min(first + step, n_samples)), out)
        else:
            _slab_by_slab(mixer, first, out)


def _mix_targets(
    target: NDArray[np.float32], weights: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Sum the channels (B, C, ...) with their weights (B, C)."""
    factors = weights.reshape(*weights.shape, *[1] * (target.ndim - 2))
    np.multiply(target[:, 0], factors[:, 0], out=out)
    for c in range(1, target.shape[1]):
        out += target[:, c] * factors[:, c]


def _all_scales(mixer: _Mixer, samples: range, out: NDArray[np.float32]) -> None:
    """Mix the largest windows once; the smaller ones are their middles."""
    top = out.shape[1] - 1
    mixed = mixer.mix(samples, top)
    for scale in range(1, top + 1):
        middle = [
            slice(big // 2 - small // 2, big // 2 - small // 2 + small)
            for big, small in zip(mixed.shape[1:], mixer.window_size(scale), strict=True)
        ]
        out[samples.start : samples.stop, scale] = downscale(
            mixed[(slice(None), *middle)],
            mixer.patch_size,
            scale,
            range(len(middle)),
            finite=mixer.finite,
        )


def _slab_by_slab(mixer: _Mixer, sample: int, out: NDArray[np.float32]) -> None:
    """Mix windows that are too large for memory a few rows at a time, each scale by itself."""
    size = mixer.patch_size
    for scale in range(1, out.shape[1]):
        rows, *rest = mixer.window_size(scale)
        step = max(1, _MOST_PIXELS // prod(rest))
        narrow = np.empty((1, rows, *size[1:]), np.float32)
        for first in range(0, rows, step):
            stop = min(first + step, rows)
            narrow[:, first:stop] = downscale(
                mixer.mix(range(sample, sample + 1), scale, (first, stop)),
                size,
                scale,
                range(1, len(size)),
                finite=mixer.finite,
            )
        out[sample, scale] = downscale(narrow, size, scale, [0], finite=mixer.finite)[0]


class _Mixer:
    """Reads and mixes the windows of a batch's samples."""

    def __init__(
        self,
        images: Sequence[NDArray[Any]],
        rows: Rows,
        weights: NDArray[np.float32],
        patch_size: tuple[int, ...],
        n_scales: int,
        mode: str,
    ) -> None:
        self.images = images
        self.places = np.stack([rows.image_idx, rows.sample_idx], axis=-1).tolist()
        self.coords = rows.coords.tolist()
        self.channels = rows.channels.tolist()
        self.weights = weights
        self.patch_size = patch_size
        self.n_scales = n_scales
        self.mode = mode
        self.finite = all(image.dtype.kind != "f" for image in images)

    def window_size(self, scale: int) -> tuple[int, ...]:
        return tuple(p << scale for p in self.patch_size)

    def mix(
        self, samples: range, scale: int, row_range: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """Return the mixed windows (n, ...) of some samples, or some rows of them."""
        size = list(self.window_size(scale))
        skipped = 0
        if row_range is not None:
            skipped, size[0] = row_range[0], row_range[1] - row_range[0]
        mixed = pool.take((len(samples), *size), np.float32)
        product = pool.take(size, np.float32) if self.weights.shape[1] > 1 else None
        for window, sample in zip(mixed, samples, strict=True):
            places, coords = self.places[sample], self.coords[sample]
            for c, channel in enumerate(self.channels):
                k = c if len(places) > 1 else 0
                start = [
                    window_start(x, p, scale)
                    for x, p in zip(coords[k], self.patch_size, strict=True)
                ]
                start[0] += skipped
                cut = [
                    (window_start(x, p, self.n_scales), p << self.n_scales)
                    for x, p in zip(coords[k], self.patch_size, strict=True)
                ]
                image_idx, sample_idx = places[k]
                image = self.images[image_idx]
                # copied first: NumPy then casts and multiplies one contiguous stretch
                pixels = pool.take(size, image.dtype)
                read_window(image[sample_idx, channel], start, cut, self.mode, pixels)
                weight = self.weights[sample, c]
                if c == 0:
                    np.multiply(pixels, weight, out=window)
                else:
                    window += np.multiply(pixels, weight, out=product)
        return mixed

"""Mixed channels at several scales around a patch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.fir import downscale
from gpu_patch._numpy.gather import finish
from gpu_patch._numpy.windows import read_windows
from gpu_patch.device.host_memory import pool
from gpu_patch.epilogue import Epilogue, turn_back
from gpu_patch.geometry import window_start
from gpu_patch.sources import ChannelSources

# Pixels of mixed windows worked on at once. Of small windows as many as stay in the cache; of large
# ones so few that windows, sources and results fit 256 MB together.
_PIXELS_IN_CACHE = 1 << 19
_MOST_BYTES = 3 << 26
# Pixels mixed at once: few enough to stay in the cache while channel after channel is added.
_STRIP = 1 << 16


def lateral_context(
    images: Sequence[NDArray[Any]],
    sources: ChannelSources,
    weights: NDArray[np.float32],
    patch_size: tuple[int, ...],
    mode: str,
    out: NDArray[np.float32],
    target: NDArray[np.float32] | None,
    epilogue: Epilogue | None = None,
) -> None:
    """Fill `out` (B, L, (Z), Y, X) and `target` (B, C, (Z), Y, X); see `ops.lateral_context`.

    A single channel needs no target: it is read where it is mixed.
    """
    n_samples, n_scales = out.shape[:2]
    channels = out[:, :1] if target is None else target
    orientation, shift = None, None
    if epilogue is not None:
        orientation, shift = epilogue.orientation, epilogue.input_shift
    # mixing is pixel by pixel: patches may be turned before it
    read_windows(images, sources, sources.coords, patch_size, n_scales, mode, channels, orientation)
    mix(channels, weights, out[:, 0], shift, epilogue, targets=target is not None)
    if n_scales == 1:
        return
    mixer = _Mixer(images, sources, weights, patch_size, n_scales, mode, epilogue)
    largest = prod(mixer.window_size(n_scales - 1))
    step = max(1, _PIXELS_IN_CACHE // largest)
    for first in range(0, n_samples, step):
        samples = slice(first, first + step)
        if largest <= mixer.most_pixels:
            _all_scales(mixer, samples, out[samples])
        else:
            _slab_by_slab(mixer, samples, out[samples])


def mix(
    channels: NDArray[Any],
    weights: NDArray[np.float32],
    out: NDArray[np.float32],
    shift: NDArray[np.float32] | None = None,
    epilogue: Epilogue | None = None,
    *,
    targets: bool = False,
) -> None:
    """Fill `out` (B, ...) with the sum of channels (B, C, ...) weighted by `weights` (B, C).

    First `shift` (B, C) is subtracted from them. An epilogue scales the sum and adds the input's
    offset. With `targets` it goes over the channels too, once they are mixed.
    """
    n_samples, n_channels = channels.shape[:2]
    flat, flat_out = channels.reshape(n_samples, n_channels, -1), out.reshape(n_samples, -1)
    n_pixels = flat_out.shape[1]
    group = min(n_samples, max(1, _STRIP // n_pixels))
    product = pool.take((group, min(n_pixels, _STRIP)), np.float32) if n_channels > 1 else None
    if shift is not None and not shift.any():
        shift = None
    weighs = shift is None or bool((weights != 1).any())
    for b, i in itertools.product(range(0, n_samples, group), range(0, n_pixels, _STRIP)):
        part = (slice(b, b + group), slice(i, i + _STRIP))
        mixed = flat_out[part]
        for c in range(n_channels):
            pixels, factors = flat[part[0], c, part[1]], weights[part[0], c, None]
            weighted = mixed
            if product is not None and c > 0:
                weighted = product[: mixed.shape[0], : mixed.shape[1]]
            if shift is not None:
                pixels = np.subtract(pixels, shift[part[0], c, None], out=weighted)
            if weighs:
                np.multiply(pixels, factors, out=weighted)
            if c > 0:
                mixed += weighted
        if epilogue is not None:
            own = epilogue.of_samples(part[0])
            finish(mixed[:, None], None, own.input_scale, own.input_offset)
            if targets:
                of_channels = flat[part[0], :, part[1]]
                finish(of_channels, own.target_shift, own.target_scale, own.target_offset)


def _all_scales(mixer: _Mixer, samples: slice, out: NDArray[np.float32]) -> None:
    """Mix the largest windows once; the smaller ones are their middles."""
    top = out.shape[1] - 1
    mixed = mixer.windows(samples, top)
    for scale in range(1, top + 1):
        middle = [
            slice(big // 2 - small // 2, big // 2 - small // 2 + small)
            for big, small in zip(mixed.shape[1:], mixer.window_size(scale), strict=True)
        ]
        window = mixed[(slice(None), *middle)]
        axes = range(len(middle))
        small = downscale(window, mixer.patch_size, scale, axes, finite=mixer.finite)
        mixer.put(small, samples, out[:, scale])


def _slab_by_slab(mixer: _Mixer, samples: slice, out: NDArray[np.float32]) -> None:
    """Mix windows that are too large for memory a few rows at a time, each scale by itself."""
    size = mixer.patch_size
    for scale in range(1, out.shape[1]):
        n_rows, *rest = mixer.window_size(scale)
        step = max(1, mixer.most_pixels // prod(rest))
        narrow = np.empty((len(out), n_rows, *size[1:]), np.float32)
        for first in range(0, n_rows, step):
            slab = mixer.windows(samples, scale, first, min(first + step, n_rows))
            axes = range(1, len(size))
            narrow[:, first : first + step] = downscale(
                slab, size, scale, axes, finite=mixer.finite
            )
        small = downscale(narrow, size, scale, [0], finite=mixer.finite)
        mixer.put(small, samples, out[:, scale])


class _Mixer:
    """Reads and mixes the windows of a batch's samples, and puts what is made of them in place."""

    def __init__(
        self,
        images: Sequence[NDArray[Any]],
        sources: ChannelSources,
        weights: NDArray[np.float32],
        patch_size: tuple[int, ...],
        n_scales: int,
        mode: str,
        epilogue: Epilogue | None,
    ) -> None:
        self.images = images
        self.sources = sources
        self.weights = weights
        self.patch_size = patch_size
        self.n_scales = n_scales
        self.mode = mode
        self.epilogue = epilogue
        dtypes = {image.dtype for image in images}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
        # mixtures of whole numbers are finite, unless weights are enormous
        self.finite = self.dtype.kind != "f" and bool(np.abs(weights).max() < 1e30)
        # bytes per pixel: all channels as read, the sum, and the weighted channel to be added
        self.most_pixels = _MOST_BYTES // (sources.shape[1] * self.dtype.itemsize + 8)

    def window_size(self, scale: int) -> tuple[int, ...]:
        return tuple(p << scale for p in self.patch_size)

    def windows(
        self, samples: slice, scale: int, first: int = 0, stop: int | None = None
    ) -> NDArray[np.float32]:
        """Return mixed windows (n, ...), or their rows ``first … stop − 1``."""
        image_idx, sample_idx, coords, channels = self.sources
        sources = ChannelSources(image_idx[samples], sample_idx[samples], coords[samples], channels)
        size = self.window_size(scale)
        start = window_start(sources.coords, np.array(self.patch_size), scale)
        if stop is not None:
            start[..., 0] += first
            size = (stop - first, *size[1:])
        # a single channel is read straight into the memory of the mixture
        alone = len(channels) == 1
        pixels = pool.take((*sources.shape, *size), np.float32 if alone else self.dtype)
        read_windows(self.images, sources, start, self.patch_size, self.n_scales, self.mode, pixels)
        mixed = pixels[:, 0] if alone else pool.take((len(pixels), *size), np.float32)
        shift = None if self.epilogue is None else self.epilogue.input_shift
        own_shift = None if shift is None else shift[samples]
        mix(pixels, self.weights[samples], mixed, own_shift)
        return mixed

    def put(self, values: NDArray[np.float32], samples: slice, out: NDArray[np.float32]) -> None:
        """Fill `out` (n, ...) with downscaled windows, the last thing that happens to them."""
        if self.epilogue is None:
            out[...] = values
            return
        own = self.epilogue.of_samples(samples)
        shape = (-1, *(1,) * len(self.patch_size))
        if (own.input_scale != 1).any():
            values *= own.input_scale.reshape(shape)
        if own.orientation is None:
            np.add(values, own.input_offset.reshape(shape), out=out)
            return
        each = zip(values, own.input_offset, out, own.orientation.tolist(), strict=True)
        for value, offset, place, turned in each:
            np.add(value, offset, out=turn_back(place, turned))

"""The bytes that a batch reads at least: the pixels of its windows, each counted once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from gpu_patch.constructors.plan import Plan
from gpu_patch.geometry import window_start
from gpu_patch.sources import ChannelSources


def pixels_read(
    sources: ChannelSources, patch_size: Sequence[int], n_scales: int, image_size: Sequence[int]
) -> int:
    """Return how many pixels the windows of a batch hold, each counted once.

    Windows may overlap, and what of them lies outside the image is read from the inside: close to
    the border, so inside the window itself as good as always.

    Parameters
    ----------
    sources : ChannelSources
        What the batch reads.
    patch_size, n_scales : sequence of int, int
        They give the largest windows.
    image_size : sequence of int
        (Z)YX, of all images.
    """
    patch, scale = np.array(patch_size), max(n_scales - 1, 0)
    start = window_start(sources.coords, patch, scale)
    stop = np.minimum(start + (patch << scale), image_size)
    start = np.maximum(start, 0)
    # a place of its own is one channel's, a shared one all channels'
    n_places = sources.image_idx.shape[1]
    n_channels = len(sources.channels) // int(n_places)
    place = np.broadcast_to(np.arange(n_places), sources.image_idx.shape)
    volumes = np.stack([sources.image_idx, sources.sample_idx, place], axis=-1).reshape(-1, 3)
    start, stop = start.reshape(-1, len(patch)), stop.reshape(-1, len(patch))
    _, volume = np.unique(volumes, axis=0, return_inverse=True)
    same = [volume.reshape(-1) == v for v in range(volume.max() + 1)]
    n_pixels: int = sum(_union(start[which], stop[which]) for which in same)
    return n_channels * n_pixels


def bytes_read(plan: Plan) -> int:
    """Return the bytes of the pixels that a batch reads, each counted once.

    The images are on a device, and those of one part of the batch of one shape and data type.
    """
    n_bytes, seen = 0, set()
    for images, sources, n_scales, _ in plan.reads:
        image, runtime = images.arrays[0], images.runtime
        assert runtime is not None
        if (address := runtime.pointer(image)) in seen:  # targets that are the input's images
            continue
        seen.add(address)
        n_pixels = pixels_read(sources, plan.patch_size, n_scales, image.shape[2:])
        n_bytes += n_pixels * image.dtype.itemsize
    return n_bytes


def _union(start: NDArray[np.int64], stop: NDArray[np.int64]) -> int:
    """Return the pixels that boxes (n, D) cover together."""
    edges = [np.unique(ends) for ends in np.concatenate([start, stop]).T]
    covered = np.zeros([len(axis) - 1 for axis in edges], bool)
    for box in zip(start, stop, strict=True):
        ends = zip(edges, *box, strict=True)
        covered[tuple(slice(*np.searchsorted(axis, (a, b))) for axis, a, b in ends)] = True
    return int((covered * reduce(np.multiply.outer, map(np.diff, edges))).sum())

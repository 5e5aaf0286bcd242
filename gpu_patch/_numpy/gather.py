"""Patches at their native scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.windows import read_inside, read_window
from gpu_patch.geometry import window_start
from gpu_patch.plan import Rows

_PIXELS_IN_CACHE = 1 << 16


def gather(
    images: Sequence[NDArray[Any]],
    rows: Rows,
    patch_size: tuple[int, ...],
    mode: str,
    n_scales: int,
    out: NDArray[Any],
) -> None:
    """Fill `out` (B, C, (Z), Y, X) with the patches of `rows`; see `ops.gather`."""
    image_idx, sample_idx, start, channels = rows
    used = np.unique(image_idx).tolist() if len(images) > 1 else [0]
    for i in used:
        image = images[i]
        last = np.array(image.shape[2:]) - patch_size
        inside = ((start >= 0) & (start <= last)).all(axis=-1)
        if len(used) == 1 and inside.all():
            for part in _parts(out):
                out[part] = read_inside(image, sample_idx[part], channels, start[part], patch_size)
            return
        mine = image_idx == i
        b, k = np.nonzero(mine & inside)
        if image_idx.shape[1] == 1:  # one place for all channels
            out[b] = read_inside(image, sample_idx[b], channels, start[b], patch_size)
        else:
            out[b, k] = read_inside(image, sample_idx[b, k], channels[k], start[b, k], patch_size)
        for b, k in np.argwhere(mine & ~inside).tolist():
            place = start[b, k].tolist()
            cut = [
                (window_start(c, p, n_scales), p << n_scales)
                for c, p in zip(place, patch_size, strict=True)
            ]
            for c in range(len(channels)) if image_idx.shape[1] == 1 else [k]:
                source = image[sample_idx[b, k], channels[c]]
                read_window(source, place, cut, mode, out[b, c])


def _parts(out: NDArray[Any]) -> list[slice]:
    """Cut a batch into parts whose pixels stay in the cache between reading and converting."""
    step = max(1, _PIXELS_IN_CACHE * len(out) // out.size)
    return [slice(first, first + step) for first in range(0, len(out), step)]

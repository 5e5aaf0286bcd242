"""Patches at their native scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.windows import read_inside, read_window
from gpu_patch.geometry import window_start
from gpu_patch.plan import Rows


def gather(
    images: Sequence[NDArray[Any]],
    rows: Rows,
    patch_size: tuple[int, ...],
    mode: str,
    n_scales: int,
    out: NDArray[Any],
) -> None:
    """Fill `out` (B, C, (Z), Y, X) with the patches of `rows`; see `ops.gather`."""
    size = np.array(patch_size)
    image_idx, sample_idx, channel_idx = (column.ravel() for column in rows[:3])
    start = rows.coords.reshape(len(image_idx), -1)
    patches = out.reshape(len(image_idx), *patch_size)

    used = np.unique(image_idx) if len(images) > 1 else [0]
    for i in used:
        image = images[i]
        mine = None if len(used) == 1 else image_idx == i
        inside = ((start >= 0) & (start <= np.array(image.shape[2:]) - size)).all(axis=1)
        if mine is not None:
            inside &= mine
        if inside.all():
            patches[...] = read_inside(image, sample_idx, channel_idx, start, patch_size)
            return
        if inside.any():
            patches[inside] = read_inside(
                image, sample_idx[inside], channel_idx[inside], start[inside], patch_size
            )
        outside = ~inside if mine is None else mine & ~inside
        for k in np.flatnonzero(outside).tolist():
            place = start[k].tolist()
            cut = [
                (window_start(c, p, n_scales), p << n_scales)
                for c, p in zip(place, patch_size, strict=True)
            ]
            read_window(image[sample_idx[k], channel_idx[k]], place, cut, mode, patches[k])

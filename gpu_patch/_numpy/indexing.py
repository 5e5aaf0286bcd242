"""Many windows of an array with one index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL_WINDOW = 1 << 14
"""Pixels up to which one index for many windows beats a copy each."""


def rows_at(
    image: NDArray[Any],
    sample_idx: NDArray[np.int64],
    channel_idx: NDArray[np.int64],
    start: NDArray[np.int64],
    size: Sequence[int],
    memory: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Read windows with one index, a row of a window being its item.

    So NumPy moves whole rows instead of pixels. `memory` is what `image` lies in from its first
    byte on, where it has gaps. The shapes of `sample_idx`, `channel_idx` and `start[..., 0]`
    broadcast to N; the result has the shape (*N, *size).
    """
    every_start = [n - s + 1 for n, s in zip(image.shape[2:], size, strict=True)]
    rows: NDArray[Any] = np.ndarray(
        (*image.shape[:2], *every_start, *size[:-1]),
        f"V{size[-1] * image.itemsize}",
        image if memory is None else memory,
        strides=(*image.strides, *image.strides[2:-1]),
    )
    found: NDArray[Any] = rows[
        (sample_idx, channel_idx, *(start[..., d] for d in range(len(size))))
    ]
    pixels: NDArray[Any] = found.view(image.dtype)
    return pixels.reshape(*found.shape[: 1 - len(size)], *size)

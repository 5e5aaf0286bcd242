"""Patches at their native scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.windows import read_windows
from gpu_patch.epilogue import Epilogue
from gpu_patch.sources import ChannelSources

# Pixels finished at once: few enough to stay in the cache from one step to the next.
_STRIP = 1 << 16


def gather(
    images: Sequence[NDArray[Any]],
    sources: ChannelSources,
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    out: NDArray[Any],
    epilogue: Epilogue | None = None,
) -> None:
    """Fill `out` (B, C, (Z), Y, X) with the patches of `sources`; see `ops.gather`."""
    orientation = None if epilogue is None else epilogue.orientation
    read_windows(images, sources, sources.coords, patch_size, n_scales, mode, out, orientation)
    if epilogue is None or out.dtype.kind in "biu":
        return
    flat = out.reshape(*out.shape[:2], -1)
    n_pixels = max(1, _STRIP // out.shape[1])
    step = max(1, n_pixels // flat.shape[2])
    for b, i in product(range(0, len(flat), step), range(0, flat.shape[2], n_pixels)):
        own = epilogue.of_samples(slice(b, b + step))
        part = flat[b : b + step, :, i : i + n_pixels]
        finish(part, own.input_shift, own.input_scale, own.input_offset)


def finish(
    out: NDArray[Any],
    shift: NDArray[np.float32] | None,
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
) -> None:
    """Replace values (B, C, ...) by (value − shift) · scale + offset, with numbers (B, C)."""
    shape = (*scale.shape, *(1,) * (out.ndim - 2))
    if shift is not None and shift.any():
        out -= shift.reshape(shape)
    if (scale != 1).any():
        out *= scale.reshape(shape)
    if offset.any():
        out += offset.reshape(shape)

"""Patches at their native scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch._numpy.gather import gather as numpy_gather
from gpu_patch._numpy.memory import pool
from gpu_patch.ops._arguments import checked_dtype
from gpu_patch.plan import Rows


def gather(
    images: Sequence[NDArray[Any]],
    rows: Rows,
    patch_size: tuple[int, ...],
    *,
    mode: str = "zero",
    n_scales: int = 0,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """Cut patches out of images.

    Parameters
    ----------
    images : sequence of array, SC(Z)YX
        C-contiguous, of stored data types, all in one place.
    rows : Rows
        What to read, (B, C) rows.
    patch_size : tuple of int
        Pixels, (Z)YX.
    mode : {"zero", "reflect", "wrap", "periodic"}
        What a patch holds where it leaves the image.
    n_scales : int
        Under "wrap", the image is cut to the window of this scale first; see
        `geometry.border_range`.
    dtype : {float32, float16}
        Of the result.

    Returns
    -------
    array, (B, C, (Z), Y, X)
        The patches.
    """
    out = pool.take((*rows.shape, *patch_size), checked_dtype(dtype))
    numpy_gather(images, rows, patch_size, n_scales, mode, out)
    return out

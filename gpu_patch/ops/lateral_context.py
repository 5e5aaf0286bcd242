"""Mixed channels at several scales around a patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch._numpy.lateral_context import lateral_context as numpy_lateral_context
from gpu_patch._numpy.memory import pool
from gpu_patch.ops._arguments import checked_dtype
from gpu_patch.plan import Rows


def lateral_context(
    images: Sequence[NDArray[Any]],
    rows: Rows,
    weights: NDArray[np.float32],
    patch_size: tuple[int, ...],
    n_scales: int,
    *,
    mode: str,
    dtype: DTypeLike = np.float32,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mix the channels of each sample, at the native scale and with lateral context.

    Scale s is the window of 2^s times the patch's size around the patch's centre, downscaled to
    the patch's size by `skimage.transform.resize` with its defaults (`geometry.fir_taps`).
    Downscaling is linear, so channels are mixed first and filtered once.

    Parameters
    ----------
    images : sequence of array, SC(Z)YX
        C-contiguous, of stored data types, all in one place.
    rows : Rows
        What to read, (B, C) rows.
    weights : array of float32, shape (B, C)
        Mixing weights.
    patch_size : tuple of int
        Pixels, (Z)YX.
    n_scales : int
        L, at least 1.
    mode : {"reflect", "wrap", "periodic"}
        What a window holds where it leaves the image.
    dtype : {float32, float16}
        Of the results.

    Returns
    -------
    input : array, (B, L, (Z), Y, X)
        The mixture at each scale.
    target : array, (B, C, (Z), Y, X)
        Each channel at the native scale, unweighted.
    """
    found = checked_dtype(dtype)
    n_samples, n_channels = rows.shape
    mixed = pool.take((n_samples, n_scales, *patch_size), np.float32)
    target = pool.take((n_samples, n_channels, *patch_size), np.float32)
    numpy_lateral_context(images, rows, weights, patch_size, mode, mixed, target)
    return mixed.astype(found, copy=False), target.astype(found, copy=False)

"""Anti-aliased downscaling by powers of two, axis by axis."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gpu_patch.device.host_memory import pool
from gpu_patch.geometry import fir_blocks, fir_taps, mirror

# Outputs per small matrix product: with few the matrix has few zeros, with many BLAS is busy.
_ROWS = 4
_COLUMNS = 16


def downscale(
    windows: NDArray[np.float32],
    size: tuple[int, ...],
    scale: int,
    axes: Iterable[int],
    *,
    finite: bool,
) -> NDArray[np.float32]:
    """Downscale windows by ``2**scale`` along some spatial axes.

    Parameters
    ----------
    windows : array, shape (n, N, ...)
        The windows.
    size : tuple of int
        Size of the downscaled windows, one entry per spatial axis.
    scale : int
        At least 1.
    axes : iterable of int
        Spatial axes to downscale, 0 being the first.
    finite : bool
        Whether all values are known to be finite.

    Returns
    -------
    array of float32
        As `windows`, with `size` along `axes`.
    """
    for axis in axes:
        at = axis - len(size)
        result = _by_blocks(windows, at, size[axis], scale)
        # the matrix's zeros times infinity or NaN are NaN: keep only those that taps reach
        # (and only in their own sample: a patch must not depend on its batch)
        if not finite:
            bad = ~np.isfinite(result).reshape(len(result), -1).all(axis=1)
            if bad.any():
                result[bad] = by_taps(windows[bad], at, size[axis], scale)
        windows = result
    return windows


def by_taps(windows: NDArray[np.float32], axis: int, size: int, scale: int) -> NDArray[np.float32]:
    """Downscale one axis, counted from the end: the definition, tap by tap."""
    taps, offset = fir_taps(scale)
    outputs = np.arange(size) << scale
    shape = list(windows.shape)
    shape[axis] = size
    result = np.zeros(shape, np.float32)
    for k, tap in enumerate(taps.astype(np.float32)):
        result += tap * windows.take(mirror(outputs + offset + k, size << scale), axis=axis)
    return result


def _by_blocks(
    windows: NDArray[np.float32], axis: int, size: int, scale: int
) -> NDArray[np.float32]:
    """Do the same as `by_taps`, as small dense products.

    A FIR of stride f is a banded matrix; a block of its rows leaves most of the zeros out.
    """
    shape = list(windows.shape)
    shape[axis] = size
    result = pool.take(shape, np.float32)
    if axis == -1:
        # one product per sample: BLAS rounds by shape, and the batch's size must not matter
        n = len(windows)
        flat, out = windows.reshape(n, -1, windows.shape[-1]), result.reshape(n, -1, size)
        for first, start, weights in fir_blocks(size, scale, _COLUMNS):
            count, reads = weights.shape
            pixels = flat[..., start : start + reads]
            np.matmul(pixels, weights.T, out=out[..., first : first + count])
    else:
        source, out = windows.swapaxes(axis, -2), result.swapaxes(axis, -2)
        for first, start, weights in fir_blocks(size, scale, _ROWS):
            count, reads = weights.shape
            pixels = source[..., start : start + reads, :]
            np.matmul(weights, pixels, out=out[..., first : first + count, :])
    return result

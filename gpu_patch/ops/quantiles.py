"""Quantiles of repeated predictions, exact, of all samples of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_patch._numpy.quantiles import quantiles as numpy_quantiles
from gpu_patch.ops.image_set import runtime_of


def quantiles(samples: Any, out: Any, at: Sequence[float]) -> None:
    """Make quantiles of several samples of a batch.

    Between two sorted values, a quantile is their weighted mean, as NumPy's method "linear" has it,
    in float32. Of values one of which is NaN, it is NaN.

    Parameters
    ----------
    samples : array of float32, shape (S, B, C, (Z), Y, X)
        All samples; C-contiguous, NumPy's or CuPy's. Samples of a value are put in another order.
    out : array of float32, shape (B, C · Q, (Z), Y, X)
        All quantiles of the first channel, then those of the next.
    at : sequence of float
        Q quantiles, in 0 … 1.
    """
    runtime = runtime_of(samples, "samples")
    if runtime_of(out, "out") is not runtime:
        raise ValueError("out must be on the device that the samples are on")
    n_samples, n_tiles, n_channels, *size = samples.shape
    wanted = (n_tiles, n_channels * len(at), *size)
    for name, array in (("samples", samples), ("out", out)):
        if array.dtype != np.float32 or not array.flags.c_contiguous:
            raise ValueError(f"{name} must be C-contiguous float32, found {array.dtype}")
    if tuple(out.shape) != wanted:
        raise ValueError(f"out must be of the shape {wanted}, found {tuple(out.shape)}")
    places = (n_samples - 1) * np.asarray(at, np.float64)
    lower = np.floor(places).astype(np.int32)
    weights = (places - lower).astype(np.float32)
    if runtime is None:
        with np.errstate(over="ignore", invalid="ignore"):
            numpy_quantiles(samples, out, lower, weights)
        return
    from gpu_patch._cuda.quantiles import quantiles as cuda_quantiles

    cuda_quantiles(runtime, samples, out, lower, weights)

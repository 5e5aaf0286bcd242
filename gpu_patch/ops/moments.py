"""Mean and standard deviation of repeated predictions, one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_patch._host.library import active
from gpu_patch._host.moments import add_sample as host_add_sample
from gpu_patch._numpy.moments import add_sample as numpy_add_sample
from gpu_patch.ops.image_set import runtime_of


def add_sample(values: Any, moments: Any, number: int, n_samples: int) -> None:
    """Add one of several samples of a batch to their moments (Welford, 1962).

    Parameters
    ----------
    values : array of float32 or float16, shape (B, C, (Z), Y, X)
        The sample; C-contiguous, NumPy's or CuPy's.
    moments : array of float32, shape (B, 2C, (Z), Y, X)
        First the C means of what was added, then sums of squared deviations, which the last
        sample turns into standard deviations, unbiased as those of `torch.std`. Undefined before
        the first sample.
    number, n_samples : int
        Which sample this is, from 1 on, and how many there will be, at least 2.
    """
    runtime = runtime_of(values, "values")
    if runtime_of(moments, "moments") is not runtime:
        raise ValueError("moments must be on the device that the values are on")
    if values.dtype not in (np.float32, np.float16) or not values.flags.c_contiguous:
        raise ValueError(f"values must be C-contiguous float32 or float16, found {values.dtype}")
    wanted = (values.shape[0], 2 * values.shape[1], *values.shape[2:])
    if tuple(moments.shape) != wanted or moments.dtype != np.float32:
        raise ValueError(
            f"moments must be float32 of the shape {wanted}, found {moments.dtype} of "
            f"{tuple(moments.shape)}"
        )
    if not moments.flags.c_contiguous:
        raise ValueError("moments must be C-contiguous")
    if not 1 <= number <= n_samples or n_samples < 2:
        raise ValueError(
            f"number must be in 1 … n_samples and n_samples at least 2, found {number} and "
            f"{n_samples}"
        )
    library = active() if runtime is None and n_samples < 1 << 24 else None
    if library is not None:
        host_add_sample(library, values, moments, number, n_samples)
        return
    if runtime is None:
        # predictions that are infinite give NaN: no warning of NumPy's
        with np.errstate(over="ignore", invalid="ignore"):
            numpy_add_sample(values, moments, number, n_samples)
        return
    from gpu_patch._cuda.moments import add_sample as cuda_add_sample

    cuda_add_sample(runtime, values, moments, number, n_samples)

"""Quantiles of repeated predictions, in one launch."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._cuda.runtime import Runtime, launch
from gpu_patch.table import pack

_THREADS = 256

_JOB = np.dtype(
    [
        ("n_values", np.int64),
        ("n_pixels", np.int64),
        ("n_samples", np.int32),
        ("n_quantiles", np.int32),
        ("top", np.int32),
        ("unused", np.int32),
    ]
)
"""`struct QuantilesJob`."""

_QUANTILE = np.dtype([("lower", np.int32), ("weight", np.float32)])
"""`struct Quantile`."""


def quantiles(
    runtime: Runtime,
    samples: Any,
    out: Any,
    lower: NDArray[np.int32],
    weights: NDArray[np.float32],
) -> None:
    """Make quantiles; see `ops.quantiles`."""
    n_samples, n_values = len(samples), prod(samples.shape[1:])
    top = 1 << (n_samples - 1).bit_length() >> 1
    job = np.array((n_values, prod(samples.shape[3:]), n_samples, len(lower), top, 0), _JOB)
    wanted = np.zeros(len(lower), _QUANTILE)
    wanted["lower"], wanted["weight"] = lower, weights
    with runtime.active():
        packed, offsets = pack(job, wanted)
        device = runtime.upload(packed)
        addresses = [runtime.pointer(device) + at for at in offsets]
        launch(
            runtime.kernel("quantiles", "quantiles", {}),
            -(-n_values // _THREADS),
            (_THREADS,),
            [*addresses, runtime.pointer(samples), runtime.pointer(out)],
        )

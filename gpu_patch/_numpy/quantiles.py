"""Quantiles of repeated predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def quantiles(
    samples: NDArray[np.float32],
    out: NDArray[np.float32],
    lower: NDArray[np.int32],
    weights: NDArray[np.float32],
) -> None:
    """Make quantiles (B, C · Q, (Z), Y, X) of samples (S, B, C, (Z), Y, X); see `ops.quantiles`."""
    n_samples, _, n_channels = samples.shape[:3]
    upper = np.minimum(lower + 1, n_samples - 1)
    needed = np.unique([lower, upper])
    for tile, made in enumerate(out):
        # channel by channel, so that intermediate values stay in the cache
        for c in range(n_channels):
            column = samples[:, tile, c]
            has_nan = np.isnan(column).any(axis=0)
            column.partition(needed, axis=0)
            for k, weight in enumerate(weights):
                low, high = column[lower[k]], column[upper[k]]
                value = low
                if weight:
                    between = low * (np.float32(1) - weight) + high * weight
                    value = np.where(low == high, low, between)
                value = np.where(has_nan, np.float32(np.nan), value)
                # 0 for −0, of which sorting tells neither
                np.add(value, np.float32(0), out=made[c * len(weights) + k])

"""Mean and standard deviation of repeated predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.device.host_memory import pool


def add_sample(
    values: NDArray[Any], moments: NDArray[np.float32], number: int, n_samples: int
) -> None:
    """Add a sample (B, C, (Z), Y, X) to moments (B, 2C, (Z), Y, X); see `ops.moments`."""
    n_channels = values.shape[1]
    deviation, change = (pool.take(values.shape[2:], np.float32) for _ in range(2))
    for tile, sums in zip(values, moments, strict=True):
        # channel by channel, so that intermediate values stay in the cache
        for c, value in enumerate(tile):
            mean, spread = sums[c], sums[n_channels + c]
            if number == 1:
                mean[...] = value
                spread[...] = 0
            else:
                np.subtract(value, mean, out=deviation, dtype=np.float32)
                np.divide(deviation, np.float32(number), out=change)
                mean += change
                np.subtract(value, mean, out=change, dtype=np.float32)
                change *= deviation
                spread += change
            if number == n_samples:
                spread /= np.float32(n_samples - 1)
                np.sqrt(spread, out=spread)

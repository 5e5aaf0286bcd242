"""Mean and standard deviation of repeated predictions, by the compiled kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.arguments import address, n_threads_for
from gpu_patch._host.library import Library, MomentsJob


def add_sample(
    library: Library,
    values: NDArray[Any],
    moments: NDArray[np.float32],
    number: int,
    n_samples: int,
) -> None:
    """Add a sample (B, C, (Z), Y, X) to moments (B, 2C, (Z), Y, X); see `ops.moments`."""
    n_tiles = len(values)
    n_values = values.size // max(n_tiles, 1)
    is_half = values.dtype == np.float16
    n_threads = n_threads_for(values.size)
    job = MomentsJob(n_tiles, n_values, is_half, number, n_samples, n_threads)
    library.call("add_sample", job, address(values), address(moments))

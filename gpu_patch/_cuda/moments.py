"""Mean and standard deviation of repeated predictions, in one launch per sample."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from gpu_patch._cuda.runtime import Runtime, launch
from gpu_patch.table import PIXEL_TYPES

_PER_BLOCK = 4096
"""Values per block, PER_BLOCK in moments.cu."""

_JOB = np.dtype(
    [
        ("n_values", np.int64),
        ("n_blocks", np.uint32),
        ("number", np.int32),
        ("n_samples", np.int32),
        ("unused", np.int32),
    ]
)


def add_sample(runtime: Runtime, values: Any, moments: Any, number: int, n_samples: int) -> None:
    """Add a sample (B, C, (Z), Y, X) to moments (B, 2C, (Z), Y, X); see `ops.moments`."""
    n_values = prod(values.shape[1:])
    n_blocks = -(-n_values // _PER_BLOCK)
    job = np.array((n_values, n_blocks, number, n_samples, 0), _JOB)
    with runtime.active():
        device = runtime.upload(job.reshape(1).view(np.uint8))
        launch(
            runtime.kernel("moments", "add_sample", {"VALUE_TYPE": PIXEL_TYPES[values.dtype]}),
            len(values) * n_blocks,
            (256,),
            [runtime.pointer(array) for array in (device, values, moments)],
        )

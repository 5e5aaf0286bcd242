"""What CUDA refuses: limits of the calls that the package makes, on all devices from 7.0 on."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

MOST_PITCH = (1 << 31) - 1
"""Bytes from row to row of a copy: the device attribute maxPitch."""
MOST_BLOCKS = ((1 << 31) - 1, (1 << 16) - 1, (1 << 16) - 1)
MOST_THREADS, MOST_THREADS_PER_AXIS = 1024, (1024, 1024, 64)
MOST_SHARED_BYTES = 48 << 10
"""Of a block that asks for no more by an attribute of its kernel."""
MOST_PARAMETER_BYTES = 4096
"""Of a kernel; newer compilers and drivers allow 32,764."""


class CUDARuntimeError(RuntimeError):
    """`cupy_backends.cuda.api.runtime.CUDARuntimeError`."""


def check_launch(
    grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared_bytes: int
) -> None:
    """Refuse what `cuLaunchKernel` refuses."""
    blocks, threads = ((*sizes, 1, 1)[:3] for sizes in (grid, block))
    fits = (
        all(1 <= n <= most for n, most in zip(blocks, MOST_BLOCKS, strict=True))
        and all(1 <= n <= most for n, most in zip(threads, MOST_THREADS_PER_AXIS, strict=True))
        and prod(threads) <= MOST_THREADS
        and 0 <= shared_bytes <= MOST_SHARED_BYTES
    )
    if not fits:
        raise CUDARuntimeError(
            f"cudaErrorInvalidConfiguration: blocks {grid}, threads {block}, {shared_bytes} bytes "
            "of shared memory"
        )
    for argument in arguments:
        # by value, as CuPy passes NumPy's scalars and structures: their width must be the C type's;
        # a Python int as int64
        structure = isinstance(argument, np.ndarray) and argument.size == 1
        number = type(argument) is int and -(1 << 63) <= argument < 1 << 63
        assert structure or number or isinstance(argument, np.generic), type(argument)
    n_bytes = sum(-(-np.asarray(argument).nbytes // 8) * 8 for argument in arguments)
    if n_bytes > MOST_PARAMETER_BYTES:
        raise CUDARuntimeError(f"cudaErrorInvalidValue: {n_bytes} bytes of parameters")


def check_copy(width: int, height: int, pitches: Sequence[int]) -> None:
    """Refuse what `cudaMemcpy2DAsync` refuses; rows of one are not spaced."""
    if any(not width <= pitch for pitch in pitches) or max(pitches) > MOST_PITCH:
        raise CUDARuntimeError(
            f"cudaErrorInvalidPitchValue: {height} rows of {width} bytes, {pitches} apart"
        )

"""What kernels of batches take: job, sources, records, and outputs of the sizes that they have."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.library import Job, Library, active
from gpu_patch.table import MODES, all_within, volume
from gpu_patch.threads import get_num_threads

_MOST_WINDOW = 1 << 30
"""Pixels of the largest window along an axis, to which a few more are added in 64 bits."""
_MOST_VALUES = 1 << 56
"""Of all outputs, and of a coordinate."""
_WORK_OF_A_THREAD = 1 << 20
"""Pixels read, and six times those written per channel, that are worth waking a thread for.

One core takes about 100 µs for so many, at one scale as at five (AVX-512, measured at one to five
scales), and waking a thread of the pool and waiting for it up to half as long.
"""
_OF_WRITING, _OF_A_VALUE = 6, 2
_BYTE = ctypes.c_char


def serving(
    sources_shape: tuple[int, int], patch_size: Sequence[int], n_scales: int
) -> Library | None:
    """Return the library that computes a batch; None where NumPy does."""
    library = active()
    return library if library and serves(sources_shape, tuple(patch_size), n_scales) else None


@lru_cache(maxsize=64)
def serves(sources_shape: tuple[int, int], patch_size: tuple[int, ...], n_scales: int) -> bool:
    """Whether all sizes fit the kernels' integers; NumPy serves where they do not."""
    patch = [int(side) for side in patch_size]
    n_samples, n_channels = sources_shape
    values = n_samples * n_channels * max(n_scales, 1)
    for side in patch:
        values *= side
    return (
        n_scales < 24
        and min(patch) >= 1
        and max(patch) << max(n_scales, 0) < _MOST_WINDOW
        and n_channels < 1 << 15
        and values < _MOST_VALUES
    )


def job_of(
    sources_shape: tuple[int, int],
    patch_size: Sequence[int],
    n_scales: int,
    mode: str,
    dtype: np.dtype[Any],
    scale: int,
) -> Job:
    """Return what a kernel is told; `scale` is the largest that is read."""
    size = tuple(patch_size)
    work = prod(sources_shape) * prod(size) * ((1 << scale * len(size)) + _OF_WRITING)
    return _job(sources_shape, size, n_scales, mode, dtype.char, _n_threads(work))


@lru_cache(maxsize=64)  # batches are alike, and to make it takes longer than to look it up
def _job(
    sources_shape: tuple[int, int],
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    kind: str,
    n_threads: int,
) -> Job:
    n_samples, n_channels = sources_shape
    depth, height, width = volume(patch_size)
    return Job(
        (depth, height, width),
        n_samples,
        n_channels,
        n_scales,
        len(patch_size),
        MODES.index(mode),
        kind == "e",
        n_threads,
    )


def n_threads_for(n_values: int) -> int:
    """Return how many threads are worth being woken for values that are read and written."""
    return _n_threads(_OF_A_VALUE * n_values)


def _n_threads(work: int) -> int:
    return max(1, min(get_num_threads(), work // _WORK_OF_A_THREAD))


def check_coords(coords: NDArray[np.int64]) -> None:
    """Check that windows around these places can be counted in 64 bits."""
    if not all_within(coords, -_MOST_VALUES, _MOST_VALUES):
        raise ValueError("sources.coords must be within ±2^56")


def address(array: NDArray[Any] | None) -> int | None:
    """Return where a C-contiguous array is, None where there is none."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    if array.size and array.flags.writeable:
        return ctypes.addressof(_BYTE.from_buffer(array))  # type: ignore[arg-type]  # quicker than its own words
    found: int = array.ctypes.data
    return found

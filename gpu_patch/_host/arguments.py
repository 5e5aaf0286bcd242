"""What compiled functions take: sizes that fit them, threads, and addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

from numpy.typing import NDArray

from gpu_patch._host.library import Library, active
from gpu_patch.threads import get_num_threads

_MOST_WINDOW = 1 << 30
"""Pixels of the largest window along an axis, to which a few more are added in 64 bits."""
_MOST_VALUES = 1 << 56
"""Of all outputs."""
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


def n_threads_for_windows(
    sources_shape: tuple[int, int], patch_size: Sequence[int], scale: int
) -> int:
    """Return how many threads are worth being woken for windows up to a scale."""
    pixels = prod(sources_shape) * prod(patch_size)
    return _n_threads(pixels * ((1 << scale * len(patch_size)) + _OF_WRITING))


def n_threads_for(n_values: int) -> int:
    """Return how many threads are worth being woken for values that are read and written."""
    return _n_threads(_OF_A_VALUE * n_values)


def _n_threads(work: int) -> int:
    return max(1, min(get_num_threads(), work // _WORK_OF_A_THREAD))


def address(array: NDArray[Any] | None) -> int | None:
    """Return where a C-contiguous array is, None where there is none."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    if array.size and array.flags.writeable:
        return ctypes.addressof(_BYTE.from_buffer(array))  # type: ignore[arg-type]  # quicker than its own words
    found: int = array.ctypes.data
    return found

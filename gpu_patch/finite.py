"""Values that are NaN or infinite: how many, and whether any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpu_patch.device import is_cuda_array, library_of, on_device

_CPU_STRIP = 1 << 16
_CUDA_STRIP = 1 << 22
"""Values at once: what is made of them stays in a cache, or takes little memory of a device."""

_HALF_EXPONENT = 0x7C00


def count_not_finite(array: Any) -> int:
    """Return how many values are NaN or infinite.

    Parameters
    ----------
    array : numpy.ndarray or cupy.ndarray
        Of any data type; integers are not looked at.
    """
    return sum(_counts(array))


def is_finite(array: Any) -> bool:
    """Tell whether no value is NaN or infinite; the array is as that of `count_not_finite`."""
    return not any(_counts(array))


def _counts(array: Any) -> Iterator[int]:
    """Count strip by strip."""
    if array.dtype.kind != "f":
        return
    flat = array.reshape(-1)
    if not is_cuda_array(array):
        for i in range(0, flat.size, _CPU_STRIP):
            yield _count_on_host(flat[i : i + _CPU_STRIP])
        return
    cupy = library_of(array)
    with on_device(f"cuda:{array.device.id}"):
        for i in range(0, flat.size, _CUDA_STRIP):
            strip = flat[i : i + _CUDA_STRIP]
            yield strip.size - int(cupy.count_nonzero(cupy.isfinite(strip)))


def _count_on_host(values: Any) -> int:
    if values.dtype == np.float16:  # which NumPy converts one by one
        exponents = values.view(np.uint16) & np.uint16(_HALF_EXPONENT)
        return int(np.count_nonzero(exponents == _HALF_EXPONENT))
    return int(values.size - np.count_nonzero(np.isfinite(values)))

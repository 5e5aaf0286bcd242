"""The images that operations read, and which backend reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_patch.device import is_cuda_array, out_of_memory

if TYPE_CHECKING:
    from gpu_patch._cuda.runtime import Runtime
    from gpu_patch._cuda.table import ImageTable


class Images:
    """Arrays SC(Z)YX, all in one place.

    A constructor makes this once, so that what a backend has to know of the images is gathered
    once and not for every batch.

    Parameters
    ----------
    arrays : sequence of array
        C-contiguous, of stored data types; NumPy's or CuPy's.
    """

    def __init__(self, arrays: Sequence[Any]) -> None:
        self.arrays = arrays

    def __reduce__(self) -> tuple[Any, ...]:
        # a table of addresses means nothing in another process
        return Images, (self.arrays,)

    @cached_property
    def runtime(self) -> Runtime | None:
        """What runs the kernels; None where NumPy computes."""
        return runtime_of(self.arrays[0])

    def no_room_for_patches(self, error: MemoryError) -> MemoryError:
        """Return what to raise where their device had no room for a batch."""
        return out_of_memory(f"cuda:{self.arrays[0].device.id}", "patches", error)

    @cached_property
    def table(self) -> ImageTable:
        """Addresses, shapes and types, for the kernels."""
        from gpu_patch._cuda.table import ImageTable

        assert self.runtime is not None
        return ImageTable(self.runtime, self.arrays)


def runtime_of(array: Any) -> Runtime | None:
    """Return what runs kernels on `array`, None for a NumPy array."""
    if isinstance(array, np.ndarray):
        return None
    if is_cuda_array(array):
        from gpu_patch._cuda.runtime import cupy_runtime

        return cupy_runtime(array.device.id)
    raise TypeError(f"images must be NumPy or CuPy arrays, found {type(array).__name__}")


def as_images(images: Images | Sequence[Any]) -> Images:
    """Return `images` as `Images`."""
    return images if isinstance(images, Images) else Images(images)

"""The images that operations read, and which backend reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_patch._host.library import HOST
from gpu_patch.chunks.image import ChunkedImage
from gpu_patch.device import is_cuda_array, out_of_memory
from gpu_patch.ops.paged_set import Make, PagedSet
from gpu_patch.sources import ChannelSources
from gpu_patch.table import ImageTable

if TYPE_CHECKING:
    from gpu_patch._cuda.runtime import Runtime


class ImageSet:
    """Arrays SC(Z)YX, all in one place.

    A constructor makes this once, so that what a backend has to know of the images is gathered
    once and not for every batch.

    Parameters
    ----------
    arrays : sequence of array
        C-contiguous, of stored data types; NumPy's or CuPy's. Or all of them `ChunkedImage`.
    names : sequence of str, optional
        What messages call the arrays, such as the file each is from.
    """

    def __init__(self, arrays: Sequence[Any], names: Sequence[str] | None = None) -> None:
        self.arrays = arrays
        self.names = ["array"] * len(arrays) if names is None else names
        n_chunked = sum(isinstance(array, ChunkedImage) for array in arrays)
        if n_chunked not in (0, len(arrays)):
            raise ValueError(
                f"images must all be resident or all be chunked, found {n_chunked} of "
                f"{len(arrays)} chunked"
            )
        self.pages = PagedSet(arrays) if n_chunked else None

    def __reduce__(self) -> tuple[Any, ...]:
        # without `table`, whose addresses are of this process alone
        return ImageSet, (self.arrays, self.names)

    def read(
        self,
        sources: ChannelSources,
        patch_size: Sequence[int],
        scale: int,
        n_scales: int,
        mode: str,
        make: Make,
    ) -> None:
        """Call `make` with what the host's operations read; see `PagedSet.read`."""
        if self.pages is None:
            make(self.arrays, sources, slice(None))
        else:
            self.pages.read(sources, patch_size, scale, n_scales, mode, make)

    @cached_property
    def dtypes(self) -> tuple[np.dtype[Any], ...]:
        """The data types that occur, each once."""
        return tuple(dict.fromkeys(np.dtype(array.dtype) for array in self.arrays))

    @cached_property
    def wide_integers(self) -> tuple[np.dtype[Any], ...]:
        """Those of labels that float32 does not hold."""
        return tuple(kind for kind in self.dtypes if kind.kind in "iu" and kind.itemsize > 2)

    @cached_property
    def runtime(self) -> Runtime | None:
        """What runs the kernels; None where NumPy computes."""
        return runtime_of(self.arrays[0])

    @contextmanager
    def telling_of_no_room(self) -> Iterator[None]:
        """Raise what there is to say where their device has no room for a batch."""
        try:
            yield
        except MemoryError as error:
            image = self.arrays[0]
            device = f"cuda:{image.device.id}" if self.pages is None else image.cache.device
            raise out_of_memory(device, "patches", error) from error

    @cached_property
    def table(self) -> ImageTable:
        """Addresses, shapes and types, for the kernels."""
        return ImageTable(HOST if self.runtime is None else self.runtime, self.arrays)


def runtime_of(array: Any, name: str = "images") -> Runtime | None:
    """Return what runs kernels on `array`, None for a NumPy array; errors call it `name`."""
    if isinstance(array, ChunkedImage):
        device: str = array.cache.device
    elif isinstance(array, np.ndarray):
        device = "cpu"
    elif is_cuda_array(array):
        device = f"cuda:{array.device.id}"
    else:
        raise TypeError(f"{name} must be NumPy or CuPy arrays, found {type(array).__name__}")
    if device == "cpu":
        return None
    from gpu_patch._cuda.runtime import cupy_runtime

    return cupy_runtime(int(device.partition(":")[2]))


def as_images(images: ImageSet | Sequence[Any]) -> ImageSet:
    """Return `images` as an `ImageSet`."""
    return images if isinstance(images, ImageSet) else ImageSet(images)

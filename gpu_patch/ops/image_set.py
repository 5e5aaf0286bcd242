"""The images that operations read, and which backend reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_patch._host.library import HOST
from gpu_patch.chunks.image import ChunkedImage, ChunkKey
from gpu_patch.chunks.windows import Cuts, Keys, plan_cuts, touched
from gpu_patch.device import is_cuda_array, out_of_memory
from gpu_patch.device.host_memory import pool
from gpu_patch.ops.assemble import assemble
from gpu_patch.ops.paged_set import Make, PagedSet
from gpu_patch.pages import PageCache
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
    whole : sequence of array, optional
        What the arrays are cut from: these, and not the cuts, decide which kernel serves.
    names : sequence of str, optional
        What messages call the arrays, such as the file each is from.
    """

    def __init__(
        self,
        arrays: Sequence[Any],
        whole: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.arrays = arrays
        self.names = ["array"] * len(arrays) if names is None else names
        self._whole = arrays if whole is None else whole
        n_chunked = sum(isinstance(array, ChunkedImage) for array in arrays)
        if n_chunked not in (0, len(arrays)):
            raise ValueError(
                f"images must all be resident or all be chunked, found {n_chunked} of "
                f"{len(arrays)} chunked"
            )
        self.chunked = n_chunked > 0
        n_paged = sum(isinstance(array.cache, PageCache) for array in arrays) if n_chunked else 0
        if n_paged not in (0, len(arrays)):
            raise ValueError(
                f"images must all be in a PageCache or none, found {n_paged} of {len(arrays)}"
            )
        self.pages = PagedSet(arrays) if n_paged else None

    def __reduce__(self) -> tuple[Any, ...]:
        # without `table`, whose addresses are of this process alone
        return ImageSet, (self.arrays, None, self.names)

    def resident(
        self,
        sources: ChannelSources,
        patch_size: Sequence[int],
        scale: int,
        n_scales: int,
        mode: str,
    ) -> tuple[ImageSet, ChannelSources]:
        """Return images that are resident, and sources that read the same from them.

        Parameters
        ----------
        sources, patch_size
            What is read.
        scale, n_scales, mode : int, int, str
            The largest scale that is read, and what borders fold into.
        """
        if not self.chunked:
            return self, sources
        cuts = self.cuts(sources, patch_size, scale, n_scales, mode)
        arrays = self._new_arrays(cuts)
        for keys, copies in cuts.parts():
            with ExitStack() as stack:
                chunks: dict[ChunkKey, Any] = {}
                # every thread takes the caches in one order, or two could wait for each other
                for cache, wanted in sorted(keys.items(), key=lambda item: id(item[0])):
                    chunks |= stack.enter_context(cache.hold(wanted))
                assemble(self.runtime, copies, chunks, arrays)
        return ImageSet(arrays, self._whole), cuts.sources

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
        if self.pages is not None:
            self.pages.read(sources, patch_size, scale, n_scales, mode, make)
        else:
            resident, sources = self.resident(sources, patch_size, scale, n_scales, mode)
            make(resident.arrays, sources, slice(None))

    def _new_arrays(self, cuts: Cuts) -> list[Any]:
        if self.runtime is None:
            return [pool.take(shape, dtype) for dtype, shape in cuts.groups]
        with self.runtime.active():
            try:
                return [self.runtime.output(shape, dtype) for dtype, shape in cuts.groups]
            except MemoryError as error:
                device = self.arrays[0].cache.device
                raise out_of_memory(device, "windows of images", error) from error

    def cuts(
        self,
        sources: ChannelSources,
        patch_size: Sequence[int],
        scale: int,
        n_scales: int,
        mode: str,
    ) -> Cuts:
        """Plan what `resident` makes of chunked images."""
        return plan_cuts(self.arrays, sources, patch_size, scale, n_scales, mode)

    def touched(self, sources: ChannelSources, patch_size: Sequence[int], scale: int) -> Keys:
        """Return the chunks of chunked images that lie under what is read."""
        return touched(self.arrays, sources, patch_size, scale)

    @cached_property
    def dtypes(self) -> tuple[np.dtype[Any], ...]:
        """The data types that occur, each once."""
        return tuple(dict.fromkeys(np.dtype(array.dtype) for array in self.arrays))

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
            device = image.cache.device if self.chunked else f"cuda:{image.device.id}"
            raise out_of_memory(device, "patches", error) from error

    @cached_property
    def table(self) -> ImageTable:
        """Addresses, shapes and types, for the kernels."""
        return ImageTable(HOST if self.runtime is None else self.runtime, self.arrays, self._whole)


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

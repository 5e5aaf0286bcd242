"""Patches at their native scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch._host.arguments import serving
from gpu_patch._host.gather import HostGather
from gpu_patch._host.library import HOST, Library
from gpu_patch._numpy.gather import gather as numpy_gather
from gpu_patch.device.host_memory import pool
from gpu_patch.epilogue import Epilogue
from gpu_patch.ops.arguments import (
    check_converted,
    check_epilogue,
    check_rows,
    check_sources,
    checked_dtype,
)
from gpu_patch.ops.image_set import ImageSet, as_images
from gpu_patch.ops.record_maker import Records, record_maker
from gpu_patch.pages.slot_table import SlotTable
from gpu_patch.sources import ChannelSources

if TYPE_CHECKING:
    from gpu_patch._cuda.runtime import Runtime


def gather(
    images: ImageSet | Sequence[Any],
    sources: ChannelSources,
    patch_size: tuple[int, ...],
    *,
    mode: str = "zero",
    n_scales: int = 0,
    dtype: DTypeLike = np.float32,
    epilogue: Epilogue | None = None,
) -> Any:
    """Cut patches out of images.

    Parameters
    ----------
    images : ImageSet or sequence of array, SC(Z)YX
        C-contiguous, of stored data types, all in one place.
    sources : ChannelSources
        What to read, of B samples and C channels.
    patch_size : tuple of int
        Pixels, (Z)YX.
    mode : {"zero", "reflect", "wrap", "periodic"}
        What a patch holds where it leaves the image.
    n_scales : int
        Under "reflect" and "wrap", the image is cut to the window of this scale first; see
        `geometry.border_range`.
    dtype : {float32, float16}, or an integer type or bool
        Of the result. Integers are copied exactly: the type must hold all values of the images',
        which are integers or bool.
    epilogue : Epilogue or None, default None
        What happens to the values; the patches are the epilogue's input. Integers are turned, and
        that is all.

    Returns
    -------
    array, (B, C, (Z), Y, X)
        The patches, where the images are.

    Raises
    ------
    TypeError
        The images have values that `dtype` does not hold.
    """
    how = (images, sources, patch_size)
    return Gather(*how, mode=mode, n_scales=n_scales, dtype=dtype, epilogue=epilogue)()


class Gather:
    """What `gather` does, of any rows of the columns of its arguments, which are checked once.

    The arguments are those of `gather`; nobody may change them later.
    """

    def __init__(
        self,
        images: ImageSet | Sequence[Any],
        sources: ChannelSources,
        patch_size: tuple[int, ...],
        *,
        mode: str = "zero",
        n_scales: int = 0,
        dtype: DTypeLike = np.float32,
        epilogue: Epilogue | None = None,
    ) -> None:
        self._images, found = as_images(images), checked_dtype(dtype, integers=True)
        check_converted(self._images, found)
        check_sources(sources, patch_size)
        if epilogue is not None:
            check_epilogue(epilogue, sources.shape, None, patch_size)
        self._sources, self._epilogue = sources, epilogue
        self._how = (patch_size, n_scales, mode, found)
        self._on_host: HostGather | None = None
        self._records = Records()

    def __call__(self, rows: NDArray[np.int64] | None = None) -> Any:
        """Make a batch.

        Parameters
        ----------
        rows : array of int64, shape (B,), optional
            Which of the samples are its own; default all.

        Returns
        -------
        array, (B, C, (Z), Y, X)
            The patches, where the images are.

        Raises
        ------
        IndexError
            There are no such rows.
        """
        images, sources, epilogue = self._images, self._sources, self._epilogue
        runtime, library = images.runtime, None
        if runtime is None and _is_for_host(images, self._how[3]):
            n_samples = len(sources.image_idx if rows is None else rows)
            library = serving((n_samples, len(sources.channels)), *self._how[:2])
        if images.pages is None and library is not None:
            return self._by(library)(rows)
        if rows is not None:
            check_rows(rows, len(sources.image_idx))
        if images.pages is None and runtime is not None:
            from gpu_patch._cuda.gather import gather as cuda_gather

            of_images = (runtime, images.table, sources, *self._how)
            with images.telling_of_no_room():
                return cuda_gather(
                    *of_images, epilogue=epilogue, rows=rows, records=self._records()
                )
        if rows is not None:
            sources, epilogue = sources.rows(rows), epilogue and epilogue.rows(rows)
        if runtime is not None:
            return _by_page_on_cuda(images, runtime, sources, *self._how, epilogue)
        if library is not None:
            return _by_page_on_host(images, library, sources, *self._how, epilogue)
        return _by_numpy(images, sources, *self._how, epilogue)

    def _by(self, library: Library) -> HostGather:
        """Return what the compiled kernel takes; the same as long as it is this library's."""
        found = self._on_host
        if found is None or found.library is not library:
            of_images = (self._images.table, self._sources, *self._how)
            found = self._on_host = HostGather(library, *of_images, epilogue=self._epilogue)
        return found


def _is_for_host(images: ImageSet, dtype: np.dtype[Any]) -> bool:
    """Whether the compiled kernel reads these: of pages numbers alone, no labels."""
    return images.pages is None or dtype.kind == "f"


def _by_numpy(
    images: ImageSet,
    sources: ChannelSources,
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    dtype: np.dtype[Any],
    epilogue: Epilogue | None,
) -> NDArray[Any]:
    """Return the patches, made part by part as pages allow."""
    # the epilogue computes in float32
    computes = epilogue is not None and dtype.kind == "f"
    out = pool.take((*sources.shape, *patch_size), np.float32 if computes else dtype)

    def make(arrays: Sequence[Any], part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        numpy_gather(arrays, part, patch_size, n_scales, mode, out[samples], own)

    # what exceeds 65504 becomes infinite in float16: no warning of NumPy's
    with np.errstate(over="ignore", invalid="ignore"):
        images.read(sources, patch_size, 0, n_scales, mode, make)
        return out.astype(dtype, copy=False)


def _by_page_on_host(
    images: ImageSet,
    library: Library,
    sources: ChannelSources,
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    dtype: np.dtype[Any],
    epilogue: Epilogue | None,
) -> NDArray[Any]:
    """Return patches of images by page, made part by part as slots allow."""
    assert images.pages is not None
    how, out = (patch_size, n_scales, mode, dtype), pool.take((*sources.shape, *patch_size), dtype)

    def make(table: SlotTable, part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        HostGather(library, table, part, *how, epilogue=own)(out=out[samples])

    images.pages.read_in_place(HOST, sources, patch_size, 0, n_scales, mode, make)
    return out


def _by_page_on_cuda(
    images: ImageSet,
    runtime: Runtime,
    sources: ChannelSources,
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    dtype: np.dtype[Any],
    epilogue: Epilogue | None,
) -> Any:
    """Return patches of images by page, made part by part as slots allow."""
    from gpu_patch._cuda.gather import gather as cuda_gather

    assert images.pages is not None
    how, records = (patch_size, n_scales, mode, dtype), record_maker()
    with images.telling_of_no_room(), runtime.active():
        out = runtime.output((*sources.shape, *patch_size), dtype)

    def make(table: SlotTable, part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        with images.telling_of_no_room():
            where = out[samples]
            cuda_gather(runtime, table, part, *how, epilogue=own, records=records, out=where)

    images.pages.read_in_place(runtime, sources, patch_size, 0, n_scales, mode, make)
    return out

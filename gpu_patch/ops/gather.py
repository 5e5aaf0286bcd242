"""Patches at their native scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch._host.arguments import serving
from gpu_patch._host.gather import gather as host_gather
from gpu_patch._host.library import HOST, Library
from gpu_patch._numpy.gather import gather as numpy_gather
from gpu_patch.device.host_memory import pool
from gpu_patch.epilogue import Epilogue
from gpu_patch.ops.arguments import check_converted, check_epilogue, check_sources, checked_dtype
from gpu_patch.ops.image_set import ImageSet, as_images
from gpu_patch.ops.record_maker import record_maker
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
    given, found = as_images(images), checked_dtype(dtype, integers=True)
    check_converted(given, found)
    check_sources(sources, patch_size)
    if epilogue is not None:
        check_epilogue(epilogue, sources.shape, None, patch_size)
    if given.runtime is not None:
        return _by_cuda(given, given.runtime, sources, patch_size, n_scales, mode, found, epilogue)
    library = serving(sources.shape, patch_size, n_scales)
    if library is not None and _is_for_host(given, found):
        return _by_host(given, library, sources, patch_size, n_scales, mode, found, epilogue)
    # the epilogue computes in float32
    computes = epilogue is not None and found.kind == "f"
    out = pool.take((*sources.shape, *patch_size), np.float32 if computes else found)

    def make(arrays: Sequence[Any], part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        numpy_gather(arrays, part, patch_size, n_scales, mode, out[samples], own)

    # what exceeds 65504 becomes infinite in float16: no warning of NumPy's
    with np.errstate(over="ignore", invalid="ignore"):
        given.read(sources, patch_size, 0, n_scales, mode, make)
        return out.astype(found, copy=False)


def _is_for_host(images: ImageSet, dtype: np.dtype[Any]) -> bool:
    """Whether the compiled kernel reads these: of pages numbers alone, no labels."""
    return images.pages is None or dtype.kind == "f"


def _by_host(
    images: ImageSet,
    library: Library,
    sources: ChannelSources,
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    dtype: np.dtype[Any],
    epilogue: Epilogue | None,
) -> NDArray[Any]:
    """Return the patches, made at once or, of pages, part by part as slots allow."""
    how = (patch_size, n_scales, mode, dtype)
    if images.pages is None:
        return host_gather(library, images.table, sources, *how, epilogue=epilogue)
    out = pool.take((*sources.shape, *patch_size), dtype)

    def make(table: SlotTable, part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        host_gather(library, table, part, *how, epilogue=own, out=out[samples])

    images.pages.read_in_place(HOST, sources, patch_size, 0, n_scales, mode, make)
    return out


def _by_cuda(
    images: ImageSet,
    runtime: Runtime,
    sources: ChannelSources,
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    dtype: np.dtype[Any],
    epilogue: Epilogue | None,
) -> Any:
    """Return the patches, made at once or, of pages, part by part as slots allow."""
    from gpu_patch._cuda.gather import gather as cuda_gather

    how, records = (patch_size, n_scales, mode, dtype), record_maker()
    if images.pages is None:
        with images.telling_of_no_room():
            return cuda_gather(
                runtime, images.table, sources, *how, epilogue=epilogue, records=records
            )
    with images.telling_of_no_room(), runtime.active():
        out = runtime.output((*sources.shape, *patch_size), dtype)

    def make(table: SlotTable, part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        with images.telling_of_no_room():
            where = out[samples]
            cuda_gather(runtime, table, part, *how, epilogue=own, records=records, out=where)

    images.pages.read_in_place(runtime, sources, patch_size, 0, n_scales, mode, make)
    return out

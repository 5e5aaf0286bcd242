"""Mixed channels at several scales around a patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch._host import lateral_context as host
from gpu_patch._host.arguments import serving
from gpu_patch._host.library import HOST, Library
from gpu_patch._numpy.lateral_context import lateral_context as numpy_lateral_context
from gpu_patch.device.host_memory import pool
from gpu_patch.epilogue import Epilogue
from gpu_patch.ops.arguments import (
    check_converted,
    check_epilogue,
    check_sources,
    checked_dtype,
)
from gpu_patch.ops.image_set import ImageSet, as_images
from gpu_patch.ops.record_maker import record_maker
from gpu_patch.pages.slot_table import SlotTable
from gpu_patch.sources import ChannelSources

if TYPE_CHECKING:
    from gpu_patch._cuda.runtime import Runtime


def lateral_context(
    images: ImageSet | Sequence[Any],
    sources: ChannelSources,
    weights: NDArray[np.float32],
    patch_size: tuple[int, ...],
    n_scales: int,
    *,
    mode: str,
    targets: bool = True,
    dtype: DTypeLike = np.float32,
    epilogue: Epilogue | None = None,
) -> tuple[Any, Any]:
    """Mix the channels of each sample, at the native scale and with lateral context.

    Scale s is the window of 2^s times the patch's size around the patch's centre, downscaled to
    the patch's size by `skimage.transform.resize` with its defaults (`geometry.fir_taps`).
    Downscaling is linear, so channels are mixed first and filtered once.

    Parameters
    ----------
    images : ImageSet or sequence of array, SC(Z)YX
        C-contiguous, of stored data types, all in one place.
    sources : ChannelSources
        What to read, of B samples and C channels.
    weights : array of float32, shape (B, C)
        Mixing weights.
    patch_size : tuple of int
        Pixels, (Z)YX.
    n_scales : int
        L, at least 1.
    mode : {"reflect", "wrap", "periodic"}
        What a window holds where it leaves the image.
    targets : bool, default True
        Whether the channels themselves are wanted; a single one can do without.
    dtype : {float32, float16}
        Of the results.
    epilogue : Epilogue or None, default None
        What happens to the values; its input is the mixture.

    Returns
    -------
    input : array, (B, L, (Z), Y, X)
        The mixture at each scale.
    target : array, (B, C, (Z), Y, X), or None
        Each channel at the native scale, unweighted. Both are where the images are.
    """
    found, given = checked_dtype(dtype), as_images(images)
    check_converted(given, found)
    check_sources(sources, patch_size, weights)
    n_samples, n_channels = sources.shape
    wanted = targets or n_channels > 1
    if epilogue is not None:
        of_targets = sources.shape if wanted else None
        check_epilogue(epilogue, (n_samples, 1), of_targets, patch_size, sources=sources.shape)
    how = (patch_size, n_scales, mode, found)
    if given.runtime is not None:
        return _by_cuda(given, given.runtime, sources, weights, *how, targets, epilogue)
    library = serving(sources.shape, patch_size, n_scales)
    if library is not None:
        return _by_host(given, library, sources, weights, *how, wanted, epilogue)
    mixed = pool.take((n_samples, n_scales, *patch_size), np.float32)
    target = pool.take((n_samples, n_channels, *patch_size), np.float32) if wanted else None
    _by_numpy(given, sources, weights, mode, mixed, target, epilogue)
    # what exceeds 65504 becomes infinite in float16: no warning of NumPy's
    with np.errstate(over="ignore", invalid="ignore"):
        target = None if target is None else target.astype(found, copy=False)
        return mixed.astype(found, copy=False), target


def _by_numpy(
    images: ImageSet,
    sources: ChannelSources,
    weights: NDArray[np.float32],
    mode: str,
    mixed: NDArray[np.float32],
    target: NDArray[np.float32] | None,
    epilogue: Epilogue | None,
) -> None:
    """Fill input (B, L, (Z), Y, X) and target (B, C, (Z), Y, X), part by part as pages allow."""
    n_scales, patch_size = mixed.shape[1], mixed.shape[2:]

    def make(arrays: Sequence[Any], part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        of_target = None if target is None else target[samples]
        numpy_lateral_context(
            arrays, part, weights[samples], patch_size, mode, mixed[samples], of_target, own
        )

    with np.errstate(over="ignore", invalid="ignore"):  # images may hold infinities
        images.read(sources, patch_size, n_scales - 1, n_scales, mode, make)


def _by_host(
    images: ImageSet,
    library: Library,
    sources: ChannelSources,
    weights: NDArray[np.float32],
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    dtype: np.dtype[Any],
    targets: bool,
    epilogue: Epilogue | None,
) -> tuple[Any, Any]:
    """Return input and target, made at once or, of pages, part by part as slots allow."""
    how = (patch_size, n_scales, mode, dtype)
    if images.pages is None:
        return host.lateral_context(
            library, images.table, sources, weights, *how, targets=targets, epilogue=epilogue
        )
    mixed, target = host.new_outputs(sources.shape, n_scales, patch_size, dtype, targets=targets)

    def make(table: SlotTable, part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        out = mixed[samples], None if target is None else target[samples]
        host.lateral_context(
            library, table, part, weights[samples], *how, targets=targets, epilogue=own, out=out
        )

    images.pages.read_in_place(HOST, sources, patch_size, n_scales - 1, n_scales, mode, make)
    return mixed, target


def _by_cuda(
    images: ImageSet,
    runtime: Runtime,
    sources: ChannelSources,
    weights: NDArray[np.float32],
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    dtype: np.dtype[Any],
    targets: bool,
    epilogue: Epilogue | None,
) -> tuple[Any, Any]:
    """Return input and target, made at once or, of pages, part by part as slots allow."""
    from gpu_patch._cuda import lateral_context as cuda

    how, records = (patch_size, n_scales, mode, dtype), record_maker()
    if images.pages is None:
        with images.telling_of_no_room():
            return cuda.lateral_context(
                runtime, images.table, sources, weights, *how,
                targets=targets, epilogue=epilogue, records=records,
            )  # fmt: skip
    with images.telling_of_no_room(), runtime.active():
        mixed, target = cuda.new_outputs(
            runtime, sources.shape, n_scales, patch_size, dtype, targets=targets
        )

    def make(table: SlotTable, part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        out = mixed[samples], None if target is None else target[samples]
        with images.telling_of_no_room():
            cuda.lateral_context(
                runtime, table, part, weights[samples], *how,
                targets=targets, epilogue=own, records=records, out=out,
            )  # fmt: skip

    images.pages.read_in_place(runtime, sources, patch_size, n_scales - 1, n_scales, mode, make)
    return mixed, target

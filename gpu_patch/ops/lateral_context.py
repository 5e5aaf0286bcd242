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
    how = (images, sources, weights, patch_size, n_scales)
    return LateralContext(*how, mode=mode, targets=targets, dtype=dtype, epilogue=epilogue)()


class LateralContext:
    """What `lateral_context` does, of any rows of the columns of its arguments.

    The arguments are those of `lateral_context`. They are checked once, and nobody may change them
    later.
    """

    def __init__(
        self,
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
    ) -> None:
        found, self._images = checked_dtype(dtype), as_images(images)
        check_converted(self._images, found)
        check_sources(sources, patch_size, weights)
        n_samples, n_channels = sources.shape
        self._targets, self._wanted = targets, targets or n_channels > 1
        if epilogue is not None:
            of_targets = sources.shape if self._wanted else None
            check_epilogue(epilogue, (n_samples, 1), of_targets, patch_size, sources=sources.shape)
        self._sources, self._weights, self._epilogue = sources, weights, epilogue
        self._how = (patch_size, n_scales, mode, found)
        self._on_host: host.HostContext | None = None
        self._records = Records()

    def __call__(self, rows: NDArray[np.int64] | None = None) -> tuple[Any, Any]:
        """Make a batch.

        Parameters
        ----------
        rows : array of int64, shape (B,), optional
            Which of the samples are its own; default all.

        Returns
        -------
        input : array, (B, L, (Z), Y, X)
        target : array, (B, C, (Z), Y, X), or None

        Raises
        ------
        IndexError
            There are no such rows.
        """
        images, sources, weights = self._images, self._sources, self._weights
        epilogue, runtime, library = self._epilogue, images.runtime, None
        if runtime is None:
            n_samples = len(sources.image_idx if rows is None else rows)
            library = serving((n_samples, len(sources.channels)), *self._how[:2])
        if images.pages is None and library is not None:
            return self._by(library)(rows)
        if rows is not None:
            check_rows(rows, len(sources.image_idx))
        if images.pages is None and runtime is not None:
            from gpu_patch._cuda import lateral_context as cuda

            of_images = (runtime, images.table, sources, weights, *self._how)
            targets, records = self._targets, self._records()
            with images.telling_of_no_room():
                return cuda.lateral_context(
                    *of_images, targets=targets, epilogue=epilogue, rows=rows, records=records
                )
        if rows is not None:
            sources, weights = sources.rows(rows), weights.take(rows, axis=0)
            epilogue = epilogue and epilogue.rows(rows)
        samples = (sources, weights, *self._how)
        if runtime is not None:
            return _by_page_on_cuda(images, runtime, *samples, self._targets, epilogue)
        if library is not None:
            return _by_page_on_host(images, library, *samples, self._wanted, epilogue)
        return _by_numpy(images, *samples, self._wanted, epilogue)

    def _by(self, library: Library) -> host.HostContext:
        """Return what the compiled kernel takes; the same as long as it is this library's."""
        found = self._on_host
        if found is None or found.library is not library:
            of_images = (self._images.table, self._sources, self._weights, *self._how)
            targets, epilogue = self._wanted, self._epilogue
            found = host.HostContext(library, *of_images, targets=targets, epilogue=epilogue)
            self._on_host = found
        return found


def _by_numpy(
    images: ImageSet,
    sources: ChannelSources,
    weights: NDArray[np.float32],
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    dtype: np.dtype[Any],
    targets: bool,
    epilogue: Epilogue | None,
) -> tuple[Any, Any]:
    """Return input and target, made part by part as pages allow."""
    n_samples, n_channels = sources.shape
    mixed = pool.take((n_samples, n_scales, *patch_size), np.float32)
    target = pool.take((n_samples, n_channels, *patch_size), np.float32) if targets else None

    def make(arrays: Sequence[Any], part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        of_target = None if target is None else target[samples]
        numpy_lateral_context(
            arrays, part, weights[samples], patch_size, mode, mixed[samples], of_target, own
        )

    # images may hold infinities, and what exceeds 65504 becomes one in float16: no warning
    with np.errstate(over="ignore", invalid="ignore"):
        images.read(sources, patch_size, n_scales - 1, n_scales, mode, make)
        target = None if target is None else target.astype(dtype, copy=False)
        return mixed.astype(dtype, copy=False), target


def _by_page_on_host(
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
    """Return input and target of images by page, made part by part as slots allow."""
    assert images.pages is not None
    how = (patch_size, n_scales, mode, dtype)
    mixed, target = host.new_outputs(sources.shape, n_scales, patch_size, dtype, targets=targets)

    def make(table: SlotTable, part: ChannelSources, samples: slice) -> None:
        own = epilogue and epilogue.of_samples(samples)
        out = mixed[samples], None if target is None else target[samples]
        host.HostContext(
            library, table, part, weights[samples], *how, targets=targets, epilogue=own
        )(out=out)

    images.pages.read_in_place(HOST, sources, patch_size, n_scales - 1, n_scales, mode, make)
    return mixed, target


def _by_page_on_cuda(
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
    """Return input and target of images by page, made part by part as slots allow."""
    from gpu_patch._cuda import lateral_context as cuda

    assert images.pages is not None
    how, records = (patch_size, n_scales, mode, dtype), record_maker()
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

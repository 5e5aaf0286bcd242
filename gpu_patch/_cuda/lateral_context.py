"""Mixed channels at several scales around a patch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch._cuda import specialised
from gpu_patch._cuda.runtime import Runtime, launch, pointer_or_null
from gpu_patch.checks import choice
from gpu_patch.epilogue import Epilogue
from gpu_patch.geometry import PADDING_MODES, fir_taps
from gpu_patch.records import NUMPY_RECORDS, RecordMaker, Windows
from gpu_patch.sources import ChannelSources
from gpu_patch.table import (
    EPILOGUE,
    MODES,
    PAGED,
    WindowTable,
    as_table,
    pack,
    volume,
)

N_THREADS = 256
"""Threads per block of the general path."""

# CHUNK_*, in lateral_context.cu
_CHUNK_Z, _CHUNK_Y, _CHUNK_X = 64, 32, 128
_TILE_X = 32

_JOB = np.dtype(
    [
        ("patch", np.int64, 3),
        ("n_channels", np.int32),
        ("n_scales", np.int32),
        ("n_dims", np.int32),
        ("mode", np.int32),
        ("half_output", np.int32),
        ("unused", np.int32),
    ]
)
_FIR = np.dtype([(name, np.int32) for name in ("first_tap", "n_taps", "offset", "factor")])


def lateral_context(
    runtime: Runtime,
    images: WindowTable | Sequence[Any],
    sources: ChannelSources,
    weights: NDArray[np.float32],
    patch_size: Sequence[int],
    n_scales: int,
    mode: str,
    dtype: DTypeLike,
    *,
    targets: bool = True,
    specialise: bool = True,
    epilogue: Epilogue | None = None,
    rows: NDArray[np.int64] | None = None,
    records: RecordMaker = NUMPY_RECORDS,
    out: tuple[Any, Any] | None = None,
) -> tuple[Any, Any]:
    """Return input (B, L, (Z), Y, X) and target (B, C, (Z), Y, X); see `ops.lateral_context`.

    Parameters
    ----------
    runtime : Runtime
        Whose arrays the images are.
    images : WindowTable or sequence of array, SC(Z)YX
        C-contiguous, of stored data types.
    sources : ChannelSources
        What to read.
    weights : array of float32, shape (B, C)
        Mixing weights.
    patch_size, n_scales, mode, dtype
        As in `ops.lateral_context`.
    targets : bool, default True
        Whether the target is wanted; else it is None.
    specialise : bool, default True
        Whether a kernel compiled for this very case may be used, where there is one.
    epilogue : Epilogue or None, default None
        What happens to the values.
    rows : array of int64, shape (B,), optional
        Which of the samples are the batch's; default all.
    records : RecordMaker, optional
        Makes what the kernels read; default NumPy.
    out : (array, array or None), optional
        Filled with input and target.
    """
    choice("mode", mode, PADDING_MODES)
    with runtime.active():
        table = as_table(runtime, images)
        windows = Windows(
            table, sources, patch_size, n_scales, mode, weights, epilogue, targets, rows
        )
        pages = records.pages(windows, n_scales - 1)
        if out is None:
            out = new_outputs(runtime, windows.shape, n_scales, patch_size, dtype, targets=targets)
        mixed, target = out
        shape = None
        if specialise:
            shape = specialised.choose(windows, mixed.dtype, runtime, paged=bool(pages))
        if shape is None or not specialised.launch_shape(
            runtime, shape, windows, mixed, target, pages, records
        ):
            places, *finish = records.full(windows)
            _launch_general(runtime, table, places, patch_size, mode, mixed, target, pages, finish)
    return mixed, target


def new_outputs(
    runtime: Runtime,
    shape: tuple[int, int],
    n_scales: int,
    patch_size: Sequence[int],
    dtype: DTypeLike,
    *,
    targets: bool,
) -> tuple[Any, Any]:
    """Return arrays for the input of B samples, and for the targets of C channels or None."""
    n_samples, n_channels = shape
    mixed = runtime.output((n_samples, n_scales, *patch_size), dtype)
    target = runtime.output((n_samples, n_channels, *patch_size), dtype) if targets else None
    return mixed, target


def _launch_general(
    runtime: Runtime,
    table: WindowTable,
    sources: NDArray[np.void],
    patch_size: Sequence[int],
    mode: str,
    mixed: Any,
    target: Any,
    pages: Sequence[NDArray[Any]],
    finish: Sequence[NDArray[np.void]],
) -> None:
    (n_samples, n_channels), n_scales = sources.shape, mixed.shape[1]
    depth, height, width = volume(patch_size)
    firs, taps = _filters(n_scales)
    job = np.array(
        (
            (depth, height, width),
            n_channels,
            n_scales,
            table.n_dims,
            MODES.index(mode),
            mixed.dtype == np.float16,
            0,
        ),
        _JOB,
    )
    constants = {
        "N_THREADS": N_THREADS,
        **(PAGED if pages else {}),
        **(EPILOGUE if finish else {}),
    }
    packed, offsets = pack(job, firs, taps, sources, *pages, *finish)
    device = runtime.upload(packed)
    addresses = [runtime.pointer(device) + offset for offset in offsets]
    tile_y = N_THREADS // _TILE_X
    n_tiles = depth * -(-height // tile_y) * -(-width // _TILE_X)
    # offsets of a chunk's pixels along each axis, and the channel's shift, 8 bytes each
    offset_bytes = 8 * (_CHUNK_Z + _CHUNK_Y + _CHUNK_X + 1)
    pixel_bytes = 4 * _CHUNK_X * (_CHUNK_Y + tile_y)
    tap_bytes = 4 * (_CHUNK_Z + tile_y * _CHUNK_Y)
    launch(
        runtime.kernel("lateral_context", "lateral_context", constants),
        n_samples * n_scales * n_tiles,
        (N_THREADS,),
        [
            *addresses[:4],
            runtime.pointer(mixed),
            pointer_or_null(runtime, target),
            *addresses[4:],
        ],
        offset_bytes + pixel_bytes + tap_bytes,
    )


@lru_cache(maxsize=32)
def _filters(n_scales: int) -> tuple[NDArray[np.void], NDArray[np.float32]]:
    """Return the `_FIR` of each scale, and the taps of all."""
    filters = [fir_taps(scale) for scale in range(n_scales)]
    lengths = [len(taps) for taps, _ in filters]
    first = np.cumsum([0, *lengths[:-1]])
    firs = np.array(
        [
            (at, n, offset, 1 << scale)
            for scale, (at, n, (_, offset)) in enumerate(zip(first, lengths, filters, strict=True))
        ],
        _FIR,
    )
    return firs, np.concatenate([taps for taps, _ in filters]).astype(np.float32)

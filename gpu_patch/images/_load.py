"""From a reader to memory, in pieces."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from math import prod
from typing import Any

import numpy as np

from gpu_patch import device as devices
from gpu_patch.images.readers import ImageInfo, ImageReader

_PIECE_BYTES = 1 << 25


def load(reader: ImageReader, device: str, progress: Callable[[int], object]) -> Any:
    """Return the pixels of an image, SC(Z)YX, on a device.

    The host holds a few pieces of 32 MiB, or of a chunk where those are larger, beyond the result.

    Parameters
    ----------
    reader : ImageReader
        The image.
    device : str
        "cpu" or "cuda:N".
    progress : callable
        Told how many bytes have come, after each piece.
    """
    info = reader.info
    with _current(device):
        found = _empty(info, device)
        part = None
        try:
            for region in pieces(info, _PIECE_BYTES):
                if device == "cpu":
                    reader.read(region, found[region])
                else:
                    part = np.empty([r.stop - r.start for r in region], info.resident_dtype)
                    reader.read(region, part)
                    found[region] = devices.to_cuda(part, device)
                progress(prod(r.stop - r.start for r in region) * info.resident_dtype.itemsize)
        except BaseException as error:
            found = part = None
            _release(error)
            if isinstance(error, MemoryError):
                raise MemoryError(f"while reading {info.path}: {error}") from error
            raise
    return found


def _release(error: BaseException | None) -> None:
    """Forget the variables of what raised an error: as long as it lives, in notebooks for long.

    They are the parts of the image that were read so far.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@contextmanager
def _current(device: str) -> Iterator[None]:
    """Make a CUDA device the current one, and wait in the end for what was copied on it."""
    if device == "cpu":
        yield
        return
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(int(device.partition(":")[2])):
        yield
        cupy.cuda.get_current_stream().synchronize()


def pieces(info: ImageInfo, nbytes: int) -> Iterator[tuple[slice, ...]]:
    """Cut a canonical image into regions of whole chunks and at most `nbytes`, or of one chunk."""
    shape, size = info.canonical_shape, list(info.canonical_chunk_shape)
    for axis in reversed(range(len(shape))):
        room = nbytes // (prod(size) * info.resident_dtype.itemsize)
        size[axis] = min(shape[axis], size[axis] * max(1, room))
    starts = [range(0, length, step) for length, step in zip(shape, size, strict=True)]
    for place in product(*starts):
        yield tuple(
            slice(start, min(start + step, length))
            for start, step, length in zip(place, size, shape, strict=True)
        )


def _empty(info: ImageInfo, device: str) -> Any:
    if device == "cpu":
        try:
            return np.empty(info.canonical_shape, info.resident_dtype)
        # ValueError: more than NumPy can count
        except (MemoryError, ValueError) as error:
            raise MemoryError(
                f"{info.path}: the host has no room for its {info.nbytes / 1e9:.2f} GB"
            ) from error
    cupy = importlib.import_module("cupy")
    try:
        return cupy.empty(info.canonical_shape, info.resident_dtype)
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise devices.out_of_memory(device, info.path, error) from error

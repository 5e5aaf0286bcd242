"""Reading an image into memory, on the host or a device, in pieces."""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from itertools import islice, product
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpu_patch import device as devices
from gpu_patch.images.axes import to_canonical
from gpu_patch.images.readers import ImageInfo, ImageReader
from gpu_patch.images.readers.base import FastReader
from gpu_patch.images.version import version

Region: TypeAlias = tuple[slice, ...]

_PIECE_BYTES = 1 << 25
_FAR_BYTES = 1 << 23
"""Of a piece of an image on a server."""
_THREADS = 2
"""That read small images: they mostly wait for memory, where more would meet."""
_FAR_AT_ONCE = 16
"""So many of these are read at a time, so that large chunks are asked for together too."""


def versioned(
    reader: ImageReader, device: str, progress: Callable[[int], object]
) -> tuple[str, Any]:
    """Return which version an image is of, told before it is read, and what `load` returns."""
    info = reader.info
    return version(info.path, info.files), load(reader, device, progress)


def read_together(
    readers: Sequence[ImageReader], targets: Sequence[str], progress: Callable[[int], object]
) -> Generator[tuple[str, Any] | None]:
    """Yield `versioned` of one image after the other: small ones are read by some threads, ahead.

    None stands for an image that is left to `ImageStack.from_reader`: one that is large, on a
    server, in memory, in one file with others, which share what reads it, or for a GPU.

    Parameters
    ----------
    readers : sequence of ImageReader
        The images.
    targets : sequence of str
        Where each goes.
    progress : callable
        As in `load`; called by the thread that takes images.
    """
    n_images = Counter(path for reader in readers for path in reader.info.files)

    def is_for_threads(reader: ImageReader, target: str) -> bool:
        files = reader.info.files
        return (
            len(readers) > 1
            and target == "cpu"
            and len(files) == 1
            and n_images[files[0]] == 1
            and reader.info.nbytes <= _PIECE_BYTES
            and not reader.is_far
            and reader.resident is None
        )

    ahead: deque[Future[tuple[str, Any]] | None] = deque()
    left = iter(zip(readers, targets, strict=True))
    with ThreadPoolExecutor(_THREADS, "gpu_patch_files") as executor:
        try:
            while True:
                for reader, target in islice(left, 2 * _THREADS - len(ahead)):
                    by_thread = is_for_threads(reader, target)
                    ahead.append(executor.submit(_read_whole, reader) if by_thread else None)
                if not ahead:
                    return
                reading = ahead.popleft()
                if reading is not None:
                    found = reading.result()
                    progress(found[1].nbytes)
                    yield found
                    del found
                else:
                    yield None
                del reading
        finally:
            for waiting in ahead:
                if waiting is not None:
                    waiting.cancel()


def _read_whole(reader: ImageReader) -> tuple[str, Any]:
    """Read an image into memory, and let go of its file."""
    with reader:
        return versioned(reader, "cpu", lambda _: None)


def load(reader: ImageReader, device: str, progress: Callable[[int], object]) -> Any:
    """Return the pixels of an image, SC(Z)YX, on a device.

    The host holds a few pieces of 32 MiB, or of a chunk where those are larger, beyond the result;
    of images on servers up to 16 pieces of 8 MiB.

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
    read = _read if device == "cpu" else _upload
    found = None
    if device != "cpu" or info.nbytes > (_FAR_BYTES if reader.is_far else _PIECE_BYTES):
        found = devices.empty(info.canonical_shape, info.resident_dtype, device, info.path)
    try:
        if found is None:
            found = _taken(reader)
            progress(found.nbytes)
        else:
            read(reader, found, progress)
    except BaseException as error:
        found = None
        _release(error)
        if isinstance(error, MemoryError):
            raise MemoryError(f"while reading {info.path}: {error}") from error
        raise
    return found


def _taken(reader: ImageReader) -> Any:
    """Return an image of one piece: what is read itself, where it is as it should be."""
    info = reader.info
    found = to_canonical(reader.whole(), info.axes)
    as_it_is = found.flags.c_contiguous and found.flags.writeable
    if as_it_is and found.dtype == info.resident_dtype:
        return found
    return found.astype(info.resident_dtype, order="C")


def _read(reader: ImageReader, found: Any, progress: Callable[[int], object]) -> None:
    if (fast := _far(reader)) is not None:
        with closing(_read_ahead(reader.info, fast, lambda region: found[region])) as arrived:
            for _, pixels in arrived:
                progress(pixels.nbytes)
        return
    for region in pieces(reader.info, _PIECE_BYTES):
        reader.read(region, found[region])
        progress(found[region].nbytes)


def _upload(reader: ImageReader, found: Any, progress: Callable[[int], object]) -> None:
    if (fast := _far(reader)) is not None:
        _upload_far(reader.info, fast, found, progress)
        return
    regions = list(pieces(reader.info, _PIECE_BYTES))
    largest = max(found[region].nbytes for region in regions)
    with devices.Uploader(f"cuda:{found.device.id}", largest) as uploader:
        for region in regions:
            uploader.fill(found[region], partial(reader.read, region))
            progress(found[region].nbytes)


def _far(reader: ImageReader) -> FastReader | None:
    """Return what reads an image on a server, several regions at a time."""
    return reader.fast() if reader.is_far else None


def _upload_far(
    info: ImageInfo, fast: FastReader, found: Any, progress: Callable[[int], object]
) -> None:
    def place(region: Region) -> NDArray[Any]:
        return np.empty([part.stop - part.start for part in region], info.resident_dtype)

    largest = max(found[region].nbytes for region in pieces(info, _FAR_BYTES))
    with (
        devices.Uploader(f"cuda:{found.device.id}", largest) as uploader,
        closing(_read_ahead(info, fast, place)) as arrived,
    ):
        for region, pixels in arrived:
            uploader.fill(found[region], partial(np.copyto, src=pixels))
            progress(pixels.nbytes)


def _read_ahead(
    info: ImageInfo, fast: FastReader, place: Callable[[Region], NDArray[Any]]
) -> Generator[tuple[Region, NDArray[Any]]]:
    """Yield regions with their pixels, which are read to where `place` says; others meanwhile."""
    waiting: deque[tuple[Region, NDArray[Any], Any]] = deque()
    coming = pieces(info, _FAR_BYTES)
    chunk_bytes = prod(info.canonical_chunk_shape) * info.resident_dtype.itemsize
    # of chunks beyond 8 MiB no more memory is taken, but for two of them
    at_once = max(2, min(_FAR_AT_ONCE, _FAR_AT_ONCE * _FAR_BYTES // chunk_bytes))
    try:
        while True:
            for region in islice(coming, at_once - len(waiting)):
                pixels = place(region)
                waiting.append((region, pixels, fast.begin(region, pixels)))
            if not waiting:
                return
            region, pixels, reading = waiting.popleft()
            reading.result()
            yield region, pixels
    finally:  # nothing may write to memory that is given up
        for _, _, reading in waiting:
            reading.cancel()
        wait([reading for _, _, reading in waiting])


def _release(error: BaseException | None) -> None:
    """Forget the variables of what raised an error: as long as it lives, in notebooks for long.

    They are the parts of the image that were read so far.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def pieces(info: ImageInfo, nbytes: int) -> Iterator[Region]:
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

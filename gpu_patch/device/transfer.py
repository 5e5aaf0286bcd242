"""Arrays on their way to a device: taken where they are, or copied through pinned memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_patch.checks import shorten
from gpu_patch.device.pinned import PinnedBuffer
from gpu_patch.device.placement import (
    check_streams,
    empty,
    import_cupy,
    is_cuda_array,
    on_device,
    out_of_memory,
    resolve,
)

_PIECE_BYTES = 1 << 25


_CUDA_DLPACK = (2, 13)
"""Kinds of device of DLPack: CUDA memory, and CUDA managed memory."""


def as_array(data: ArrayLike) -> Any:
    """Return `data` as a NumPy array, or as a CuPy array where it is on a CUDA device already.

    Arrays of other libraries are taken in place, by ``__cuda_array_interface__`` or DLPack.
    """
    if is_cuda_array(data):
        return data
    # DLPack first: it makes our stream wait for that of the other library
    if hasattr(data, "__dlpack_device__") and data.__dlpack_device__()[0] in _CUDA_DLPACK:
        return import_cupy().from_dlpack(data)
    if hasattr(data, "__cuda_array_interface__"):
        return import_cupy().asarray(data)
    try:
        return np.asarray(data)
    except ValueError as error:
        raise ValueError(f"data must be an array, found {shorten(data)}: {error}") from None


def place(array: Any, dtype: np.dtype[Any], device: str | None) -> tuple[Any, str]:
    """Bring an array to a device, contiguous and of one data type.

    Copies only where the type, the order of the axes or the device asks for it. Waits until the
    array is there, so that any stream may read it.

    Parameters
    ----------
    array : numpy.ndarray or cupy.ndarray
        As `as_array` returned it.
    dtype : numpy.dtype
        Of the result.
    device : str or None
        As in `resolve`; None leaves CuPy arrays where they are.

    Returns
    -------
    array : numpy.ndarray or cupy.ndarray
        C-contiguous.
    device : str
        "cpu" or "cuda:N".
    """
    if not is_cuda_array(array):
        wanted = resolve(device)
        host = np.ascontiguousarray(array, dtype=dtype)
        return (host, wanted) if wanted == "cpu" else (to_cuda(host, wanted), wanted)
    check_streams()
    cupy = import_cupy()
    here = f"cuda:{array.device.id}"
    wanted = here if device is None else resolve(device)
    try:
        with array.device:
            found = cupy.ascontiguousarray(array, dtype=dtype)
            if wanted == here:
                cupy.cuda.get_current_stream().synchronize()
                return found, here
            if wanted == "cpu":
                return cupy.asnumpy(found), wanted
            ready = cupy.cuda.get_current_stream().record()
        with on_device(wanted):
            cupy.cuda.get_current_stream().wait_event(ready)
            copied = found.copy()  # to the current device
            # behind this, the memory of `found` may be used again too
            cupy.cuda.get_current_stream().synchronize()
        return copied, wanted
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise out_of_memory(wanted, "images", error) from error


def to_cuda(array: NDArray[Any], device: str) -> Any:
    """Copy a host array to a CUDA device, in pieces through pinned memory.

    Parameters
    ----------
    array : numpy.ndarray
        C-contiguous.
    device : str
        "cuda:N".

    Raises
    ------
    MemoryError
        Where the device has no room; it says how much was asked for, and what is free.
    """
    found = empty(array.shape, array.dtype, device, "images")
    source, target = array.reshape(-1), found.reshape(-1)
    step = _PIECE_BYTES // array.itemsize
    with Uploader(device, min(_PIECE_BYTES, max(1, array.nbytes))) as uploader:
        for first in range(0, source.size, step):
            part = source[first : first + step]
            uploader.fill(target[first : first + step], partial(np.copyto, src=part))
    return found


class Uploader:
    """Fills arrays of a CUDA device by way of two buffers of pinned memory, in turn.

    While one is copied the other can be filled. All has been copied when the ``with`` block ends.

    Parameters
    ----------
    device : str
        "cuda:N".
    nbytes : int
        Size of the largest array.
    """

    def __init__(self, device: str, nbytes: int) -> None:
        self._cupy, self._device, self._nbytes = import_cupy(), device, nbytes
        with on_device(device):
            self._stream = self._cupy.cuda.get_current_stream()
            self._buffers = cycle([PinnedBuffer(self._cupy, nbytes) for _ in range(2)])
        self._between: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.synchronize()

    def fill(self, array: Any, write: Callable[[NDArray[Any]], object]) -> None:
        """Copy what is written to an array of the device.

        Parameters
        ----------
        array : cupy.ndarray
            Any view. Only a contiguous one takes no further memory of the device.
        write : callable
            Fills a host array of the same shape and type, C-contiguous.
        """
        buffer = next(self._buffers)
        with on_device(self._device), self._stream:
            buffer.copied.synchronize()  # what was in this memory before has left it
            write(buffer.host[: array.nbytes].view(array.dtype).reshape(array.shape))
            target = array if array.flags.c_contiguous else self._contiguous(array)
            buffer.copy_to(target)
            if target is not array:
                array[...] = target

    def _contiguous(self, array: Any) -> Any:
        """Return memory of an array's shape and type, the same each time."""
        if self._between is None:
            self._between = empty((self._nbytes,), np.dtype(np.uint8), self._device, "images")
        return self._cupy.ndarray(array.shape, array.dtype, self._between.data)

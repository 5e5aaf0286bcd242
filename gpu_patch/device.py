"""Where arrays live, and how they get there."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from itertools import cycle
from math import prod
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_patch._cuda.staging import Piece
from gpu_patch.errors import argument, instance, shorten

Made = TypeVar("Made")

ENVIRONMENT_VARIABLE = "GPU_PATCH_DEVICE"
_PIECE_BYTES = 1 << 25
_CUDA_DLPACK = (2, 13)
"""Kinds of device of DLPack: CUDA memory, and CUDA managed memory."""


def resolve(device: str | None) -> str:
    """Return the device to use.

    Parameters
    ----------
    device : str or None
        "cpu", "cuda" (the current device) or "cuda:1"; None is what the environment variable
        ``GPU_PATCH_DEVICE`` says, else the current GPU (that of ``torch.cuda.set_device``, too)
        where one is usable, else the CPU.

    Returns
    -------
    str
        "cpu" or "cuda:N".

    Raises
    ------
    RuntimeError
        Where CUDA is asked for and cannot be used: it is never replaced silently by the CPU.
    ValueError
        For any other name.
    """
    name, origin = device, argument("device")
    if name is None and ENVIRONMENT_VARIABLE in os.environ:
        name, origin = os.environ[ENVIRONMENT_VARIABLE], ENVIRONMENT_VARIABLE
    if name is None:
        name = "cpu" if cuda_problem() else "cuda"
    instance(origin, name, str, "'cpu', 'cuda', 'cuda:N' or None")
    if name == "cpu":
        return name
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not number.isdigit()):
        raise ValueError(f"{origin} must be 'cpu', 'cuda' or 'cuda:N', found {name!r}")
    if problem := cuda_problem():
        raise RuntimeError(f"{origin} is {name!r}, but {problem}: use {argument('device', 'cpu')}")
    runtime = _cupy().cuda.runtime
    count = runtime.getDeviceCount()
    index = int(number) if colon else runtime.getDevice()
    if index >= count:
        raise RuntimeError(f"{origin} is {name!r}, but there are {count} CUDA devices, from 0 on")
    return f"cuda:{index}"


@cache
def cuda_problem() -> str:
    """Return why CUDA cannot be used, "" where it can."""
    try:
        count = _cupy().cuda.runtime.getDeviceCount()
    except ImportError:
        return "CuPy is not installed (pip install 'gpu_patch[cuda12]' or 'gpu_patch[cuda13]')"
    # no driver, one that is too old, no device: CuPy has an error of its own for each
    except Exception as error:
        return f"no CUDA device can be used ({shorten(str(error), 200)})"
    return "" if count else "there is no CUDA device"


def is_cuda_array(array: object) -> bool:
    """Tell whether `array` is one of CuPy's, without importing CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def library_of(array: Any) -> Any:
    """Return NumPy or CuPy, whose array it is."""
    return _cupy() if is_cuda_array(array) else np


def as_array(data: ArrayLike) -> Any:
    """Return `data` as a NumPy array, or as a CuPy array where it is on a CUDA device already.

    Arrays of other libraries are taken in place, by ``__cuda_array_interface__`` or DLPack.
    """
    if is_cuda_array(data):
        return data
    # first DLPack, which orders the streams of both libraries
    if hasattr(data, "__dlpack_device__") and data.__dlpack_device__()[0] in _CUDA_DLPACK:
        return _cupy().from_dlpack(data)
    if hasattr(data, "__cuda_array_interface__"):
        return _cupy().asarray(data)
    try:
        return np.asarray(data)
    except ValueError as error:
        raise ValueError(f"data must be an array, found {shorten(data)}: {error}") from None


def place(array: Any, dtype: np.dtype[Any], device: str | None) -> tuple[Any, str]:
    """Bring an array to a device, contiguous and of one data type.

    Copies only where the type, the order of the axes or the device asks for it.

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
    cupy = _cupy()
    here = f"cuda:{array.device.id}"
    wanted = here if device is None else resolve(device)
    try:
        with array.device:
            found = cupy.ascontiguousarray(array, dtype=dtype)
            if wanted == here:
                return found, here
            if wanted == "cpu":
                return cupy.asnumpy(found), wanted
            ready = cupy.cuda.get_current_stream().record()
        with on_device(wanted):
            cupy.cuda.get_current_stream().wait_event(ready)
            copied = found.copy()  # to the current device
            done = cupy.cuda.get_current_stream().record()
        with array.device:  # where the memory of `found` may be used again
            cupy.cuda.get_current_stream().wait_event(done)
        return copied, wanted
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise out_of_memory(wanted, "images", error) from error


def on_device(device: str) -> AbstractContextManager[Any]:
    """Return what makes a device CuPy's current one for a while; the CPU needs nothing."""
    if device == "cpu":
        return nullcontext()
    current: AbstractContextManager[Any] = _cupy().cuda.Device(int(device.partition(":")[2]))
    return current


def empty(shape: Sequence[int], dtype: np.dtype[Any], device: str, what: str) -> Any:
    """Return an array with undefined values.

    Parameters
    ----------
    shape, dtype
        Of the array.
    device : str
        "cpu" or "cuda:N".
    what : str
        What it is for.

    Raises
    ------
    MemoryError
        Where the device has no room; it says for what, and how much was asked for.
    """
    if device == "cpu":
        try:
            return np.empty(shape, dtype)
        # ValueError: more than NumPy can count
        except (MemoryError, ValueError) as error:
            size = prod(shape) * dtype.itemsize / 1e9
            raise MemoryError(f"the host has no room for {size:.2f} GB of {what}") from error
    cupy = _cupy()
    with on_device(device):
        try:
            return cupy.empty(shape, dtype)
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise out_of_memory(device, what, error) from error


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
    """Fills arrays of a CUDA device by way of two pieces of pinned memory, in turn.

    While one is copied the other can be filled. All has been copied when the ``with`` block ends.

    Parameters
    ----------
    device : str
        "cuda:N".
    nbytes : int
        Size of the largest array.
    """

    def __init__(self, device: str, nbytes: int) -> None:
        self._cupy, self._device, self._nbytes = _cupy(), device, nbytes
        with on_device(device):
            self._stream = self._cupy.cuda.get_current_stream()
            self._pieces = cycle([Piece(self._cupy, nbytes) for _ in range(2)])
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
        piece = next(self._pieces)
        with on_device(self._device), self._stream:
            piece.copied.synchronize()  # what was in this memory before has left it
            write(piece.host[: array.nbytes].view(array.dtype).reshape(array.shape))
            target = array if array.flags.c_contiguous else self._contiguous(array)
            piece.copy_to(target)
            if target is not array:
                array[...] = target

    def _contiguous(self, array: Any) -> Any:
        """Return memory of an array's shape and type, the same each time."""
        if self._between is None:
            self._between = empty((self._nbytes,), np.dtype(np.uint8), self._device, "images")
        return self._cupy.ndarray(array.shape, array.dtype, self._between.data)


@contextmanager
def external_stream(device: str, pointer: int) -> Iterator[None]:
    """Make a stream of another library the current one of its device for a while."""
    cuda = _cupy().cuda
    # CuPy 13 has no from_external, and 14 deprecates ExternalStream
    if hasattr(cuda.Stream, "from_external"):
        stream = cuda.Stream.from_external(_Pointer(pointer))
    else:
        stream = cuda.ExternalStream(pointer)
    with on_device(device), stream:
        yield


def current_stream(device: str) -> int:
    """Return the address of CuPy's current stream of a device."""
    with on_device(device):
        return int(_cupy().cuda.get_current_stream().ptr)


class _Pointer(int):
    """A stream's address, as the CUDA stream protocol gives it."""

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, int(self)


class SideStream:
    """A stream that makes arrays for other streams, in order with them but never waited for.

    Parameters
    ----------
    device : str
        "cuda:N".
    """

    def __init__(self, device: str) -> None:
        self._cupy, self._device = _cupy(), device
        self._stream = _side_stream(device)
        with on_device(device):
            # what made the images, if anything still does
            self._stream.wait_event(self._cupy.cuda.get_current_stream().record())

    def run(self, make: Callable[[], Made]) -> tuple[Made, Any]:
        """Return what `make` returns, run on this stream, and an event behind it."""
        with on_device(self._device), self._stream:
            return make(), self._stream.record()

    def hand_over(self, arrays: Iterable[Any], made: Any) -> None:
        """Let the current stream wait for the event, and the arrays' memory for that stream."""
        with on_device(self._device):
            reader = self._cupy.cuda.get_current_stream()
            reader.wait_event(made)
            for array in arrays:
                array.data.mem._owner.read_by(reader.ptr, reader)


# one for good: CuPy's pool keeps the memory of each stream apart, that of dead streams too
@cache
def _side_stream(device: str) -> Any:
    with on_device(device):
        return _cupy().cuda.Stream(non_blocking=True)


def free_bytes(device: str) -> int | None:
    """Return how much memory of a device is free, pooled memory too; None for the CPU."""
    if device == "cpu":
        return None
    cupy = _cupy()
    with on_device(device):
        return int(cupy.cuda.runtime.memGetInfo()[0]) + int(
            cupy.get_default_memory_pool().free_bytes()
        )


def address(array: Any) -> int:
    """Return where an array begins in the memory of its device."""
    return int(array.data.ptr) if is_cuda_array(array) else int(array.ctypes.data)


def out_of_memory(device: str, what: str, error: MemoryError) -> MemoryError:
    """Return an error that says what there is no room for, what is free, and what to do.

    Parameters
    ----------
    device : str
        "cuda:N".
    what : str
        What there is no room for.
    error : MemoryError
        CuPy's, which says how many bytes were asked for.
    """
    cupy = _cupy()
    with on_device(device):
        free, total = cupy.cuda.runtime.memGetInfo()
        held = cupy.get_default_memory_pool().used_bytes()
    asked = re.search(r"allocating ([\d,]+) bytes", str(error))
    size = f"{int(asked[1].replace(',', '')) / 1e9:.2f} GB of " if asked else ""
    return MemoryError(
        f"{device} has no room for {size}{what}: {free / 1e9:.2f} of {total / 1e9:.2f} GB are "
        f"free, {held / 1e9:.2f} GB are resident already. Delete images that are not needed, load "
        f"fewer, or keep them on the host with {argument('device', 'cpu')}"
    )


def _cupy() -> Any:
    # not an import statement, which type checkers without CuPy's stubs would follow
    return importlib.import_module("cupy")

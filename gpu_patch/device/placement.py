"""Where arrays are: devices by name, what is free on them, and new arrays there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from math import prod
from typing import Any, TypeVar

import numpy as np

from gpu_patch.checks import Message, argument, instance, shorten
from gpu_patch.optional import PACKAGES, imported

ENVIRONMENT_VARIABLE = "GPU_PATCH_DEVICE"
Made = TypeVar("Made")


def resolve(device: str | None) -> str:
    """Return the device to use.

    Parameters
    ----------
    device : str or None
        "cpu", "cuda" (the current device) or "cuda:1"; None is what the environment variable
        ``GPU_PATCH_DEVICE`` says where it is not empty, else the current GPU (that of
        ``torch.cuda.set_device``, too) where one is usable, else the CPU.

    Returns
    -------
    str
        "cpu" or "cuda:N".

    Raises
    ------
    RuntimeError
        Where CUDA is asked for and cannot be used: it is never replaced silently by the CPU. And
        where CuPy has a default stream per thread.
    ValueError
        For any other name.
    """
    name, origin = device, argument("device")
    if name is None and os.environ.get(ENVIRONMENT_VARIABLE):
        name, origin = os.environ[ENVIRONMENT_VARIABLE], argument(ENVIRONMENT_VARIABLE)
    if name is None:
        name = "cpu" if cuda_problem() else "cuda"
    instance(origin, name, str, "'cpu', 'cuda', 'cuda:N' or None")
    if name == "cpu":
        return name
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not number.isdigit()):
        raise ValueError(Message(origin, f" must be 'cpu', 'cuda' or 'cuda:N', found {name!r}"))
    if problem := cuda_problem():
        raise RuntimeError(
            Message(origin, f" is {name!r}, but {problem}: use ", argument("device", "cpu"))
        )
    check_streams()
    runtime = import_cupy().cuda.runtime
    count = runtime.getDeviceCount()
    index = int(number) if colon else runtime.getDevice()
    if index >= count:
        raise RuntimeError(
            Message(origin, f" is {name!r}, but there are {count} CUDA devices, from 0 on")
        )
    return f"cuda:{index}"


@cache
def cuda_problem() -> str:
    """Return why CUDA cannot be used, "" where it can."""
    try:
        count = import_cupy().cuda.runtime.getDeviceCount()
    except ImportError:
        return f"CuPy is not installed ({PACKAGES['cupy'].command})"
    # CuPy raises other classes where there is no driver, an old one, or no device
    except Exception as error:
        return f"no CUDA device can be used ({shorten(str(error), 200)})"
    return "" if count else "there is no CUDA device"


def check_streams() -> None:
    """Refuse default streams per thread: one number is then a stream of its own in each.

    Raises
    ------
    RuntimeError
        Where CuPy is told to have them.
    """
    name = "CUPY_CUDA_PER_THREAD_DEFAULT_STREAM"
    if os.environ.get(name, "0").strip() not in ("", "0"):
        raise RuntimeError(
            f"{name} is {os.environ[name]!r}: memory is shared among threads by their streams, "
            "which must be the same in all of them. Unset it before CuPy is imported"
        )


def is_cuda_array(array: object) -> bool:
    """Tell whether `array` is one of CuPy's, without importing CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def library_of(array: Any) -> Any:
    """Return NumPy or CuPy, whose array it is."""
    return import_cupy() if is_cuda_array(array) else np


def on_device(device: str) -> AbstractContextManager[Any]:
    """Return what makes a device CuPy's current one for a while; the CPU needs nothing."""
    if device == "cpu":
        return nullcontext()
    cupy = sys.modules.get("cupy") or import_cupy()  # who has a device has imported it already
    current: AbstractContextManager[Any] = cupy.cuda.Device(int(device.partition(":")[2]))
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
        # NumPy raises ValueError where a size exceeds its integers
        except (MemoryError, ValueError) as error:
            size = prod(shape) * dtype.itemsize / 1e9
            raise MemoryError(f"the host has no room for {size:.2f} GB of {what}") from error
    cupy = import_cupy()
    with on_device(device):
        try:
            return with_room(cupy, lambda: cupy.empty(shape, dtype))
        except cupy.cuda.memory.OutOfMemoryError as error:
            raise out_of_memory(device, what, error) from error


def with_room(cupy: Any, allocate: Callable[[], Made]) -> Made:
    """Return what `allocate` returns, after a second try where PyTorch had kept the room.

    Raises
    ------
    cupy.cuda.memory.OutOfMemoryError
        Where there is no room then either.
    """
    try:
        return allocate()
    except cupy.cuda.memory.OutOfMemoryError:
        torch = _torch_with_memory()
        if torch is None:
            raise
        torch.cuda.empty_cache()
        return allocate()


def _torch_with_memory() -> Any | None:
    """Return PyTorch where it is imported and uses CUDA: it keeps what it has freed."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return torch if cuda is not None and cuda.is_initialized() else None


def free_bytes(device: str) -> int | None:
    """Return how much memory of a device is free, pooled memory too; None for the CPU."""
    if device == "cpu":
        return None
    cupy = import_cupy()
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
    cupy = import_cupy()
    with on_device(device):
        free, total = cupy.cuda.runtime.memGetInfo()
        held = cupy.get_default_memory_pool().used_bytes()
    asked = re.search(r"allocating ([\d,]+) bytes", str(error))
    size = f"{int(asked[1].replace(',', '')) / 1e9:.2f} GB of " if asked else ""
    kept = ""
    if (torch := _torch_with_memory()) is not None:
        n_bytes = torch.cuda.memory_reserved(int(device.partition(":")[2]))
        kept = f", {n_bytes / 1e9:.2f} GB are PyTorch's"
    return MemoryError(
        Message(
            f"{device} has no room for {size}{what}: {free / 1e9:.2f} of {total / 1e9:.2f} "
            f"GB are free, {held / 1e9:.2f} GB are resident already{kept}. Delete images that are "
            "not needed, load fewer, or keep them on the host with ",
            argument("device", "cpu"),
        )
    )


def import_cupy() -> Any:
    """Return CuPy."""
    return imported("cupy", "CUDA")

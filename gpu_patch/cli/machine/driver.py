"""NVIDIA's driver, asked by ctypes: what is there needs no CuPy, and takes no device memory."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE."""
_COMPUTE_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")


class Device(NamedTuple):
    """A CUDA device."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


class Driver(NamedTuple):
    """The driver, and the devices that it shows to this process.

    Attributes
    ----------
    version : str or None
        Its own, such as "550.54.15", where it can be known.
    cuda : tuple of int
        The newest CUDA that it supports, such as (12, 4).
    devices : tuple of Device
        In CUDA's order.
    status, error : int, str
        Why it does not start, 0 and "" where it does.
    """

    version: str | None
    cuda: tuple[int, int]
    devices: tuple[Device, ...]
    status: int = 0
    error: str = ""


def find() -> Driver | None:
    """Return the driver; None where its library is not there."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    number = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(number))
    cuda = (number.value // 1000, number.value % 1000 // 10)
    if status := library.cuInit(0):
        return Driver(version(), cuda, (), status, _error(library, status))
    library.cuDeviceGetCount(ctypes.byref(number))
    devices = tuple(_device(library, index) for index in range(number.value))
    return Driver(version(), cuda, devices)


def version() -> str | None:
    """Return the version of the driver in the kernel, on Linux."""
    try:
        text = _KERNEL_MODULE.read_text()
    except OSError:
        return None
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found[0] if found else None


def _device(library: Any, index: int) -> Device:
    handle, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    capability = [ctypes.c_int(), ctypes.c_int()]
    for value, attribute in zip(capability, _COMPUTE_CAPABILITY, strict=True):
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
    major, minor = (value.value for value in capability)
    return Device(name.value.decode(errors="replace"), (major, minor), memory.value)


def _error(library: Any, status: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorString(status, ctypes.byref(text))
    return (text.value or b"").decode() or f"error {status}"

"""As much of CuPy as the package and gpu_check.py use, on the emulation.

It shows that their own logic runs, not that CuPy behaves like this. NumPy can no more see into its
arrays than into CuPy's.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from emulation import gpu as device
from emulation import limits
from emulation.gpu import Device, Memory, gpu
from gpu_patch._cuda.runtime import cupy_runtime
from gpu_patch.device import cuda_problem
from gpu_patch.device.streams import _side_stream
from gpu_patch.pages.memory import _copying


class MemoryPointer:
    """`cupy.cuda.MemoryPointer`."""

    def __init__(self, mem, offset):
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, mem.device_id

    def __add__(self, offset):
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)


class UnownedMemory:
    """`cupy.cuda.UnownedMemory`."""

    def __init__(self, ptr, size, owner, device_id=-1):
        self.ptr, self.size, self._owner = ptr, size, owner
        self.device_id = gpu.device if device_id < 0 else device_id


class FakeArray:
    """`cupy.ndarray`."""

    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None):
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        dtype = np.dtype(dtype)
        assert dtype.isnative, "CuPy has no such data type"
        n_bytes = prod(shape) * dtype.itemsize
        self.data = memptr or MemoryPointer(Memory(n_bytes), 0)
        buffer = (ctypes.c_ubyte * n_bytes).from_address(self.data.ptr)
        self._pixels = np.ndarray(shape, dtype, buffer)

    def _view(self, pixels):
        view = type(self).__new__(type(self))
        offset = pixels.__array_interface__["data"][0] - self.data.ptr
        view.data, view._pixels = self.data + offset, pixels
        return view

    def _computed(self, function):
        """Anything that CuPy needs a kernel of its own for: done in its turn, and not before."""
        with self.device:
            gpu.record("launch", "of CuPy")
            return self._made_later(function)

    def _made_later(self, function):
        with np.errstate(all="ignore"):  # for the shape: the values may be poison as yet
            shape_of = function(self._pixels)
        made = FakeArray(shape_of.shape, shape_of.dtype)
        gpu.stream.submit(lambda: made._pixels.__setitem__(..., function(self._pixels)))
        return made

    shape = property(lambda self: self._pixels.shape)
    dtype = property(lambda self: self._pixels.dtype)
    ndim = property(lambda self: self._pixels.ndim)
    size = property(lambda self: self._pixels.size)
    nbytes = property(lambda self: self._pixels.nbytes)
    strides = property(lambda self: self._pixels.strides)
    flags = property(lambda self: self._pixels.flags)
    device = property(lambda self: Device(self.data.device_id))

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "strides": None if self.flags.c_contiguous else self.strides,
            "version": 3,
        }

    def __dlpack_device__(self):
        return 2, self.data.device_id

    def __dlpack__(self, *, stream=None, **options):
        """What another library would make of it: a view, on its own stream."""
        assert not options.keys() - {"max_version", "dl_device", "copy"}
        return self._view(self._pixels)

    def copy(self):
        """To the current device."""
        gpu.record("copy", self.nbytes)
        return self._made_later(np.ascontiguousarray)

    def get(self):
        with self.device:
            gpu.record("download", self.nbytes)
            gpu.stream.run()
        return self._pixels.copy()

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __eq__(self, other):
        raise TypeError("nothing here needs to compare arrays on a device")

    def __reduce__(self):
        return asarray, (self.get(),)

    def __len__(self):
        return len(self._pixels)

    def __getitem__(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        if all(k is None or k is ... or isinstance(k, (int, np.integer, slice)) for k in keys):
            # an ellipsis keeps 0-d results arrays
            return self._view(self._pixels[(*keys, ...) if ... not in keys else keys])
        return self._computed(lambda pixels: pixels[key])

    def __setitem__(self, key, value):
        with self.device:
            gpu.record("launch", "of CuPy")
            pixels = value._pixels if isinstance(value, FakeArray) else value
            assert isinstance(value, FakeArray) or np.isscalar(value)
            gpu.stream.submit(lambda: self._pixels.__setitem__(key, pixels))

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def transpose(self, *axes):
        return self._view(self._pixels.transpose(*axes))

    def view(self, dtype):
        return self._view(self._pixels.view(dtype))

    def reshape(self, *shape):
        pixels = self._pixels.reshape(*shape)
        if self.size == 0 or np.shares_memory(pixels, self._pixels):
            return self._view(pixels)
        return self._computed(lambda pixels: pixels.reshape(*shape))

    def max(self):
        return self._computed(np.max)

    def min(self):
        return self._computed(np.min)


def _filled(pixels):
    array = FakeArray(pixels.shape, pixels.dtype)
    array._pixels[...] = pixels
    return array


def asarray(data):
    """`cupy.asarray`."""
    if isinstance(data, FakeArray):
        return data
    if hasattr(data, "__cuda_array_interface__"):
        found = data.__cuda_array_interface__
        assert found.get("strides") is None
        dtype, (address, _) = np.dtype(found["typestr"]), found["data"]
        size = prod(found["shape"]) * dtype.itemsize
        return FakeArray(
            found["shape"], dtype, MemoryPointer(UnownedMemory(address, size, data), 0)
        )
    gpu.record("upload", np.asarray(data).nbytes)
    return _filled(np.asarray(data))


def from_dlpack(data):
    """`cupy.from_dlpack`."""
    return data.__dlpack__(stream=gpu.stream.ptr or 1)


def _ascontiguousarray(array, dtype=None):
    wanted = array.dtype if dtype is None else np.dtype(dtype)
    if array.dtype == wanted and array.flags.c_contiguous:
        return array
    return array._computed(lambda pixels: np.ascontiguousarray(pixels, wanted))


def _zeros(shape, dtype=float):
    array = FakeArray(shape, dtype)
    array[...] = 0
    return array


def _memory_info():
    return gpu.capacity - gpu.used_bytes(), gpu.capacity


def make_module() -> ModuleType:
    """Return the module."""
    cupy = ModuleType("cupy")
    cupy.__version__ = "0 (fake)"
    cupy.ndarray = FakeArray
    cupy.empty = FakeArray
    cupy.zeros = _zeros
    cupy.asarray = asarray
    cupy.from_dlpack = from_dlpack
    cupy.asnumpy = lambda array: array.get()
    cupy.ascontiguousarray = _ascontiguousarray
    cupy.copyto = lambda to, source: to.__setitem__(..., source)
    for function in (np.isfinite, np.isnan, np.isinf):
        setattr(cupy, function.__name__, lambda array, f=function: array._computed(f))
    cupy.count_nonzero = lambda array: array._computed(lambda x: np.array(np.count_nonzero(x)))
    cupy.RawKernel = device.RawKernel
    cupy.get_default_memory_pool = lambda: SimpleNamespace(
        used_bytes=gpu.used_bytes, free_bytes=lambda: 0
    )
    cupy.cuda = SimpleNamespace(
        Device=Device,
        Event=device.Event,
        ExternalStream=device.external_stream,
        MemoryPointer=MemoryPointer,
        Stream=device.Stream,
        UnownedMemory=UnownedMemory,
        alloc=lambda n_bytes: MemoryPointer(Memory(n_bytes), 0),
        alloc_pinned_memory=device.Pinned,
        get_current_stream=gpu.stream_of,
        get_elapsed_time=lambda a, b: 0.5,
        memory=SimpleNamespace(OutOfMemoryError=device.OutOfMemoryError),
        runtime=SimpleNamespace(
            CUDARuntimeError=limits.CUDARuntimeError,
            getDevice=lambda: gpu.device,
            getDeviceCount=lambda: gpu.n_devices,
            driverGetVersion=lambda: 13020,
            getDeviceProperties=lambda number: {
                "name": b"fake",
                "major": 9,
                "minor": 0,
                "totalGlobalMem": gpu.capacity,
                "l2CacheSize": 1 << 20,
            },
            runtimeGetVersion=lambda: 12090,
            memGetInfo=_memory_info,
            memcpyAsync=device.memcpy_async,
            memcpy2DAsync=device.memcpy_2d_async,
            eventRecord=device.event_record,
            memcpyHostToDevice=device.HOST_TO_DEVICE,
            memcpyDeviceToHost=device.DEVICE_TO_HOST,
        ),
    )
    return cupy


@contextmanager
def installed() -> Iterator[ModuleType]:
    """Give the module to whoever imports CuPy; its devices are new."""
    gpu.reset()
    caches = (cuda_problem, cupy_runtime, _side_stream, _copying)
    for cache in caches:
        cache.cache_clear()
    module = make_module()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "cupy", module)
            yield module
            gpu.finish()  # errors of kernels come when somebody waits
    finally:
        for cache in caches:
            cache.cache_clear()

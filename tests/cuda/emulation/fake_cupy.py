"""As much of CuPy as `CupyRuntime` and gpu_check.py use, on NumPy and the emulation.

It shows that their own logic runs, not that CuPy behaves like this.
"""

from __future__ import annotations

import contextlib
import ctypes
from types import ModuleType, SimpleNamespace

import numpy as np

from emulation.runtime import compiled_kernel


class FakeArray(np.ndarray):
    """Has CuPy's `data.ptr`."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


class FakeEvent:
    """`done` becomes true when the test says so: all copies are at once, but nobody may know."""

    pending = 0

    def __init__(self, block=False, disable_timing=False):
        self._waits = 0

    def record(self, stream=None):
        self._waits = FakeEvent.pending

    @property
    def done(self):
        self._waits -= 1
        return self._waits < 0

    def synchronize(self):
        pass


class FakeRawKernel:
    def __init__(self, code, name, options=()):
        self._code, self._name = code, name

    def __call__(self, grid, block, args, *, shared_mem=0):
        assert all(isinstance(argument, np.generic) for argument in args)
        if self._name != "spin":
            compiled_kernel(self._code, self._name)(grid, block, args, shared_mem=shared_mem)


def _memcpy_async(to, source, n_bytes, kind, stream):
    ctypes.memmove(to, source, n_bytes)


class FakePinned(bytearray):
    """A buffer with an address."""

    allocated: list[int] = []  # noqa: RUF012

    def __init__(self, n_bytes):
        super().__init__(n_bytes)
        FakePinned.allocated.append(n_bytes)
        self.ptr = ctypes.addressof((ctypes.c_char * n_bytes).from_buffer(self))


class FakeDevice(contextlib.nullcontext):
    def use(self):
        pass

    def synchronize(self):
        pass


def make_module() -> ModuleType:
    """Return the module."""
    cupy = ModuleType("cupy")
    cupy.__version__ = "0 (fake)"
    cupy.empty = lambda shape, dtype: (
        np.full(np.prod(shape, dtype=int) * np.dtype(dtype).itemsize, 0xFF, np.uint8)
        .view(dtype)
        .reshape(shape)
        .view(FakeArray)
    )
    cupy.zeros = lambda shape, dtype: np.zeros(shape, dtype).view(FakeArray)
    cupy.asarray = lambda array: np.array(array).view(FakeArray)
    cupy.asnumpy = lambda array: np.array(array).view(np.ndarray)
    cupy.copyto = np.copyto
    cupy.RawKernel = FakeRawKernel
    cupy.cuda = SimpleNamespace(
        Device=lambda number=0: FakeDevice(number),
        Event=FakeEvent,
        alloc_pinned_memory=FakePinned,
        get_current_stream=lambda: SimpleNamespace(ptr=0),
        get_elapsed_time=lambda a, b: 0.5,
        runtime=SimpleNamespace(
            memcpyAsync=_memcpy_async,
            memcpyHostToDevice=1,
            getDeviceProperties=lambda number: {"name": b"fake"},
        ),
    )
    return cupy

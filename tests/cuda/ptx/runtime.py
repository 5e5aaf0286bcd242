"""Where tests have kernels built by a C++ compiler, their PTX: a runtime, and for fake CuPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import nvrtc
from emulation import gpu as device
from emulation.runtime import GUARD_BYTES, POISON, EmulatedRuntime

from ptx import execute
from ptx.decode import decode
from ptx.execute import Buffer, Report
from ptx.module import Module

ARCHITECTURE = 90
"""Compute capability to compile for where nothing else is said, 90 for 9.0."""
_ALIGNMENT = 512
"""Of CuPy's memory pool."""

launches: Counter[str] = Counter()
"""How often each kernel ran in this process."""


def missing() -> str:
    """Say what this machine lacks, "" for nothing."""
    if nvrtc.library() is None:
        return f"interpreted PTX needs the wheel {nvrtc.WHEEL} (no GPU, no driver)"
    return "" if execute.available() else "interpreted PTX needs a C++ compiler"


def compiled(text: str, architecture: int = ARCHITECTURE) -> Module:
    """Return what NVRTC makes of a kernel's complete text, decoded."""
    return decode(nvrtc.compile_to_ptx(text, architecture, execute.own_folder()))


class PtxRuntime(EmulatedRuntime):
    """Runs the PTX of kernels on NumPy arrays; each launch is checked.

    Parameters
    ----------
    order : int
        Of warps and blocks, see `execute.launch`.
    edit : callable
        Changes a kernel's complete text before it is compiled.
    architecture : int
        Compute capability to compile for.

    Attributes
    ----------
    reports : list of Report
        Of the launches so far.
    """

    def __init__(
        self, order: int = 0, edit: Callable[[str], str] = str, architecture: int = ARCHITECTURE
    ) -> None:
        super().__init__(order, edit=edit)
        self.architecture = architecture
        self.reports: list[Report] = []
        self._buffers: dict[int, tuple[Any, Buffer]] = {}  # with what keeps the memory
        self._fresh: list[int] = []  # outputs that no launch has seen

    def output(self, shape, dtype):
        array, guard = aligned(shape, dtype)
        self._guards.append(guard)
        self._note(array, np.ones(array.nbytes, bool))
        self._fresh.append(array.ctypes.data)
        return array

    def upload(self, table):
        array, _ = aligned(table.shape, table.dtype)
        array[...] = table
        self._note(array)
        return array

    def pointer(self, array) -> int:
        place = array.ctypes.data
        if place not in self._buffers or self._buffers[place][1].n_bytes < array.nbytes:
            self._note(array)
        return place

    def _look_for_writes_of_the_host(self) -> None:
        """Tests fill what `output` has given them."""
        for place in self._fresh:
            array, buffer = self._buffers[place]
            if (array.reshape(-1).view(np.uint8) != POISON).any():
                buffer.unset[...] = False
        self._fresh.clear()

    def _note(self, array, unset=None) -> None:
        place = array.ctypes.data
        self._buffers[place] = array, Buffer(place, array.nbytes, unset)

    def _build(self, text: str, entry: str):
        module = compiled(text, self.architecture)

        def kernel(grid, block, arguments, *, shared_mem=0):
            buffers = [buffer for _, buffer in self._buffers.values() if buffer.n_bytes]
            self._look_for_writes_of_the_host()
            self.reports.append(
                run(module, entry, grid, block, arguments, shared_mem, buffers, self.order)
            )

        return kernel


@contextmanager
def in_fake_cupy():
    """Have fake CuPy run PTX for a while; it knows of its memory only what was allocated."""

    def build(text: str, entry: str):
        module = compiled(text)

        def kernel(grid, block, arguments, *, shared_mem=0):
            memories = [m for m in device.living(device.gpu.memories) if m.size]
            buffers = [Buffer(memory.ptr, memory.size) for memory in memories]
            run(module, entry, grid, block, arguments, shared_mem, buffers)

        return kernel

    with mock.patch.object(device, "compiled_kernel", build):
        yield


def run(
    module: Module,
    entry: str,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    arguments: tuple[Any, ...],
    shared_bytes: int,
    buffers: Iterable[Buffer],
    order: int = 0,
) -> Report:
    """Launch and check."""
    launches[entry] += 1
    report = execute.launch(module, entry, grid, block, arguments, shared_bytes, buffers, order % 4)
    report.check()
    return report


def aligned(shape, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return poison as an array where CuPy's pool would put it, and the guard behind it."""
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = np.full(n_bytes + _ALIGNMENT + GUARD_BYTES, POISON, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    stop = start + n_bytes
    return memory[start:stop].view(dtype).reshape(shape), memory[stop : stop + GUARD_BYTES]

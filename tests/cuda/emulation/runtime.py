"""`gpu_patch._cuda.runtime.Runtime` on NumPy arrays: kernels are built by a C++ compiler."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from emulation.limits import check_launch
from gpu_patch._cuda.loader import Constants, source_text

HERE = Path(__file__).parent
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ("-O1", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", "-U_FORTIFY_SOURCE")
SANITIZERS = {
    "": (),
    "address": ("-fsanitize=address", "-g", "-DEMULATE_WITH_THREADS", "-pthread"),
    "thread": ("-fsanitize=thread", "-g", "-DEMULATE_WITH_THREADS", "-pthread"),
}
POISON = 0xFF
"""Byte that fills new arrays: NaN in float32 and float16."""
GUARD_BYTES = 4096
"""Poison that must stay behind every new array."""


def available() -> bool:
    """Whether there is a compiler."""
    return os.name == "posix" and shutil.which(COMPILER) is not None


class EmulatedRuntime:
    """Runs kernels on the CPU.

    Parameters
    ----------
    order : int
        Seed of the order in which the threads of a block run between barriers; 0 is ascending.
    sanitizer : {"", "address", "thread"}
        What to compile in; the process must have that sanitizer's library loaded.
    edit : callable
        Changes a kernel's complete text before it is compiled, to see the tests fail.
    """

    def __init__(
        self,
        order: int = 0,
        sanitizer: str = "",
        edit: Callable[[str], str] = str,
    ) -> None:
        self.order = order
        self.sanitizer = sanitizer
        self.edit = edit
        self.launched: list[tuple[str, dict[str, int]]] = []
        self._guards: list[np.ndarray] = []

    def active(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def output(self, shape, dtype):
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        # none under a sanitizer, which has guards of its own
        guard = 0 if self.sanitizer else GUARD_BYTES
        memory = np.full(n_bytes + guard, POISON, np.uint8)
        self._guards.append(memory[n_bytes:])
        return memory[:n_bytes].view(dtype).reshape(shape)

    def upload(self, table):
        return table.copy()

    def pointer(self, array) -> int:
        return array.ctypes.data

    def stream(self) -> int:
        return 0

    def kernel(self, name: str, entry: str, constants: Constants):
        run = self._build(self.edit(source_text(name, constants)), entry)
        self.launched.append((entry, dict(constants)))

        def kernel(grid, block, arguments, *, shared_mem=0):
            check_launch(grid, block, arguments, shared_mem)
            run(grid, block, arguments, shared_mem=shared_mem)
            if not all((guard == POISON).all() for guard in self._guards):
                raise RuntimeError(f"{entry} has written behind its output")
            self._guards.clear()

        return kernel

    def _build(self, text: str, entry: str):
        return compiled_kernel(text, entry, self.sanitizer, self.order)


def compiled_kernel(text: str, entry: str, sanitizer: str = "", order: int = 0):
    """Return a kernel to be called like a `cupy.RawKernel`, with NumPy scalars only."""
    function, set_order = _compiled(text, entry, sanitizer)

    def kernel(grid, block, arguments, *, shared_mem=0):
        dims = np.array([*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3]], np.uint32)
        values = [np.array(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        set_order(order)
        error = function(dims.ctypes.data, shared_mem, pointers)
        if error:
            raise RuntimeError(error.decode())

    return kernel


@cache
def _compiled(text: str, entry: str, sanitizer: str):
    """Build a kernel, or take the file that an earlier process has built of the same text."""
    shim = (HERE / "cpu_shim.h").read_text()
    source = f'#line 1 "cpu_shim.h"\n{shim}\n{text}\nEMULATION_EXPORT({entry})\n'
    # the host's fma instruction, where it has one; else the C library's, slow but the same
    flags = [*FLAGS, *SANITIZERS[sanitizer], *(["-mfma"] if _has_fma() else [])]
    key = hashlib.sha256("\0".join([COMPILER, *flags, source]).encode()).hexdigest()[:20]
    folder = Path(tempfile.gettempdir()) / f"gpu_patch_emulation_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to somebody else")
    library = folder / f"{entry}_{key}.so"
    if not library.exists():
        # written beside it and then moved, so that a second process never loads half a file
        unfinished = library.with_suffix(f".{os.getpid()}")
        command = [COMPILER, "-x", "c++", *flags, "-", "-o", str(unfinished)]
        # a sanitizer that is loaded into this process has no business in the compiler
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        built = subprocess.run(
            command, input=source, text=True, capture_output=True, check=False, env=environment
        )
        if built.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{built.stderr}")
        unfinished.replace(library)
    loaded = ctypes.CDLL(str(library))
    function = loaded.emulation_launch
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    loaded.emulation_order.argtypes = [ctypes.c_uint64]
    return function, loaded.emulation_order


@cache
def _has_fma() -> bool:
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and " fma " in cpu.read_text()

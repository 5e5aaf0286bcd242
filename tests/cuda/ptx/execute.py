"""Launches of decoded kernels, and what they did."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptx.layout import ENGINE, EVENTS, FOUND, STAT, TOTALS, UNINITIALISED, Launch
from ptx.module import Module

COMPILER = os.environ.get("CXX", "g++")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off")
HARMLESS = {"written_twice"}
"""Events that are counted and no error: copies of the same value."""
_MOST_FOUND = 16


class KernelError(RuntimeError):
    """A kernel has done what it may not."""


class Buffer(NamedTuple):
    """Device memory that a launch may touch."""

    address: int
    n_bytes: int
    unset: np.ndarray | None = None
    """Of each byte, whether nobody has written it yet, and then whether the launch has not; None
    where all were written."""


@dataclass(frozen=True)
class Report:
    """What a launch did."""

    entry: str
    module: Module
    stats: np.ndarray
    """A `STAT` record per instruction."""
    totals: np.void
    """`TOTALS`."""
    events: dict[str, int]
    examples: list[str]

    def check(self) -> None:
        """Raise KernelError where something happened that may not."""
        bad = {name: n for name, n in self.events.items() if name not in HARMLESS}
        if bad:
            raise KernelError(f"{self.entry}: {bad}\n" + "\n".join(self.examples))

    def by_kind(self) -> Counter[str]:
        """Warp instructions by mnemonic."""
        found: Counter[str] = Counter()
        for instruction, runs in zip(self.module.code, self.stats["runs"], strict=True):
            found[instruction.name] += int(runs)
        return found

    def of(self, *prefixes: str) -> np.void:
        """Return the sums of `STAT` over the instructions whose names start so."""
        chosen = [each.name.startswith(prefixes) for each in self.module.code]
        found = np.zeros((), STAT)
        for name in STAT.names:
            found[name] = self.stats[name][chosen].sum()
        return found[()]


def launch(
    module: Module,
    entry: str,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[Any],
    shared_bytes: int = 0,
    buffers: Iterable[Buffer] = (),
    order: int = 0,
) -> Report:
    """Run a kernel.

    Parameters
    ----------
    module : Module
        What `decode.decode` returned.
    entry : str
        Name of the kernel.
    grid, block : sequence of int
        Blocks, and threads of one, along up to three axes.
    arguments : sequence of NumPy scalars or structures
        By value, as CuPy passes them.
    shared_bytes : int
        Dynamic shared memory.
    buffers : iterable of Buffer
        All that the kernel may touch.
    order : int
        1: the warps of a block go in descending order, 2: the blocks do, 3: both.

    Returns
    -------
    Report
        Events are told and not raised: see `Report.check`.
    """
    function, arrays = module.functions[entry], _arrays(module)
    parameters = np.frombuffer(_packed(module, entry, arguments) or bytes(4), np.uint8)
    buffers = sorted(buffers)
    # the sectors must live as long as the engine notes something in them
    table, shadows, _sectors = _shadows(buffers)
    stats, totals = np.zeros(len(module.code), STAT), np.zeros(1, TOTALS)
    found, n_found = np.zeros(_MOST_FOUND, FOUND), np.zeros(1 + len(EVENTS), np.int64)
    told = Launch(
        **{name: array.ctypes.data for name, array in arrays.items()},
        const_bytes=arrays["const_memory"].nbytes, buffers=table.ctypes.data,
        n_buffers=len(buffers), stats=stats.ctypes.data, found=found.ctypes.data,
        most_found=len(found), n_found=n_found.ctypes.data, totals=totals.ctypes.data,
        parameters=parameters.ctypes.data, parameter_bytes=parameters.nbytes,
        register_bytes=module.register_bytes, shared_bytes=module.shared_bytes + shared_bytes,
        start=function.start, grid=_three(grid), block=_three(block), order=order,
    )  # fmt: skip
    _engine().run_grid(ctypes.byref(told))
    for buffer, shadow in zip(buffers, shadows, strict=True):
        if buffer.unset is not None:
            buffer.unset[...] = shadow & UNINITIALISED != 0
    return Report(
        entry, module, stats, totals[0],
        {name: int(n) for name, n in zip(EVENTS, n_found[1:], strict=True) if n},
        [_told(module, one) for one in found[: n_found[0]]],
    )  # fmt: skip


def available() -> bool:
    """Whether there is a compiler for the engine."""
    return os.name == "posix" and shutil.which(COMPILER) is not None


def _packed(module: Module, entry: str, arguments: Sequence[Any]) -> bytes:
    """Return the arguments where the kernel looks for them, each of the size that it has there."""
    parameters = module.functions[entry].parameters.values()
    if len(arguments) != len(parameters):
        raise KernelError(f"{entry} has {len(parameters)} parameters, not {len(arguments)}")
    found, first = b"", min(parameters, default=(0, 0))[0]
    for argument, (place, n_bytes) in zip(arguments, parameters, strict=True):
        value = np.asarray(argument).tobytes()
        if len(value) != n_bytes:
            raise KernelError(f"{entry}: {len(value)} bytes given, where {n_bytes} are wanted")
        found = found.ljust(place - first, b"\0") + value
    return found


def _shadows(buffers: Sequence[Buffer]) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Return the engine's table of buffers; what it notes of each byte; and of sectors."""
    rows, shadows, sectors = [], [], []
    for buffer in buffers:
        shadow = np.zeros(buffer.n_bytes, np.uint8)  # takes memory only where it is touched
        if buffer.unset is not None:
            shadow[buffer.unset] = UNINITIALISED
        loaded, stored = asked = np.zeros((2, buffer.n_bytes // 32 + 2), np.uint32)
        places = (array.ctypes.data for array in (shadow, loaded, stored))
        rows.append((buffer.address, buffer.n_bytes, *places))
        shadows.append(shadow)
        sectors.append(asked)
    return np.array(rows or [(0,) * 5], np.uint64), shadows, sectors


def _told(module: Module, found: np.void) -> str:
    instruction = module.code[found["at"]]
    files = dict(re.findall(r'\.file\s+(\d+)\s+"([^"]*)"', module.text))
    file, line = instruction.line
    place = f" ({Path(files[str(file)]).name}:{line})" if file else ""
    return (
        f"  {EVENTS[found['event']]}: {instruction.name}{place}, block {found['block']}, "
        f"thread {found['thread']}, address {int(found['address']):#x}"
    )


def _three(sizes: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int32 * 3)(*(*map(int, sizes), 1, 1)[:3])


@cache
def _arrays(module: Module) -> dict[str, np.ndarray]:
    return module.arrays()


@cache
def _engine() -> ctypes.CDLL:
    """Build the engine, or take the file that an earlier process has built of the same text."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(ENGINE.iterdir())]
    key = hashlib.sha256("\0".join([COMPILER, *FLAGS, *texts]).encode()).hexdigest()[:20]
    library = own_folder() / f"engine_{key}.so"
    if not library.exists():
        unfinished = library.with_suffix(f".{os.getpid()}")
        command = [COMPILER, *FLAGS, str(ENGINE / "engine.cpp"), "-o", str(unfinished)]
        # a sanitizer that is loaded into this process has no business in the compiler
        environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        subprocess.run(command, check=True, env=environment)
        unfinished.replace(library)
    return ctypes.CDLL(str(library))


def own_folder() -> Path:
    """Return the folder of what is kept from process to process."""
    folder = Path(tempfile.gettempdir()) / f"gpu_patch_ptx_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} belongs to somebody else")
    return folder

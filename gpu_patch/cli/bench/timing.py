"""How times are taken, on the CPU and on a GPU, and what machine they are taken on."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import gpu_patch
from gpu_patch.specs import PatchBatch

Call = Callable[[], object]

N_CALLS = 20
"""Calls that a GPU is given at once."""
_FEWEST_CALLS = 3
_SPIN = """
extern "C" __global__ void spin(long long cycles) {
    const long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""
_SPIN_CYCLES = 40_000_000
"""About 20 ms, in which the host puts all calls into the queue."""


def output_bytes(batch: PatchBatch) -> int:
    """Return the bytes of a batch's input and target."""
    return sum(array.nbytes for array in batch[:2] if array is not None)


def copy_bandwidth() -> float:
    """Return bytes read and written per second by a copy that no cache holds."""
    source = np.ones(1 << 26, np.uint8)
    target = np.empty_like(source)
    return 2 * source.nbytes / median(seconds(np.copyto, target, source) for _ in range(9))


def machine() -> dict[str, Any]:
    """Describe what the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "n_cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "gpu_patch": gpu_patch.__version__,
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }


def _commit() -> str | None:
    """Return the commit of this very package, None where it is not in a checkout of its own."""
    root = Path(gpu_patch.__file__).parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or None


def timed(call: Callable[[Any], object], arguments: Iterator[Any], budget: float) -> list[float]:
    """Return the seconds of calls one after the other, for as long as the budget of seconds."""
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < _FEWEST_CALLS or time.perf_counter() < end:
        times.append(seconds(call, next(arguments)))
    return times


def seconds(call: Callable[..., object], *arguments: object) -> float:
    """Return how long a call takes the host."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def device_times(cupy: Any, calls: Sequence[Call]) -> list[float]:
    """Return what the device takes for each call, the queue being full.

    Where the host takes longer than the device, or a call waits for the device, the queue runs
    empty: then it is the time from one call's end to the next one's.
    """
    spin = cupy.RawKernel(_SPIN, "spin")
    # the first pass makes the memory that a full queue needs
    for _ in range(2):
        _forget(cupy)
        events = [cupy.cuda.Event() for _ in range(len(calls) + 1)]
        spin((1,), (1,), (np.int64(_SPIN_CYCLES),))
        events[0].record()
        for call, event in zip(calls, events[1:], strict=True):
            call()
            event.record()
        events[-1].synchronize()
    return [cupy.cuda.get_elapsed_time(a, b) / 1e3 for a, b in pairwise(events)]


def _forget(cupy: Any) -> None:
    """Wait for the device, its cache full of something else: small batches would fit into it."""
    device = cupy.cuda.Device()
    cache = cupy.cuda.runtime.getDeviceProperties(device.id)["l2CacheSize"]
    cupy.zeros(4 * cache, np.uint8)
    device.synchronize()


def host_times(cupy: Any, calls: Sequence[Call]) -> list[float]:
    """Return what the host takes for each call; nobody waits for the device in between."""
    cupy.cuda.Device().synchronize()
    return [seconds(call) for call in calls]


def elapsed(cupy: Any, calls: Sequence[Call]) -> float:
    """Return the time per call of a loop over all of them, until the device has done them."""
    _forget(cupy)
    start = time.perf_counter()
    for call in calls:
        call()
    cupy.cuda.Device().synchronize()
    return (time.perf_counter() - start) / len(calls)


def device_copy_bandwidth(cupy: Any, n_bytes: int = 1 << 30) -> float:
    """Return bytes read and written per second by a copy on the device."""
    source, to = cupy.zeros(n_bytes, np.uint8), cupy.empty(n_bytes, np.uint8)
    copies = [lambda: cupy.copyto(to, source)] * N_CALLS
    return 2 * n_bytes / median(device_times(cupy, copies))

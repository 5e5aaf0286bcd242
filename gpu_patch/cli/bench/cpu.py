"""What ``gpu-patch bench`` measures on the CPU: times and memory of batches, beside careamics'."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from math import prod
from statistics import median
from types import SimpleNamespace
from typing import Any

from gpu_patch._host import library
from gpu_patch.cli.bench.process import command
from gpu_patch.cli.bench.timing import copy_bandwidth, machine, output_bytes, timed
from gpu_patch.cli.bench.upstream import Careamics
from gpu_patch.cli.bench.workloads import (
    Workload,
    build,
    gpu_patch_library,
    shuffled_batches,
)
from gpu_patch.threads import get_num_threads, set_num_threads

_WARM_UP = 2


def serve(settings: dict[str, Any], report: Callable[[Any], None]) -> None:
    """Measure what `settings` ask for: first the machine, then a row per workload."""
    ours = gpu_patch_library("cpu")
    if "memory_of" in settings:
        return report({"peak_bytes": peak_bytes(Workload(*settings["memory_of"]), ours)})
    careamics = Careamics(settings)
    bandwidth = copy_bandwidth()
    compiled = library.choice().library
    report(
        {
            **machine(),
            "kernels": compiled.level if compiled else None,
            "n_threads": get_num_threads(),
            "careamics": careamics.version,
            "copy_bytes_per_second": bandwidth,
        }
    )
    for workload in settings["workloads"]:
        row = measure(
            Workload(*workload), ours, careamics, budget=settings["budget"], bandwidth=bandwidth
        )
        memory = command({"device": "cpu", "memory_of": workload})
        found = subprocess.run(memory, stdout=subprocess.PIPE, check=True).stdout
        report({**row, **json.loads(found)})
    careamics.close()
    return None


def measure(
    workload: Workload,
    ours: SimpleNamespace,
    careamics: Careamics,
    *,
    budget: float,
    bandwidth: float,
) -> dict[str, Any]:
    """Time a workload.

    Batches of ours are timed before and after careamics' patches, so that a machine that slows
    down slows both. The indices are of one epoch. Where there are compiled kernels, NumPy's batches
    and those of all threads are timed beside those of one thread.

    Returns
    -------
    dict
        The row: times in seconds per patch, bytes per batch.
    """
    case, batch_size = workload.case, workload.batch_size
    images = case.images()
    constructor = build(ours, case, images)
    batches = shuffled_batches(constructor.n_patches, batch_size)
    ways = _ways()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        with way():
            for _ in range(_WARM_UP):
                batch = constructor.construct_batch(next(batches))
    out_bytes = output_bytes(batch)
    del batch

    def time_all() -> None:
        for name, way in ways.items():
            with way():
                times[name] += timed(constructor.construct_batch, batches, budget / 2)

    time_all()
    patch_times = careamics.patch_times(case)
    time_all()
    of_patch = {name: median(found) / batch_size for name, found in times.items()}

    window_bytes = case.window_bytes(batch_size, images.itemsize)
    read_bytes = window_bytes
    if case.constructor in ("basic-target", "paired"):
        read_bytes += batch_size * 2 * prod(case.patch_size) * images.itemsize
    return {
        **workload._asdict(),
        "window_side": workload.window_side,
        "seconds_per_patch": of_patch["one thread"],
        "numpy_seconds_per_patch": of_patch.get("NumPy"),
        "threads_seconds_per_patch": of_patch.get("threads"),
        "n_batches": len(times["one thread"]),
        "floor_seconds_per_patch": (read_bytes + out_bytes) / bandwidth / batch_size,
        "careamics_seconds_per_patch": median(patch_times) if patch_times else None,
        "careamics_n_patches": len(patch_times),
        "output_bytes": out_bytes,
        "largest_window_bytes": window_bytes,
    }


def _ways() -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """Return what to time: one thread of what computes here, and what else there is."""
    found, n_threads = library.choice().library, get_num_threads()
    ways: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "one thread": partial(_computing, found, 1)
    }
    if found:
        ways["NumPy"] = partial(_computing, None, 1)
        if n_threads > 1:
            ways["threads"] = partial(_computing, found, n_threads)
    return ways


@contextmanager
def _computing(compiled: library.Library | None, n_threads: int) -> Iterator[None]:
    set_num_threads(n_threads)
    try:
        with library.computing(compiled):
            yield
    finally:
        set_num_threads(None)


def peak_bytes(workload: Workload, library: SimpleNamespace) -> int:
    """Return the most memory that the first batch of this process holds at once.

    Later ones would use memory again that does not count as theirs.
    """
    constructor = build(library, workload.case, workload.case.images())
    indices = next(shuffled_batches(constructor.n_patches, workload.batch_size))
    tracemalloc.start()
    try:
        constructor.construct_batch(indices)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

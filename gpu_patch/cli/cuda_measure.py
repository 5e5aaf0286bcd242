"""What ``gpu-patch bench --device cuda`` measures, and how one times work on a GPU.

All times are seconds. A device time is what the device works on a batch, by events while its queue
is full. Each batch timed has other places, in images much larger than the device's cache.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import islice, pairwise
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.cli import driver
from gpu_patch.cli.alternatives import ALTERNATIVES
from gpu_patch.cli.measure import Careamics, machine, output_bytes
from gpu_patch.cli.workloads import (
    USUAL_BATCH,
    Case,
    Workload,
    build,
    gpu_patch_library,
    shuffled_batches,
)
from gpu_patch.errors import shorten
from gpu_patch.geometry import window_start
from gpu_patch.plan import Plan, Rows

Call = Callable[[], object]

N_CALLS = 20
IMAGE_BYTES = 1 << 30
CAREAMICS = "careamics, one CPU core"
_WARM_UP = 3
_SPIN = """
extern "C" __global__ void spin(long long cycles) {
    const long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""
_SPIN_CYCLES = 40_000_000
"""About 20 ms, in which the host puts all calls into the queue."""


# ---- timing ------------------------------------------------------------------------------------


def device_times(cupy: Any, calls: Sequence[Call]) -> list[float]:
    """Return what the device takes for each call, the queue being full.

    Where the host takes longer than the device, or a call waits for the device, the queue runs
    empty: then it is the time from one call's end to the next one's.
    """
    spin = cupy.RawKernel(_SPIN, "spin")
    # the first pass makes the memory that a full queue needs
    for _ in range(2):
        cupy.cuda.Device().synchronize()
        events = [cupy.cuda.Event() for _ in range(len(calls) + 1)]
        spin((1,), (1,), (np.int64(_SPIN_CYCLES),))
        events[0].record()
        for call, event in zip(calls, events[1:], strict=True):
            call()
            event.record()
        events[-1].synchronize()
    return [cupy.cuda.get_elapsed_time(a, b) / 1e3 for a, b in pairwise(events)]


def host_times(cupy: Any, calls: Sequence[Call]) -> list[float]:
    """Return what the host takes for each call; nobody waits for the device in between."""
    cupy.cuda.Device().synchronize()
    return [_seconds(call) for call in calls]


def elapsed(cupy: Any, calls: Sequence[Call]) -> float:
    """Return the time per call of a loop over all of them, until the device has done them."""
    cupy.cuda.Device().synchronize()
    start = time.perf_counter()
    for call in calls:
        call()
    cupy.cuda.Device().synchronize()
    return (time.perf_counter() - start) / len(calls)


def copy_bandwidth(cupy: Any, n_bytes: int = 1 << 30) -> float:
    """Return bytes read and written per second by a copy on the device."""
    source, to = cupy.zeros(n_bytes, np.uint8), cupy.empty(n_bytes, np.uint8)
    copies = [lambda: cupy.copyto(to, source)] * N_CALLS
    return 2 * n_bytes / median(device_times(cupy, copies))


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# ---- bytes -------------------------------------------------------------------------------------


def pixels_read(
    rows: Rows, patch_size: Sequence[int], n_scales: int, image_size: Sequence[int]
) -> int:
    """Return how many pixels the windows of a batch hold, each counted once.

    Windows may overlap, and what of them lies outside the image is read from the inside: close to
    the border, so inside the window itself as good as always.

    Parameters
    ----------
    rows : Rows
        What the batch reads.
    patch_size, n_scales : sequence of int, int
        They give the largest windows.
    image_size : sequence of int
        (Z)YX, of all images.
    """
    patch, scale = np.array(patch_size), max(n_scales - 1, 0)
    start = window_start(rows.coords, patch, scale)
    stop = np.minimum(start + (patch << scale), image_size)
    start = np.maximum(start, 0)
    # a place of its own is one channel's, a shared one all channels'
    n_places = rows.image_idx.shape[1]
    n_channels = len(rows.channels) // int(n_places)
    place = np.broadcast_to(np.arange(n_places), rows.image_idx.shape)
    volumes = np.stack([rows.image_idx, rows.sample_idx, place], axis=-1).reshape(-1, 3)
    start, stop = start.reshape(-1, len(patch)), stop.reshape(-1, len(patch))
    _, volume = np.unique(volumes, axis=0, return_inverse=True)
    same = [volume.reshape(-1) == v for v in range(volume.max() + 1)]
    n_pixels: int = sum(_union(start[which], stop[which]) for which in same)
    return n_channels * n_pixels


def bytes_read(case: Case, plan: Plan, image_size: Sequence[int], itemsize: int) -> int:
    """Return the bytes of the pixels that a batch reads, each counted once."""
    n_pixels = pixels_read(plan.rows, plan.patch_size, case.n_scales, image_size)
    if case.constructor == "paired":  # targets of other images, with all channels
        rows = plan.rows._replace(channels=np.arange(2))
        n_pixels += pixels_read(rows, plan.patch_size, 0, image_size)
    return n_pixels * itemsize


def _union(start: NDArray[np.int64], stop: NDArray[np.int64]) -> int:
    """Return the pixels that boxes (n, D) cover together."""
    edges = [np.unique(ends) for ends in np.concatenate([start, stop]).T]
    covered = np.zeros([len(axis) - 1 for axis in edges], bool)
    for box in zip(start, stop, strict=True):
        ends = zip(edges, *box, strict=True)
        covered[tuple(slice(*np.searchsorted(axis, (a, b))) for axis, a, b in ends)] = True
    return int((covered * reduce(np.multiply.outer, map(np.diff, edges))).sum())


# ---- a row -------------------------------------------------------------------------------------


def resident_images(cupy: Any, case: Case, n_bytes: int) -> Any:
    """Return a case's images on the device, SC(Z)YX: as many samples as fill `n_bytes`."""
    sample = case.images()
    n_samples = max(1, n_bytes // sample.nbytes)
    images = cupy.empty((n_samples, *sample.shape[1:]), sample.dtype)
    images[...] = cupy.asarray(sample)
    cupy.cuda.Device().synchronize()
    return images


def measure(
    cupy: Any,
    workload: Workload,
    careamics: Careamics,
    *,
    device: str,
    bandwidth: float,
    budget: float,
    image_bytes: int,
) -> dict[str, Any]:
    """Time the batches of a workload, and the alternatives on the same plans.

    The images are as many as fill `image_bytes`.

    Returns
    -------
    dict
        The row: times in seconds and memory in bytes, per batch.
    """
    case = workload.case
    pool = cupy.get_default_memory_pool()
    cupy.cuda.Device().synchronize()
    before = pool.used_bytes()
    images = resident_images(cupy, case, image_bytes)
    image_size, itemsize = images.shape[2:], images.dtype.itemsize
    constructor = build(gpu_patch_library(device), case, images)
    if not case.constructor.startswith("multichannel"):
        images = None  # others have copied the channels that they want
    resident = pool.used_bytes() - before

    batches = shuffled_batches(constructor.n_patches, workload.batch_size)
    for indices in islice(batches, _WARM_UP):
        batch = constructor.construct_batch(indices)
    written = output_bytes(batch)
    del batch
    cupy.cuda.Device().synchronize()
    added = pool.used_bytes() - before - resident

    timed = list(islice(batches, N_CALLS))
    plans = [constructor.plan_batch(indices) for indices in timed]
    calls: list[Call] = [partial(constructor.construct_batch, indices) for indices in timed]
    launches = [partial(constructor._execute, plan, np.float32) for plan in plans]
    read = mean(bytes_read(case, plan, image_size, itemsize) for plan in plans)
    device_seconds = device_times(cupy, calls)
    row: dict[str, Any] = {
        **workload._asdict(),
        "n_batches": len(calls),
        "device_seconds": median(device_seconds),
        "device_seconds_range": [min(device_seconds), max(device_seconds)],
        "elapsed_seconds": elapsed(cupy, calls),
        "host_seconds": median(host_times(cupy, calls)),
        "launch_seconds": median(host_times(cupy, launches)),
        "read_bytes": read,
        "output_bytes": written,
        "floor_seconds": (read + written) / bandwidth,
        "image_bytes": resident,
        "added_bytes": added,
        "alternatives": [],
    }
    if case.constructor.startswith("multichannel"):
        ours = launches[0]
        row["alternatives"] = [
            {
                "name": name,
                **_measure_alternative(
                    cupy, partial(make, images, case.n_scales), plans, ours, budget
                ),
            }
            for name, make in ALTERNATIVES.items()
        ]
    row["alternatives"].append({"name": CAREAMICS, **_measure_careamics(careamics, workload)})
    return row


def _measure_alternative(
    cupy: Any,
    make: Callable[[], Callable[[Plan], tuple[Any, Any]]],
    plans: Sequence[Plan],
    ours: Callable[[], tuple[Any, Any]],
    budget: float,
) -> dict[str, Any]:
    """Time an alternative, or say why it cannot be; `ours` makes the first plan's batch."""
    try:
        run = make()
        difference = max(
            _difference(cupy, a, b) for a, b in zip(run(plans[0]), ours(), strict=True)
        )
        calls = [partial(run, plan) for plan in plans]
        n_calls = int(budget / elapsed(cupy, calls[:2]))
        calls = calls[: max(3, n_calls)]
        device_seconds = device_times(cupy, calls)
        return {
            "n_batches": len(calls),
            "device_seconds": median(device_seconds),
            "elapsed_seconds": elapsed(cupy, calls),
            "difference": difference,
        }
    # a library that is missing, too old for this GPU, or out of memory: each has errors of its own
    except Exception as error:
        return {"skipped": shorten(error, 200)}


def _difference(cupy: Any, found: Any, expected: Any) -> float:
    """Return the largest difference, as a part of the largest value."""
    a, b = (cupy.asnumpy(cupy.asarray(array)) for array in (found, expected))
    return float(np.abs(a - b).max() / np.abs(b).max())


def _measure_careamics(careamics: Careamics, workload: Workload) -> dict[str, Any]:
    times = careamics.patch_times(workload.case)
    if not times:
        return {"skipped": f"careamics {careamics.version}"}
    return {"n_patches": len(times), "elapsed_seconds": median(times) * workload.batch_size}


# ---- the process -------------------------------------------------------------------------------


def serve(settings: dict[str, Any], report: Callable[[Any], None]) -> None:
    """Measure what `settings` ask for, on the device that they name."""
    if "first_batch_since" in settings:
        return report(_first_batch(settings["device"], settings["first_batch_since"]))
    number = int(settings["device"].partition(":")[2])
    cupy: Any = importlib.import_module("cupy")
    cupy.cuda.Device(number).use()
    budget = settings["budget"]
    # a process of its own, which is told nothing of the GPU
    careamics = Careamics({"device": "cpu", "budget": budget})
    bandwidth = copy_bandwidth(cupy)
    report(
        {
            **machine(),
            **cuda_machine(cupy, number),
            "careamics": careamics.version,
            "copy_bytes_per_second": bandwidth,
        }
    )
    for row in settings["workloads"]:
        report(
            measure(
                cupy,
                Workload(*row),
                careamics,
                device=settings["device"],
                bandwidth=bandwidth,
                budget=budget,
                image_bytes=IMAGE_BYTES,
            )
        )
    careamics.close()
    return None


def _first_batch(device: str, started: float) -> dict[str, float]:
    """Time the steps to the first batch of this process, which was started at `started`."""
    cupy: Any = importlib.import_module("cupy")
    times = [started, time.time()]
    case = Case("multichannel", 4)
    pixels = case.images()
    generated = time.time() - times[-1]
    constructor = build(gpu_patch_library(device), case, pixels)
    times.append(time.time())
    for first in (0, USUAL_BATCH):
        constructor.construct_batch(range(first, first + USUAL_BATCH))
        cupy.cuda.Device(int(device.partition(":")[2])).synchronize()
        times.append(time.time())
    steps = [b - a for a, b in pairwise(times)]
    steps[1] -= generated
    names = ("import_seconds", "images_seconds", "first_batch_seconds", "second_batch_seconds")
    return {**dict(zip(names, steps, strict=True)), "total_seconds": sum(steps[:3])}


def cuda_machine(cupy: Any, number: int) -> dict[str, Any]:
    """Describe a GPU and its software."""
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(number)
    return {
        "gpu": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "memory_bytes": properties["totalGlobalMem"],
        "cache_bytes": properties["l2CacheSize"],
        "cupy": cupy.__version__,
        "cuda_runtime": _version(runtime.runtimeGetVersion()),
        "cuda_driver": _version(runtime.driverGetVersion()),
        "driver": driver.version(),
    }


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"

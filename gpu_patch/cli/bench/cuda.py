"""What ``gpu-patch bench --device cuda`` measures: batches, beside what one would do instead.

Each batch timed has other places, in images much larger than the device's cache.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice, pairwise
from statistics import mean, median
from typing import Any

import numpy as np

from gpu_patch.checks import shorten
from gpu_patch.cli.bench import model
from gpu_patch.cli.bench.baselines import ALTERNATIVES
from gpu_patch.cli.bench.timing import (
    N_CALLS,
    Call,
    device_copy_bandwidth,
    device_times,
    elapsed,
    host_times,
    machine,
    output_bytes,
)
from gpu_patch.cli.bench.traffic import bytes_read
from gpu_patch.cli.bench.upstream import Careamics
from gpu_patch.cli.bench.workloads import (
    USUAL_BATCH,
    Case,
    Workload,
    build,
    gpu_patch_library,
    shuffled_batches,
)
from gpu_patch.cli.machine import driver
from gpu_patch.constructors.execute import execute
from gpu_patch.constructors.plan import Plan
from gpu_patch.table import volume

IMAGE_BYTES = 1 << 30
CAREAMICS = "careamics, one CPU core"
_WARM_UP = 3


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
    launches = [partial(execute, plan, np.float32) for plan in plans]
    read = mean(map(bytes_read, plans))
    alternatives, predicted = [], None
    if case.constructor.startswith("multichannel"):
        gpu = model.gpu_in_use(cupy, int(device.partition(":")[2]), bandwidth)
        shape = model.shape_of(
            volume(case.patch_size), case.n_scales, workload.batch_size, n_channels=2
        )
        if shape is not None:
            predicted = model.predict(shape, workload.batch_size, read + written, gpu)
        measure_one = partial(_measure_alternative, cupy, plans, launches[0], budget)
        alternatives = [
            {"name": name, **measure_one(partial(make, images, case.n_scales))}
            for name, make in ALTERNATIVES.items()
        ]
    alternatives.append({"name": CAREAMICS, **_measure_careamics(careamics, workload)})
    return {
        **workload._asdict(),
        "window_side": workload.window_side,
        **_times(cupy, calls, launches),
        "read_bytes": read,
        "output_bytes": written,
        "floor_seconds": (read + written) / bandwidth,
        "model_seconds": None if predicted is None else predicted._asdict(),
        "image_bytes": resident,
        "added_bytes": added,
        "alternatives": alternatives,
    }


def _times(cupy: Any, calls: Sequence[Call], launches: Sequence[Call]) -> dict[str, Any]:
    """Time batches on the device and on the host; `launches` are what is not planning."""
    device_seconds = device_times(cupy, calls)
    return {
        "n_batches": len(calls),
        "device_seconds": median(device_seconds),
        "device_seconds_range": [min(device_seconds), max(device_seconds)],
        "elapsed_seconds": elapsed(cupy, calls),
        "host_seconds": median(host_times(cupy, calls)),
        "launch_seconds": median(host_times(cupy, launches)),
    }


def _measure_alternative(
    cupy: Any,
    plans: Sequence[Plan],
    ours: Callable[[], tuple[Any, Any]],
    budget: float,
    make: Callable[[], Callable[[Plan], tuple[Any, Any]]],
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
    bandwidth = device_copy_bandwidth(cupy)
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

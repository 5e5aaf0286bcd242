"""Checks and times the CUDA kernels: ``python tests/cuda/gpu_check.py``, on a machine with a GPU.

Prints a short table and fails where a kernel differs from NumPy. Times are medians. A batch's
device time is what the device works, taken by events while its queue is full; host time is what
the launch code takes. The floor is the time in which the device could copy the batch's bytes: each
pixel that is read, once, and each output.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from cases import DTYPES, MODES, Case, assert_same_context, random_pixels

from gpu_patch._cuda import specialised
from gpu_patch._cuda.runtime import cupy_runtime
from gpu_patch._cuda.table import ImageTable
from gpu_patch.geometry import window_start
from gpu_patch.plan import Rows

SPIN = """
extern "C" __global__ void spin(long long cycles) {
    const long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""
REPEATS = 20


# ---- what to run: no GPU needed ----------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """A batch to time."""

    name: str
    image_shape: tuple[int, ...]  # SC(Z)YX
    patch_size: tuple[int, ...]
    n_scales: int
    batch: int


WORKLOADS = (
    Workload("2D B=32", (64, 2, 2048, 2048), (64, 64), 4, 32),
    Workload("2D B=256", (64, 2, 2048, 2048), (64, 64), 4, 256),
    Workload("3D B=16", (16, 2, 64, 512, 512), (16, 64, 64), 3, 16),
)


def make_case(workload: Workload, seed: int = 0) -> Case:
    """Make a batch of random places of one image, whose pixels are left out."""
    rng = np.random.default_rng(seed)
    n_samples, n_channels, *size = workload.image_shape
    shape = (workload.batch, 1)
    last = np.array(size) - workload.patch_size
    rows = Rows(
        np.zeros(shape, np.int64),
        rng.integers(0, n_samples, shape),
        rng.integers(0, last, (*shape, len(size)), endpoint=True),
        np.arange(n_channels),
    )
    weights = rng.random((workload.batch, n_channels)).astype(np.float32)
    return Case([], rows, weights, workload.patch_size, workload.n_scales, "reflect")


def bytes_read(case: Case, image_shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of the pixels that a batch of one image reads, each counted once.

    Windows may overlap, and what of them lies outside the image is read from the inside: close to
    the border, so inside the window itself as good as always.
    """
    size = np.array(case.patch_size)
    scale = case.n_scales - 1
    start = window_start(case.rows.coords[:, 0], size, scale)
    stop = np.minimum(start + (size << scale), image_shape[2:])
    start = np.maximum(start, 0)
    pixels = 0
    for sample in np.unique(case.rows.sample_idx).tolist():
        read = np.zeros(image_shape[2:], bool)
        for b in np.flatnonzero(case.rows.sample_idx[:, 0] == sample).tolist():
            window = zip(start[b].tolist(), stop[b].tolist(), strict=True)
            read[tuple(slice(*ends) for ends in window)] = True
        pixels += int(read.sum())
    return pixels * len(case.rows.channels) * itemsize


def bytes_written(case: Case, itemsize: int = 4) -> int:
    """Bytes of input and target."""
    batch, n_channels = case.rows.shape
    return batch * (case.n_scales + n_channels) * prod(case.patch_size) * itemsize


def correctness_cases() -> Iterator[tuple[str, Case]]:
    """Batches to compare with NumPy, of every kind."""
    for i, mode in enumerate(MODES):
        yield (
            f"2D common, {mode}",
            Case.random(i, (64, 64), 4, mode, n_samples=8, most=900, least=50),
        )
        yield (
            f"2D own places, {mode}",
            Case.random(
                i, (64, 48), 3, mode, n_channels=3, n_places=3, dtypes=["float32"] * 2, most=400
            ),
        )
        yield (
            f"2D mixed types, {mode}",
            Case.random(i, (33, 57), 4, mode, n_samples=20, dtypes=DTYPES, most=300),
        )
        yield f"3D, {mode}", Case.random(i, (8, 32, 40), 3, mode, n_samples=3, most=90)
        yield (
            f"3D own places, {mode}",
            Case.random(i, (5, 17, 70), 3, mode, n_places=2, dtypes=["int16"], most=60),
        )
        yield f"odd and small, {mode}", Case.random(i, (1, 3), 5, mode, n_channels=4, most=30)
    yield "five scales", Case.random(9, (32, 32), 5, "reflect", n_channels=1, most=700)
    yield "eight scales", Case.random(9, (2, 3), 8, "reflect", most=300)
    yield "large patch", Case.random(9, (300, 520), 3, "reflect", n_samples=1, most=900)


def format_row(*columns: object) -> str:
    """Return a line of the table of times."""
    first, *rest = (f"{c:.1f}" if isinstance(c, float) else str(c) for c in columns)
    return f"{first:34}" + "".join(f"{column:>12}" for column in rest)


# ---- the GPU -----------------------------------------------------------------------------------


def upload(cupy: Any, images: list[np.ndarray]) -> list[Any]:
    return [cupy.asarray(image) for image in images]


def check_correctness(cupy: Any, runtime: Any) -> bool:
    """Compare with NumPy; print what differs, and the largest difference."""
    failed, n_checks, worst = 0, 0, 0.0
    for name, case in correctness_cases():
        images = upload(cupy, case.images)
        expected = case.numpy_context()
        for specialise in (True, False):
            try:
                first, again = (
                    tuple(
                        cupy.asnumpy(part)
                        for part in case.context(runtime, images=images, specialise=specialise)
                    )
                    for _ in range(2)
                )
                worst = max(worst, assert_same_context(first, expected))
                for one, other in zip(first, again, strict=True):
                    np.testing.assert_array_equal(one.view(np.int32), other.view(np.int32))
                half = case.context(runtime, images=images, specialise=specialise, dtype=np.float16)
                with np.errstate(over="ignore"):
                    assert_same_context(tuple(cupy.asnumpy(part) for part in half), expected)
            except AssertionError as error:
                failed += 1
                print(f"DIFFERS: {name}, specialise={specialise}: {error}")
            n_checks += 1
        for mode in ("zero", *MODES):
            made = cupy.asnumpy(case.patches(runtime, mode, images=images))
            n_checks += 1
            if not np.array_equal(made, case.numpy_patches(mode)):
                failed += 1
                print(f"DIFFERS: {name}, patches, {mode}")
    print(f"correctness: {n_checks} checks, {failed} failed, largest difference {worst:.1e}")
    return not failed


def device_times(cupy: Any, call: Callable[[], object]) -> list[float]:
    """Microseconds that the device takes for each of some calls, the queue being full."""
    spin = cupy.RawKernel(SPIN, "spin")
    call()
    cupy.cuda.Device().synchronize()
    events = [cupy.cuda.Event() for _ in range(REPEATS + 1)]
    # about 20 ms of waiting: meanwhile the host puts all calls into the queue
    spin((1,), (1,), (np.int64(40_000_000),))
    for event in events[:-1]:
        event.record()
        call()
    events[-1].record()
    events[-1].synchronize()
    return [cupy.cuda.get_elapsed_time(a, b) * 1000 for a, b in pairwise(events)]


def host_times(cupy: Any, call: Callable[[], object]) -> list[float]:
    """Microseconds of the host for each of some calls, the device being idle."""
    times = []
    for _ in range(REPEATS):
        cupy.cuda.Device().synchronize()
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e6)
    return times


def copy_bandwidth(cupy: Any, n_bytes: int = 1 << 30) -> float:
    """Bytes read and written per microsecond."""
    source, to = cupy.zeros(n_bytes, np.uint8), cupy.empty(n_bytes, np.uint8)
    times = device_times(cupy, lambda: cupy.copyto(to, source))
    return 2 * n_bytes / statistics.median(times)


def measure(cupy: Any, runtime: Any, workload: Workload, bandwidth: float, sweep: bool) -> None:
    """Print a workload's lines."""
    case = make_case(workload)
    rng = np.random.default_rng(0)
    sample = random_pixels(rng, workload.image_shape[1:], "uint16")
    image = cupy.empty(workload.image_shape, np.uint16)
    for i in range(len(image)):
        image[i] = cupy.asarray(sample)
    n_bytes = bytes_read(case, workload.image_shape, 2) + bytes_written(case)
    floor = n_bytes / bandwidth
    table = ImageTable(runtime, [image])

    def show(name: str, call: Callable[[], object]) -> None:
        device = device_times(cupy, call)
        host = statistics.median(host_times(cupy, call))
        median = statistics.median(device)
        spread = f"{min(device):.0f}-{max(device):.0f}"
        print(format_row(name, n_bytes / 1e6, floor, median, spread, median / floor, host))

    for specialise in (True, False):
        path = "specialised" if specialise else "general"
        show(
            f"{workload.name}, {path}",
            lambda on=specialise: case.context(runtime, images=table, specialise=on),
        )
    if sweep:
        shape = specialised.choose(
            table, case.rows, case.patch_size, case.n_scales, "reflect", np.dtype(np.float32)
        )
        sources = table.sources(case.rows, case.weights)
        mixed, target = case.context(runtime, images=table)
        for tile_rows in (4, 8, 16):
            for n_threads in (128, 192, 256, 288):
                other = replace(shape, tile_rows=tile_rows, n_threads=n_threads)
                if other.shared_bytes > specialised.SHARED_BYTES:
                    continue
                show(
                    f"  tile_rows={tile_rows} n_threads={n_threads}",
                    lambda o=other: specialised.launch_shape(runtime, o, sources, mixed, target),
                )


def main() -> int:
    """Run everything; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=int, default=0, help="number of the device")
    parser.add_argument("--sweep", action="store_true", help="time other tilings too")
    arguments = parser.parse_args()
    try:
        import cupy
    except ImportError:
        sys.exit("gpu_check.py needs CuPy: pip install 'gpu_patch[cuda12]' or 'gpu_patch[cuda13]'")

    cupy.cuda.Device(arguments.device).use()
    runtime = cupy_runtime(arguments.device)
    properties = cupy.cuda.runtime.getDeviceProperties(arguments.device)
    print(f"{properties['name'].decode()}, CuPy {cupy.__version__}")
    correct = check_correctness(cupy, runtime)
    bandwidth = copy_bandwidth(cupy)
    print(f"copy bandwidth: {bandwidth / 1e3:.0f} GB/s")
    print(format_row("", "MB", "floor us", "device us", "min-max", "ratio", "host us"))
    for workload in WORKLOADS:
        measure(cupy, runtime, workload, bandwidth, arguments.sweep)
    print("ok" if correct else "FAILED")
    return not correct


if __name__ == "__main__":
    sys.exit(main())

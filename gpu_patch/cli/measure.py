"""What ``gpu-patch bench`` measures, in a process of its own that has one thread.

Such a process takes its settings as a JSON object on the command line, and prints one JSON object
per line: first the machine, then a row per case.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gpu_patch

CONSTRUCTORS = (
    "basic",
    "basic-target",
    "multichannel",
    "independent",
    "paired",
    "pred",
    "multichannel-3d",
)
WITHOUT_SCALES = ("basic", "basic-target")
_SCALES_3D = 3
_ALPHA_RANGE = (0.2, 0.8)
_WARM_UP = 2
_FEWEST_CALLS = 3


class Case(NamedTuple):
    """One row: a constructor and its number of scales, 0 where it has no context."""

    constructor: str
    n_scales: int

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Pixels, (Z)YX."""
        return (16, 64, 64) if self.constructor == "multichannel-3d" else (64, 64)

    def images(self) -> NDArray[np.uint16]:
        """Return random pixels with two channels, SC(Z)YX."""
        flat = len(self.patch_size) == 2
        shape = (1, 2, 2048, 2048) if flat else (1, 2, 64, 512, 512)
        return np.random.default_rng(0).integers(0, 4096, shape, np.uint16)

    def window_bytes(self, batch_size: int, itemsize: int) -> int:
        """Return the bytes of the largest windows of a batch's inputs."""
        n_channels = 1 if self.constructor in ("paired", "pred") else 2
        window = prod(p << max(self.n_scales - 1, 0) for p in self.patch_size)
        return batch_size * n_channels * window * itemsize


def cases(constructors: list[str], scales: list[int]) -> list[Case]:
    """Return the rows asked for."""
    rows = []
    for name in constructors:
        if name in WITHOUT_SCALES:
            rows.append(Case(name, 0))
        elif name == "multichannel-3d":
            rows.append(Case(name, _SCALES_3D))
        else:
            rows += [Case(name, n) for n in scales]
    return rows


def gpu_patch_library(device: str) -> SimpleNamespace:
    """Return what a case needs, of this package."""
    names = {4: "SCYX", 5: "SCZYX"}
    return SimpleNamespace(
        stack=lambda array: gpu_patch.ImageStack(array, names[array.ndim], device=device),
        extractor=gpu_patch.PatchExtractor,
        random=gpu_patch.RandomPatching,
        constructors=gpu_patch,
    )


def careamics_library() -> SimpleNamespace:
    """Return what a case needs, of careamics."""
    from careamics.dataset import patch_constructor
    from careamics.dataset.image_stack import InMemoryImageStack
    from careamics.dataset.patch_extractor import PatchExtractor
    from careamics.dataset.patching import RandomPatching

    return SimpleNamespace(
        stack=lambda array: InMemoryImageStack("array", array),
        extractor=PatchExtractor,
        random=RandomPatching,
        constructors=patch_constructor,
    )


def build(library: SimpleNamespace, case: Case, images: NDArray[np.uint16]) -> Any:
    """Return the constructor of a case; parameters are positional, alike in both libraries."""
    make, n_scales = library.constructors, case.n_scales

    def extractor(*channels: int) -> Any:
        chosen = images if len(channels) == images.shape[1] else images[:, list(channels)]
        return library.extractor([library.stack(chosen)])

    def strategy(seed: int = 0) -> Any:
        shape = (images.shape[0], 1, *images.shape[2:])
        return library.random([shape], case.patch_size, seed)

    ranges = [_ALPHA_RANGE] * 2
    match case.constructor:
        case "basic":
            return make.BasicPatchConstr(strategy(), extractor(0, 1))
        case "basic-target":
            return make.BasicPatchConstr(strategy(), extractor(0, 1), extractor(0, 1))
        case "multichannel" | "multichannel-3d":
            return make.MultiChannelTargetMsPatchConstr(
                strategy(),
                extractor(0, 1),
                n_scales,
                "reflect",
                ranges,
                0.0,
                None,
                np.random.default_rng(0),
            )
        case "independent":
            return make.IndependentTargetsMsPatchConstr(
                [strategy(0), strategy(1)],
                [extractor(0), extractor(1)],
                n_scales,
                "reflect",
                ranges,
                np.random.default_rng(0),
            )
        case "paired":
            return make.PairedInputTargetMsPatchConstr(
                strategy(), extractor(0), extractor(0, 1), n_scales, "reflect"
            )
        case "pred":
            return make.PredMsPatchConstr(strategy(), extractor(0), n_scales, "reflect")
    raise ValueError(f"unknown constructor {case.constructor!r}")


def measure(
    case: Case,
    ours: SimpleNamespace,
    careamics: Careamics,
    *,
    batch_size: int,
    budget: float,
    bandwidth: float,
) -> dict[str, Any]:
    """Time a case and measure its memory.

    Batches of ours are timed before and after careamics' patches, so that a machine that slows
    down slows both. The indices are the same, all of one epoch.

    Returns
    -------
    dict
        The row: times in seconds per patch, memory in bytes per batch.
    """
    images = case.images()
    constructor = build(ours, case, images)
    batches = _shuffled_batches(constructor.n_patches, batch_size)
    for _ in range(_WARM_UP):
        batch = constructor.construct_batch(next(batches))
    out_bytes = batch.input.nbytes + (0 if batch.target is None else batch.target.nbytes)
    del batch

    batch_times = _timed(constructor.construct_batch, batches, budget / 2)
    patch_times = careamics.patch_times(case)
    batch_times += _timed(constructor.construct_batch, batches, budget / 2)

    window_bytes = case.window_bytes(batch_size, images.itemsize)
    read_bytes = window_bytes
    if case.constructor in ("basic-target", "paired"):
        read_bytes += batch_size * 2 * prod(case.patch_size) * images.itemsize
    return {
        "constructor": case.constructor,
        "n_scales": case.n_scales,
        "batch_size": batch_size,
        "seconds_per_patch": median(batch_times) / batch_size,
        "n_batches": len(batch_times),
        "floor_seconds_per_patch": (read_bytes + out_bytes) / bandwidth / batch_size,
        "careamics_seconds_per_patch": median(patch_times) if patch_times else None,
        "careamics_n_patches": len(patch_times),
        "output_bytes": out_bytes,
        "largest_window_bytes": window_bytes,
    }


def copy_bandwidth() -> float:
    """Return bytes read and written per second by a copy that no cache holds."""
    source = np.ones(1 << 26, np.uint8)
    target = np.empty_like(source)
    return 2 * source.nbytes / median(_seconds(np.copyto, target, source) for _ in range(9))


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
    }


def _shuffled_batches(n_patches: int, batch_size: int) -> Iterator[NDArray[np.int64]]:
    order = np.random.default_rng(0).permutation(n_patches)
    first = 0
    while True:
        yield order[np.arange(first, first + batch_size) % n_patches]
        first += batch_size


def _timed(call: Callable[[Any], object], arguments: Iterator[Any], budget: float) -> list[float]:
    """Return the seconds of calls one after the other, for as long as the budget of seconds."""
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < _FEWEST_CALLS or time.perf_counter() < end:
        times.append(_seconds(call, next(arguments)))
    return times


def _seconds(call: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def peak_bytes(case: Case, library: SimpleNamespace, batch_size: int) -> int:
    """Return the most memory that the first batch of this process holds at once.

    Later ones would use memory again that does not count as theirs.
    """
    constructor = build(library, case, case.images())
    indices = next(_shuffled_batches(constructor.n_patches, batch_size))
    tracemalloc.start()
    try:
        constructor.construct_batch(indices)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class Careamics:
    """careamics in a process of its own, where nobody else decides how memory is handed out.

    Parameters
    ----------
    settings : dict
        As `main` takes them.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            command({**settings, "library": "careamics"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.version: str = self._answer()
        self.found = not self.version.startswith("not ")

    def patch_times(self, case: Case) -> list[float]:
        """Return the seconds that some patches took one by one; none where it is not found."""
        if not self.found:
            return []
        assert self._process.stdin is not None
        print(json.dumps(case), file=self._process.stdin, flush=True)
        times: list[float] = self._answer()
        return times

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def _serve_careamics(report: Callable[[Any], None], batch_size: int, budget: float) -> None:
    """Be the process of `Careamics`: tell the version, then time the cases that come in."""
    try:
        import careamics

        library, version = careamics_library(), str(careamics.__version__)
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        return report("not installed" if missing == "careamics" else f"not usable: {error}")
    except Exception as error:
        return report(f"not usable: {error}")
    report(version)
    for line in sys.stdin:
        case = Case(*json.loads(line))
        constructor = build(library, case, case.images())
        batches = _shuffled_batches(constructor.n_patches, batch_size)
        indices = (int(index) for batch in batches for index in batch)
        constructor.construct_patch(next(indices))
        report(_timed(constructor.construct_patch, indices, budget))
    return None


def command(settings: dict[str, Any]) -> list[str]:
    """Return the command of a process that runs `main` with some settings."""
    options = [f"-W{option}" for option in sys.warnoptions]
    # -P: no package of this name in the current folder
    code = "from gpu_patch.cli.measure import main; main()"
    return [sys.executable, "-P", *options, "-c", code, json.dumps(settings)]


def main() -> None:
    """Measure what the settings on the command line ask for."""
    # only results go to the real stdout; what libraries print there goes to stderr
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(record: Any) -> None:
        print(json.dumps(record), file=results, flush=True)

    settings = json.loads(sys.argv[1])
    batch_size, budget = settings["batch_size"], settings.get("budget", 0.0)
    if settings.get("library") == "careamics":
        return _serve_careamics(report, batch_size, budget)
    ours = gpu_patch_library(settings["device"])
    if "memory_of" in settings:
        case = Case(*settings["memory_of"])
        return report({"peak_bytes": peak_bytes(case, ours, batch_size)})
    careamics = Careamics(settings)
    bandwidth = copy_bandwidth()
    report({**machine(), "careamics": careamics.version, "copy_bytes_per_second": bandwidth})
    for case in cases(settings["constructors"], settings["scales"]):
        row = measure(
            case, ours, careamics, batch_size=batch_size, budget=budget, bandwidth=bandwidth
        )
        memory = command({**settings, "memory_of": case})
        found = subprocess.run(memory, stdout=subprocess.PIPE, check=True).stdout
        report({**row, **json.loads(found)})
    careamics.close()
    return None

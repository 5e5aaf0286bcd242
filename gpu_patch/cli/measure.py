"""What ``gpu-patch bench`` measures, in a process of its own that has one thread.

Such a process takes its settings as a JSON object on the command line, and prints one JSON object
per line: first the machine, then a row per case. Here are the process and the CPU's cases;
cuda_measure.py has the GPU's.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

import gpu_patch
from gpu_patch.cli.workloads import (
    USUAL_BATCH,
    Case,
    Workload,
    build,
    careamics_library,
    gpu_patch_library,
    shuffled_batches,
)
from gpu_patch.specs import PatchBatch

_ONE_THREAD = ("OMP", "OPENBLAS", "MKL", "VECLIB")
_WARM_UP = 2
_FEWEST_CALLS = 3


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
    down slows both. The indices are the same, all of one epoch.

    Returns
    -------
    dict
        The row: times in seconds per patch, bytes per batch.
    """
    case, batch_size = workload.case, workload.batch_size
    images = case.images()
    constructor = build(ours, case, images)
    batches = shuffled_batches(constructor.n_patches, batch_size)
    for _ in range(_WARM_UP):
        batch = constructor.construct_batch(next(batches))
    out_bytes = output_bytes(batch)
    del batch

    batch_times = _timed(constructor.construct_batch, batches, budget / 2)
    patch_times = careamics.patch_times(case)
    batch_times += _timed(constructor.construct_batch, batches, budget / 2)

    window_bytes = case.window_bytes(batch_size, images.itemsize)
    read_bytes = window_bytes
    if case.constructor in ("basic-target", "paired"):
        read_bytes += batch_size * 2 * prod(case.patch_size) * images.itemsize
    return {
        **workload._asdict(),
        "seconds_per_patch": median(batch_times) / batch_size,
        "n_batches": len(batch_times),
        "floor_seconds_per_patch": (read_bytes + out_bytes) / bandwidth / batch_size,
        "careamics_seconds_per_patch": median(patch_times) if patch_times else None,
        "careamics_n_patches": len(patch_times),
        "output_bytes": out_bytes,
        "largest_window_bytes": window_bytes,
    }


def output_bytes(batch: PatchBatch) -> int:
    """Return the bytes of a batch's input and target."""
    return sum(array.nbytes for array in batch[:2] if array is not None)


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


def _serve_careamics(report: Callable[[Any], None], budget: float) -> None:
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
        batches = shuffled_batches(constructor.n_patches, USUAL_BATCH)
        indices = (int(index) for batch in batches for index in batch)
        constructor.construct_patch(next(indices))
        report(_timed(constructor.construct_patch, indices, budget))
    return None


def command(settings: dict[str, Any]) -> list[str]:
    """Return the command of a process that runs `main` with some settings."""
    options = [f"-W{option}" for option in sys.warnoptions]
    # -P: no package of this name in the current folder
    # Ctrl-C reaches this process too, which has nothing to say of it
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    code += "from gpu_patch.cli.measure import main; main()"
    return [sys.executable, "-P", *options, "-c", code, json.dumps(settings)]


def measured(
    settings: dict[str, Any], environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Measure in a process that has one thread; yield its records as they come."""
    variables = {**os.environ, **(environment or {})}
    variables.update({f"{library}_NUM_THREADS": "1" for library in _ONE_THREAD})
    # the process is to measure this very package, installed or not
    here = str(Path(gpu_patch.__file__).parent.parent)
    known = variables.get("PYTHONPATH")
    variables["PYTHONPATH"] = here + (os.pathsep + known if known else "")
    with subprocess.Popen(
        command(settings), env=variables, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):  # or its process was ended in the middle of it
                yield json.loads(line)
    if process.returncode == -signal.SIGINT:
        raise KeyboardInterrupt  # whoever saw it first
    if process.returncode:
        raise RuntimeError(f"the measuring process ended with status {process.returncode}")


def main() -> None:
    """Measure what the settings on the command line ask for."""
    # only results go to the real stdout; what libraries print there goes to stderr
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(record: Any) -> None:
        print(json.dumps(record), file=results, flush=True)

    settings = json.loads(sys.argv[1])
    if settings["device"] != "cpu":
        from gpu_patch.cli import cuda_measure

        return cuda_measure.serve(settings, report)
    if settings.get("library") == "careamics":
        return _serve_careamics(report, settings["budget"])
    ours = gpu_patch_library(settings["device"])
    if "memory_of" in settings:
        return report({"peak_bytes": peak_bytes(Workload(*settings["memory_of"]), ours)})
    careamics = Careamics(settings)
    bandwidth = copy_bandwidth()
    report({**machine(), "careamics": careamics.version, "copy_bytes_per_second": bandwidth})
    for workload in settings["workloads"]:
        row = measure(
            Workload(*workload), ours, careamics, budget=settings["budget"], bandwidth=bandwidth
        )
        memory = command({"device": settings["device"], "memory_of": workload})
        found = subprocess.run(memory, stdout=subprocess.PIPE, check=True).stdout
        report({**row, **json.loads(found)})
    careamics.close()
    return None

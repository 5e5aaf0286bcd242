"""All that needs a GPU, in two commands of less than ten minutes each, the important one first.

    PYTHONPATH=. python tests/cuda/gpu_check.py --json speed.json
    PYTHONPATH=. python tests/cuda/gpu_check.py --only tests sanitizers --json tests.json

Compares the kernels with NumPy, times batches (as ``gpu-patch bench --device cuda`` does, and also
the general path, which it does not take) and predictions, runs the tests of operations and
constructors on the GPU, and compute-sanitizer over small batches and over broken kernels, which it
must find. What this machine has no program or package for is named. Every figure is in the file as
soon as it is there. Fails where anything is wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from cases import Case
from gpu_comparison import check_correctness, upload

from gpu_patch._cuda import runtime as cuda_runtime
from gpu_patch._cuda import specialised
from gpu_patch._cuda.lateral_context import lateral_context
from gpu_patch._cuda.runtime import cupy_runtime
from gpu_patch.cli.bench import cuda, report, timing, traffic
from gpu_patch.cli.bench.workloads import (
    CUDA_WORKLOADS,
    Workload,
    build,
    gpu_patch_library,
    settings_of,
    shuffled_batches,
)
from gpu_patch.cli.text import head, line
from gpu_patch.device import resolve
from gpu_patch.records import Windows
from gpu_patch.table import ImageTable

ROOT = Path(__file__).parents[2]
MOST_SECONDS = {"prediction": 90, "tests": 200, "sanitizers": 45}
"""Of measuring predictions, of the tests, and of each run of a sanitizer."""
COLUMNS = (("", 34), ("device us", 11), ("min-max", 12), ("floor us", 10), ("ratio", 8))


Keep = Callable[[dict[str, Any]], object]
"""Called with a section's figures so far."""


class MissingError(Exception):
    """Something that this machine has no means for."""


# ---- times -------------------------------------------------------------------------------------


def time_paths(
    cupy: Any,
    runtime: Any,
    workload: Workload,
    bandwidth: float,
    *,
    sweep: bool = False,
    image_bytes: int = cuda.IMAGE_BYTES,
) -> Iterator[dict[str, Any]]:
    """Print the device times of both paths, and of other tilings of the specialised one."""
    case, n_scales = workload.case, workload.n_scales
    images = cuda.resident_images(cupy, case, image_bytes)
    constructor = build(gpu_patch_library("cuda:0"), case, images)
    batches = shuffled_batches(constructor.n_patches, workload.batch_size)
    plans = [constructor.plan_batch(i) for i in islice(batches, timing.N_CALLS)]
    table = ImageTable(runtime, [images])

    def run(plan, specialise=True):
        return lateral_context(
            runtime,
            table,
            plan.sources,
            plan.weights,
            plan.patch_size,
            n_scales,
            "reflect",
            np.float32,
            specialise=specialise,
        )

    mixed, target = run(plans[0])
    read = mean(map(traffic.bytes_read, plans))
    floor = (read + mixed.nbytes + target.nbytes) / bandwidth

    def show(name: str, calls: Sequence[Callable[[], object]]) -> dict[str, Any]:
        times = timing.device_times(cupy, calls)
        low, middle, high = min(times), median(times), max(times)
        cells = [f"{middle * 1e6:.1f}", f"{low * 1e6:.0f}-{high * 1e6:.0f}", f"{floor * 1e6:.1f}"]
        print(line(COLUMNS, [name, *cells, f"{middle / floor:.2f}"]), flush=True)
        return {**workload._asdict(), "name": name, "device_seconds": middle}

    name = f"{workload.constructor} L={n_scales} B={workload.batch_size}"
    for specialise, path in ((True, "specialised"), (False, "general")):
        yield show(f"{name}, {path}", [partial(run, plan, specialise) for plan in plans])
    if sweep:
        window = plans[0].patch_size, n_scales, "reflect"

        def windows_of(plan: Any) -> Windows:
            return Windows(table, plan.sources, *window, plan.weights)

        shape = specialised.choose(windows_of(plans[0]), np.dtype(np.float32))

        for tile_rows in (4, 8, 16):
            for n_threads in (128, 192, 256, 288):
                other = replace(shape, tile_rows=tile_rows, n_threads=n_threads)
                if other.shared_bytes > specialised.SHARED_BYTES:
                    continue
                launch = partial(specialised.launch_shape, runtime, other)
                yield show(
                    f"  tile_rows={tile_rows} n_threads={n_threads}",
                    [partial(launch, windows_of(plan), mixed, target) for plan in plans],
                )


def check_paths(cupy: Any, runtime: Any, keep: Keep, *, sweep: bool) -> dict[str, Any]:
    """Print the table of `time_paths`."""
    bandwidth = timing.device_copy_bandwidth(cupy)
    print(head(COLUMNS))
    rows = []
    for workload in (Workload(*row) for row in CUDA_WORKLOADS):
        for row in time_paths(cupy, runtime, workload, bandwidth, sweep=sweep):
            rows.append(row)
            keep({"rows": rows})
    return {"ok": True, "rows": rows}


def check_times(keep: Keep) -> dict[str, Any]:
    """Print the bench's tables."""
    return {"ok": True, **report.report(settings_of("cuda:0"), keep)}


# ---- other programs ----------------------------------------------------------------------------


def run_command(command: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command with this checkout's package; errors and output are one text."""
    folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.output or b"").decode(errors="replace")
        return subprocess.CompletedProcess(command, 124, f"{output}\nended after {seconds:.0f} s")


def check_tests() -> dict[str, Any]:
    """Run the tests of operations and constructors on the GPU; print pytest's last line."""
    missing = [name for name in ("pytest", "hypothesis") if not importlib.util.find_spec(name)]
    if missing:
        raise MissingError(f"needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    files = ["tests/ops", *map(str, sorted(ROOT.glob("tests/test_batch*.py")))]
    files.append("tests/parity/test_golden.py")
    # compiling takes longest, and not the GPU
    parallel = ["-n", "8"] if importlib.util.find_spec("xdist") else []
    # warnings of the libraries that are here are no failures of the kernels
    options = ["-q", "--require-gpu", "-p", "no:cacheprovider", "-W", "default", "-k", "cuda"]
    command = [sys.executable, "-m", "pytest", *options, *parallel, *files]
    done = run_command(command, MOST_SECONDS["tests"])
    lines = done.stdout.strip().splitlines() or [""]
    print("\n".join(lines[-30:] if done.returncode else lines[-1:]))
    return {"ok": done.returncode == 0, "summary": lines[-1]}


def check_prediction(document: Path | None) -> dict[str, Any]:
    """Print what stitching adds, and the host's memory; the document gets each row."""
    with tempfile.TemporaryDirectory() as folder:
        document = document or Path(folder) / "prediction.json"
        document.unlink(missing_ok=True)
        command = [sys.executable, "tests/predict/measure.py", "cuda:0", str(document)]
        done = run_command(command, MOST_SECONDS["prediction"])
        print(done.stdout.rstrip())
        figures = json.loads(document.read_text()) if document.exists() else {}
    return {"ok": done.returncode == 0, **figures}


SANITIZER_RUNS = (
    ("memcheck", ""),
    ("racecheck", ""),
    ("memcheck", "output"),
    ("racecheck", "barrier"),
)
"""Tool, and the bug of sanitized.py that it must find."""
FOUND = 9


def check_sanitizers() -> dict[str, Any]:
    """Run compute-sanitizer over small batches; print its summaries."""
    program = shutil.which("compute-sanitizer", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")
    if program is None:
        raise MissingError("needs the program compute-sanitizer, of the CUDA toolkit")
    results: dict[str, Any] = {"ok": True}
    for tool, bug in SANITIZER_RUNS:
        child = [sys.executable, __file__, "--sanitized", bug]
        done = run_command(
            [program, "--tool", tool, "--error-exitcode", str(FOUND), *child],
            MOST_SECONDS["sanitizers"],
        )
        summaries = [text for text in done.stdout.splitlines() if "SUMMARY" in text]
        clean = done.returncode == 0 and "all launched" in done.stdout
        # a kernel that writes where it must not may end the process: then it says nothing
        ok = done.returncode == FOUND if bug else clean
        name = f"{tool}, bug '{bug}'" if bug else tool
        print(f"{name}: {'ok' if ok else 'FAILED'}, {' '.join(summaries)}", flush=True)
        if not ok:
            print(f"status {done.returncode}\n{done.stdout[-2000:]}")
        results[name] = {"ok": ok, "summary": summaries}
        results["ok"] &= ok
    return results


def launch_small(cupy: Any, runtime: Any, bug: str) -> None:
    """Be the process that a sanitizer watches."""
    # each array in memory of its own: a sanitizer knows nothing of CuPy's pool
    cupy.cuda.set_allocator(None)
    if bug:
        from sanitized import BUGS

        before, after = BUGS[bug]
        whole_text = cuda_runtime.source_text
        cuda_runtime.source_text = lambda *arguments: whole_text(*arguments).replace(before, after)
    for patch, n_scales, mode, n_places in (
        ((9, 11), 3, "reflect", 1),
        ((8, 35), 2, "wrap", 2),
        ((3, 9, 13), 2, "periodic", 2),
    ):
        case = Case.random(1, patch, n_scales, mode, n_places=n_places, most=20)
        images = upload(cupy, case.images)
        for specialise in (True, False):
            case.context(runtime, images=images, specialise=specialise)
        for border in ("zero", mode):
            case.patches(runtime, border, images=images)
    cupy.cuda.Device().synchronize()
    print("all launched")


# ---- all of it ---------------------------------------------------------------------------------


Section = Callable[[Keep], dict[str, Any]]


def run_sections(sections: dict[str, Section], json_file: Path | None) -> int:
    """Run one after the other, whatever becomes of the others; return the exit status."""
    document: dict[str, Any] = {}

    def keep(name: str, figures: dict[str, Any]) -> None:
        document[name] = figures
        if json_file is not None:  # now: what comes later may not come to its end
            json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    for name, section in sections.items():
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        try:
            result = section(partial(keep, name))
        except MissingError as error:
            result = {"not_run": str(error)}
            print(f"not run: {error}")
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            result = {**document.get(name, {}), "ok": False, "error": repr(error)}
        seconds = time.perf_counter() - start
        keep(name, {**result, "seconds": seconds})
        print(f"-- {seconds:.0f} s\n", flush=True)
    failed = [name for name, result in document.items() if not result.get("ok", True)]
    for name, result in document.items():
        if "not_run" in result:
            print(f"{name} not run: {result['not_run']}")
    print(f"FAILED: {', '.join(failed)}" if failed else "ok")
    return 1 if failed else 0


def check_headers(cupy: Any) -> str:
    """Return why CuPy cannot compile kernels of its own, "" where it can."""
    try:
        int(cupy.count_nonzero(cupy.isfinite(cupy.zeros(3, np.float16))))
    except Exception as error:  # CuPy's, NVRTC's, or the driver's
        return (
            "CuPy cannot compile its own kernels, most often because CUDA's headers are missing "
            f"(pip install nvidia-cuda-runtime-cu12, or the gpu_patch extras): {error}"
        )
    return ""


FIRST = ("correctness", "times", "paths", "prediction")
SECOND = ("tests", "sanitizers")


def main() -> int:
    """Run what is asked for; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    parser.add_argument("--only", nargs="+", choices=(*FIRST, *SECOND), default=FIRST)
    parser.add_argument("--sweep", action="store_true", help="time other tilings too")
    parser.add_argument("--sanitized", metavar="BUG", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        resolve("cuda:0")
    except RuntimeError as error:
        sys.exit(f"gpu_check.py: {error}")
    import cupy

    runtime = cupy_runtime(0)
    if arguments.sanitized is not None:
        launch_small(cupy, runtime, arguments.sanitized)
        return 0
    if problem := check_headers(cupy):
        sys.exit(f"gpu_check.py: {problem}")
    rows = arguments.json and arguments.json.with_suffix(".prediction.json")
    sections: dict[str, Section] = {
        "correctness": lambda keep: check_correctness(cupy, runtime),
        "times": check_times,
        "paths": lambda keep: check_paths(cupy, runtime, keep, sweep=arguments.sweep),
        "prediction": lambda keep: check_prediction(rows),
        "tests": lambda keep: check_tests(),
        "sanitizers": lambda keep: check_sanitizers(),
    }
    return run_sections({name: sections[name] for name in arguments.only}, arguments.json)


if __name__ == "__main__":
    sys.exit(main())

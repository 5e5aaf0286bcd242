"""Processes that measure, each with one thread: how they are started, and what they answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gpu_patch

_ONE_THREAD = ("OMP", "OPENBLAS", "MKL", "VECLIB")


def command(settings: dict[str, Any]) -> list[str]:
    """Return the command of a process that runs `worker.main` with some settings."""
    options = [f"-W{option}" for option in sys.warnoptions]
    # -P: a package of this name in the current folder would be imported instead
    # Ctrl-C reaches this process as well; the one that started it says so
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    code += "from gpu_patch.cli.bench.worker import main; main()"
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
        try:
            for line in process.stdout:
                if line.endswith("\n"):  # or its process was ended in the middle of it
                    yield json.loads(line)
        except GeneratorExit:  # nobody waits for the rest
            process.terminate()
            raise
    if process.returncode == -signal.SIGINT:
        raise KeyboardInterrupt  # Ctrl-C may reach that process before this one
    if process.returncode:
        raise RuntimeError(f"the measuring process ended with status {process.returncode}")


def first_batches(device: str) -> dict[str, dict[str, float]]:
    """Time the first batch of two fresh processes: kernels are compiled, then found compiled."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {"CUPY_CACHE_DIR": folder, "CUDA_CACHE_PATH": folder}
        for cache in ("cold", "warm"):
            settings = {"device": device, "first_batch_since": time.time()}
            (times[cache],) = measured(settings, environment)
    return times

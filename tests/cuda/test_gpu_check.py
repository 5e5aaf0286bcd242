"""gpu_check.py with a stand-in for CuPy: its own logic."""

from __future__ import annotations

import json
import subprocess
import sys

import gpu_check
import gpu_comparison
import numpy as np
import pytest
from cases import Case
from emulation import fake_cupy
from emulation.runtime import available

from gpu_patch._cuda.runtime import cupy_runtime
from gpu_patch.cli.bench import report, timing
from gpu_patch.cli.bench import workloads as bench_workloads

needs_compiler = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


@pytest.fixture
def cupy():
    with fake_cupy.installed() as module:
        yield module


@needs_compiler
def test_finds_right_and_wrong(cupy, monkeypatch, capsys):
    case = Case.random(0, (9, 10), 2, "reflect")
    monkeypatch.setattr(gpu_comparison, "correctness_cases", lambda: [("small", case)])
    assert gpu_check.check_correctness(cupy, cupy_runtime(0))["ok"]
    assert "6 comparisons with NumPy, 0 failed" in capsys.readouterr().out

    monkeypatch.setattr(Case, "numpy_patches", lambda self, mode: np.zeros(1))
    result = gpu_check.check_correctness(cupy, cupy_runtime(0))
    assert not result["ok"]
    assert result["failed"] == 4
    assert "DIFFERS: small, patches, zero" in capsys.readouterr().out


@needs_compiler
def test_times_both_paths(cupy, monkeypatch, capsys):
    pixels = np.random.default_rng(0).integers(0, 99, (1, 2, 40, 50), np.uint16)
    monkeypatch.setattr(bench_workloads.Case, "images", lambda self: pixels)
    monkeypatch.setattr(bench_workloads.Case, "patch_size", (16, 16))
    monkeypatch.setattr(timing, "N_CALLS", 2)
    workload = bench_workloads.Workload("multichannel", 2, 3)
    found = gpu_check.time_paths(
        cupy, cupy_runtime(0), workload, 1e9, sweep=True, image_bytes=2 * pixels.nbytes
    )
    rows = list(found)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows) == 2 + 12
    assert lines[0].startswith("multichannel L=2 B=3, specialised")
    assert lines[1].startswith("multichannel L=2 B=3, general")
    assert {row["device_seconds"] for row in rows} == {500e-6}


def test_both_paths_are_timed_for_what_must_be_fast(cupy, monkeypatch):
    monkeypatch.setattr(timing, "device_copy_bandwidth", lambda cupy: 5.0)
    monkeypatch.setattr(gpu_check, "time_paths", lambda *a, sweep: [(a[2].batch_size, a[3], sweep)])
    kept = []
    result = gpu_check.check_paths(
        cupy, cupy_runtime(0), lambda found: kept.append(len(found["rows"])), sweep=True
    )
    assert kept == [1, 2, 3], "each as soon as it is there"
    assert result["rows"] == [(32, 5.0, True), (256, 5.0, True), (16, 5.0, True)]


def test_figures_of_the_bench_are_kept(monkeypatch):
    monkeypatch.setattr(report, "report", lambda settings, keep: {"rows": [settings["device"]]})
    assert gpu_check.check_times(print) == {"ok": True, "rows": ["cuda:0"]}


@needs_compiler
@pytest.mark.parametrize("bug", ["", "barrier"])
def test_what_a_sanitizer_watches(cupy, monkeypatch, capsys, bug):
    cupy.cuda.set_allocator = lambda allocator: None
    texts = []
    make = cupy.RawKernel
    cupy.RawKernel = lambda text, *a, **k: texts.append(text) or make(text, *a, **k)
    source_text = gpu_check.cuda_runtime.source_text
    monkeypatch.setattr(gpu_check.cuda_runtime, "source_text", source_text)
    gpu_check.launch_small(cupy, cupy_runtime(0), bug)
    assert capsys.readouterr().out == "all launched\n"
    assert any("void specialised" in text for text in texts)
    barrier = "__syncthreads();  // the rows are complete"
    assert all(barrier not in text for text in texts) == bool(bug)


PLANTED = {"memcheck": "Invalid __global__ write", "racecheck": "Race reported"}


@pytest.mark.parametrize("blind", [False, True])
def test_sanitizers_must_find_what_is_planted(monkeypatch, capsys, blind):
    """`blind`: one that finds nothing."""

    def run(command, seconds):
        assert command[0] == "/bin/compute-sanitizer"
        tool, bug = command[2], command[-1]
        found = bool(bug) and not blind
        status = int(command[command.index("--error-exitcode") + 1]) if found else 0
        text = f"{PLANTED[tool]}\n" if found else "all launched\n"
        text += f"==== {tool} SUMMARY: {int(found)} errors\n"
        return subprocess.CompletedProcess(command, status, text)

    monkeypatch.setattr(gpu_check.shutil, "which", lambda name, path: f"/bin/{name}")
    monkeypatch.setattr(gpu_check, "run_command", run)
    result = gpu_check.check_sanitizers()
    printed = capsys.readouterr().out
    assert result["ok"] != blind
    assert "memcheck: ok, ==== memcheck SUMMARY: 0 errors" in printed
    assert f"racecheck, bug 'barrier': {'FAILED' if blind else 'ok'}" in printed


def test_what_is_not_there_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name, path: None)
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
    file = tmp_path / "found.json"
    sections = {
        "tests": lambda keep: gpu_check.check_tests(),
        "sanitizers": lambda keep: gpu_check.check_sanitizers(),
    }
    assert gpu_check.run_sections(sections, file) == 0
    printed = capsys.readouterr().out
    assert "tests not run: needs pytest and hypothesis" in printed
    assert "sanitizers not run: needs the program compute-sanitizer" in printed
    assert "compute-sanitizer" in json.loads(file.read_text())["sanitizers"]["not_run"]


def test_a_section_that_fails_does_not_stop_the_others(capsys, tmp_path):
    file = tmp_path / "found.json"

    def broken(keep):
        keep({"rows": [1]})
        assert json.loads(file.read_text())["one"] == {"rows": [1]}, "before the section's end"
        raise RuntimeError("illegal address")

    def other(ok):
        return lambda keep: {"ok": ok}

    sections = {"one": broken, "two": other(True), "three": other(False)}
    assert gpu_check.run_sections(sections, file) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "FAILED: one, three"
    document = json.loads(file.read_text())
    assert document["one"]["error"] == "RuntimeError('illegal address')"
    assert document["one"]["rows"] == [1]
    assert document["two"]["ok"]


def test_tests_run_in_pytest(monkeypatch, capsys):
    """Without a GPU they end in the error of --require-gpu, not in a pass."""
    asked = []

    def run(command, seconds):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "....\n7 passed in 3 s\n")

    monkeypatch.setattr(gpu_check, "run_command", run)
    assert gpu_check.check_tests() == {"ok": True, "summary": "7 passed in 3 s"}
    assert capsys.readouterr().out == "7 passed in 3 s\n"
    (command,) = asked
    assert "--require-gpu" in command
    for file in command:
        assert not file.endswith(".py") or (gpu_check.ROOT / file).exists()
    assert sum("test_batch" in file for file in command) >= 4


def test_commands_that_take_too_long_end():
    sleeping = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
    done = gpu_check.run_command(sleeping, 2)
    assert done.returncode == 124
    assert done.stdout == "begun\n\nended after 2 s"


def test_correctness_cases_are_of_every_kind():
    cases = [case for _, case in gpu_comparison.correctness_cases()]
    assert {case.mode for case in cases} == set(gpu_comparison.MODES)
    assert {len(case.patch_size) for case in cases} == {2, 3}
    assert {image.dtype.name for case in cases for image in case.images} == set(
        gpu_comparison.DTYPES
    )


def test_headers_that_are_missing_are_told(cupy):
    assert gpu_check.check_headers(cupy) == ""

    def zeros(*_):
        raise RuntimeError("cannot open source file cuda_fp16.h")

    cupy.zeros = zeros
    assert "pip install nvidia-cuda-runtime-cu12" in gpu_check.check_headers(cupy)


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ([], ["correctness", "times", "paths", "prediction"]),
        (["--only", "tests", "sanitizers"], ["tests", "sanitizers"]),
    ],
)
def test_two_commands(cupy, monkeypatch, tmp_path, asked, chosen):
    file = tmp_path / "found.json"
    ran = []
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *asked, "--json", str(file)])
    monkeypatch.setattr(gpu_check, "run_sections", lambda *a: ran.append(a) or 0)
    assert gpu_check.main() == 0
    ((sections, where),) = ran
    assert list(sections) == chosen
    assert where == file


def test_times_of_a_command_fit_ten_minutes():
    assert gpu_check.MOST_SECONDS["prediction"] <= 120
    n_runs = len(gpu_check.SANITIZER_RUNS)
    assert gpu_check.MOST_SECONDS["tests"] + n_runs * gpu_check.MOST_SECONDS["sanitizers"] < 590


def test_predictions_are_kept_row_by_row(monkeypatch, tmp_path, capsys):
    import predict.measure as measure_module

    file = tmp_path / "rows.json"
    monkeypatch.setattr(
        measure_module,
        "measure",
        lambda *a: dict.fromkeys(("make", "identity", "stitch", "added", "predict"), 1e-6),
    )
    monkeypatch.setattr(measure_module.importlib.util, "find_spec", lambda name: None)
    measure_module.main("cpu", str(file))
    found = json.loads(file.read_text())
    assert found["4 scales, hann"]["predict"] == 1e-6
    assert found["peak .ome.tif"] == {"not_run": "needs tifffile"}
    assert "to .ome.zarr: not run, needs zarr" in capsys.readouterr().out
    monkeypatch.setattr(measure_module, "measure", lambda device, n, blend: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure_module.main("cpu", str(tmp_path / "none"))

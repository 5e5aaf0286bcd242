import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from interrupts import hear_interrupts

import gpu_patch
from gpu_patch._host import library
from gpu_patch.cli import main
from gpu_patch.cli.bench import process, report, timing
from gpu_patch.cli.bench.workloads import (
    CONSTRUCTORS,
    Case,
    build,
    careamics_library,
    cases,
    gpu_patch_library,
)


def test_bench(tmp_path, capsys):
    file = tmp_path / "bench.json"
    options = ["--constructors", "basic-target", "multichannel", "--scales", "1", "3"]
    assert main(["bench", "--quick", "--batch-size", "4", "--json", str(file), *options]) == 0
    table, errors = capsys.readouterr()
    assert errors == ""
    document = json.loads(file.read_text())
    machine, rows = document["machine"], document["rows"]
    assert machine["numpy"] == np.__version__
    assert machine["gpu_patch"] == gpu_patch.__version__
    assert datetime.date.fromisoformat(machine["date"]) <= datetime.date.today()
    assert machine["copy_bytes_per_second"] > 1e8
    assert [(row["constructor"], row["n_scales"]) for row in rows] == [
        ("basic-target", 0),
        ("multichannel", 1),
        ("multichannel", 3),
    ]
    for row in rows:
        assert row["n_batches"] >= 3
        assert row["seconds_per_patch"] > 0
        assert row["peak_bytes"] >= row["output_bytes"]
        line = next(line for line in table.splitlines() if line == report.cpu_row(row))
        assert line.startswith(row["constructor"])
    compiled = machine["kernels"]
    assert (compiled is None) == (library.choice().library is None)
    for row in rows:
        assert (row["numpy_seconds_per_patch"] is None) == (compiled is None)
        several = compiled is not None and machine["n_threads"] > 1
        assert (row["threads_seconds_per_patch"] is None) != several
    largest = rows[2]
    assert largest["output_bytes"] == 4 * (3 + 2) * 64 * 64 * 4
    assert largest["largest_window_bytes"] == 4 * 2 * 256 * 256 * 2
    assert largest["peak_bytes"] - largest["output_bytes"] <= 3 * largest["largest_window_bytes"]
    moved = largest["largest_window_bytes"] + largest["output_bytes"]
    floor = moved / machine["copy_bytes_per_second"] / 4
    assert largest["floor_seconds_per_patch"] == pytest.approx(floor)
    if find_spec("careamics") is None:
        assert "careamics  not installed" in table
        assert all(row["careamics_seconds_per_patch"] is None for row in rows)


def test_rows_asked_for():
    assert cases(["pred", "multichannel-3d", "basic"], [2, 5]) == [
        Case("pred", 2),
        Case("pred", 5),
        Case("multichannel-3d", 3),
        Case("basic", 0),
    ]


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_cases_are_what_they_are_called(name):
    case = cases([name], [2])[0]
    shape = (1, 2, 20, 70, 80) if name == "multichannel-3d" else (1, 2, 100, 120)
    images = np.random.default_rng(0).integers(0, 4096, shape, np.uint16)
    batch = build(gpu_patch_library("cpu"), case, images).construct_batch([0, 1, 0])
    size = case.patch_size
    n_planes = {"basic": 2, "basic-target": 2, "multichannel-3d": 3}.get(name, 2)
    assert batch.input.shape == (3, n_planes, *size)
    if name in ("basic", "pred"):
        assert batch.target is None
    else:
        assert batch.target.shape == (3, 2, *size)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_careamics_runs_the_same_case(name):
    pytest.importorskip("careamics")
    case = cases([name], [2])[0]
    shape = (1, 2, 70, 80, 90) if name == "multichannel-3d" else (1, 2, 200, 220)
    images = np.random.default_rng(0).integers(0, 4096, shape, np.uint16)
    ours = build(gpu_patch_library("cpu"), case, images)
    theirs = build(careamics_library(), case, images)
    assert ours.n_patches == theirs.n_patches
    for mine, other in zip(ours.construct_patch(1), theirs.construct_patch(1), strict=True):
        if isinstance(other, np.ndarray):
            assert np.abs(mine - other).max() <= 1e-6 * np.abs(other).max()


def test_images_are_large_uint16_of_two_channels():
    images = Case("multichannel", 1).images()
    assert images.shape == (1, 2, 2048, 2048)
    assert images.dtype == np.uint16
    assert images.max() == 4095


def test_window_bytes():
    assert Case("pred", 4).window_bytes(32, 2) == 32 * 512 * 512 * 2
    assert Case("basic", 0).window_bytes(32, 2) == 32 * 2 * 64 * 64 * 2
    assert Case("multichannel-3d", 3).window_bytes(1, 2) == 2 * 64 * 256 * 256 * 2


def test_measuring_process_has_one_thread_and_this_package(monkeypatch):
    code = (
        "import os, json, gpu_patch; print(json.dumps({'file': gpu_patch.__file__, "
        "**{k: v for k, v in os.environ.items() if k.endswith('_NUM_THREADS')}}))"
    )
    monkeypatch.setattr(process, "command", lambda settings: [sys.executable, "-P", "-c", code])
    (record,) = process.measured({})
    assert record["file"] == gpu_patch.__file__
    for name in ("OMP", "OPENBLAS", "MKL"):
        assert record[f"{name}_NUM_THREADS"] == "1"


def test_folder_of_the_same_name_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpu_patch").mkdir()
    (tmp_path / "gpu_patch" / "__init__.py").write_text("raise SystemExit(7)")
    settings = {"memory_of": ["basic", 0, 2], "device": "cpu"}
    (record,) = process.measured(settings)
    assert record["peak_bytes"] >= 2 * 2 * 64 * 64 * 4


def test_failed_measuring_is_an_error(monkeypatch, capsys):
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(process, "command", lambda settings: failing)
    assert main(["bench", "--quick"]) == 2
    assert "status 3" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_is_that_of_the_package_itself(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    package = tmp_path / "gpu_patch" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(gpu_patch, "__file__", str(package))
    assert timing.machine()["commit"] is None
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    assert timing.machine()["commit"] == git("rev-parse", "--short", "HEAD")
    package.write_text("1")
    assert timing.machine()["commit"].endswith("-dirty")
    # installed into an environment inside somebody's own checkout
    monkeypatch.setattr(gpu_patch, "__file__", str(tmp_path / "lib" / "gpu_patch" / "__init__.py"))
    assert timing.machine()["commit"] is None


def test_ratio_is_careamics_to_ours():
    row = {
        "constructor": "pred",
        "n_scales": 2,
        "batch_size": 8,
        "seconds_per_patch": 2e-4,
        "numpy_seconds_per_patch": 4e-4,
        "threads_seconds_per_patch": None,
        "careamics_seconds_per_patch": 9e-3,
        "floor_seconds_per_patch": 1e-5,
        "peak_bytes": 5_000_000,
        "output_bytes": 2_000_000,
        "largest_window_bytes": 1_000_000,
    }
    cells = report.cpu_row(row).split()
    assert cells == [
        "pred",
        "2",
        "8",
        "200.0",
        "5000",
        "400.0",
        "-",
        "10.0",
        "9000",
        "45.0",
        "5.0",
        "2.0",
        "3.00",
    ]


def test_an_interruption_is_one_line():
    """Of the process that measures, too, which Ctrl-C reaches as well."""
    command = [sys.executable, "-m", "gpu_patch", "bench", "--quick"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # it measures
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors == "gpu-patch: interrupted\n"

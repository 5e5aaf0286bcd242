"""What is printed may not arrive: a reader that leaves ends a command quietly, a full disk not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpu_patch.cli import main
from gpu_patch.cli.bench.process import command, measured
from gpu_patch.cli.delivery import is_of_stdout


def run(*arguments, stdout, unbuffered=False):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GPU_PATCH_DEVICE": "cpu"}
    environment["PYTHONUNBUFFERED"] = "1" if unbuffered else ""
    command = [sys.executable, "-m", "gpu_patch", *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.fixture
def unread():
    """A pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        (["info"], False),
        (["info", "a.npy", "--axes", "YX"], False),
        (["info", "a.npy", "--axes", "YX"], True),
        (["--help"], False),  # argparse ignores it where it is unbuffered
        ([], False),
    ],
)
def test_a_reader_that_leaves(arguments, unbuffered, unread, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.zeros((4, 5), np.uint8))
    assert run(*arguments, stdout=unread, unbuffered=unbuffered) == (141, "")


def test_errors_are_told_all_the_same(unread, tmp_path):
    _, error = run("info", tmp_path / "nosuch.tif", stdout=unread)
    assert "gpu-patch: error: 1 file cannot be read\n" in error
    assert "roken" not in error


def test_another_pipe_that_breaks_is_an_error(monkeypatch, capsys, tmp_path):
    """One of a model's processes, say, or of a server."""

    def breaks(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("gpu_patch.cli.info.print", breaks, raising=False)
    np.save(tmp_path / "a.npy", np.zeros((4, 5), np.uint8))
    assert main(["info", str(tmp_path / "a.npy"), "--axes", "YX"]) == 2
    assert "Broken pipe" in capsys.readouterr().err
    named = BrokenPipeError(32, "Broken pipe", "a.tif")
    assert not is_of_stdout(named)


def test_what_went_wrong_before_is_the_status(unread, tmp_path):
    assert run("info", tmp_path / "nosuch.tif", stdout=unread)[0] == 2
    status, error = run("nonsense", stdout=unread)
    assert status == 2
    assert "must be one of demo" in error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_an_error():
    with open("/dev/full", "w") as full:
        status, error = run("--help", stdout=full)
    assert (status, error) == (2, "gpu-patch: error: stdout: No space left on device\n")


def test_nobody_measures_for_who_has_left(capfd):
    """And a process that measures says nothing of it."""
    settings = {"device": "cpu", "workloads": [], "budget": 0.01}
    with subprocess.Popen(command(settings), stdout=subprocess.PIPE) as process:
        process.stdout.close()
    assert process.returncode == 1
    records = measured({**settings, "workloads": [["basic", 0, 32]] * 99})
    next(records)
    records.close()
    assert capfd.readouterr().err == ""

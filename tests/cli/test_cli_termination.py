"""SIGTERM ends a command as Ctrl-C does: with what is half done removed, and with a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from interrupts import hear_interrupts

from gpu_patch.cli import main
from gpu_patch.cli.termination import Terminated, terminable

pytest.importorskip("tifffile")
pytest.importorskip("zarr")

COMMAND = """
import os, signal, sys, time
import numpy as np
from gpu_patch import ImageStack, predict
from gpu_patch.cli import info, main

def model(x):
    model.n_calls += 1
    if model.n_calls == 4:
        print("running", flush=True)
        time.sleep(600)
    return x

model.n_calls = 0

def run(options):
    image = ImageStack.from_array(np.ones((160, 32), np.float32), "YX", device="cpu")
    out, more = options.files[0], {}
    if out.endswith("zarr"):
        more["chunk_size"] = (32, 32)
    try:
        predict(image, model, tile_size=(32, 32), overlaps=(0, 0), batch_size=1, out=out,
                progress=False, **more)
    except KeyboardInterrupt as stopped:
        if type(stopped) is not KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)  # again, while it cleans up
        print("cleaned", flush=True)
        raise

info.run = run
sys.exit(main(["info", sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
@pytest.mark.parametrize("ending", [".tif", ".ome.zarr"])
def test_a_signal_ends_a_command(tmp_path, ending, number, status, word):
    """And nothing but what a run goes on with is left."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", COMMAND, str(tmp_path / "new" / f"o{ending}")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    ) as process:
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert (said, errors) == ("cleaned\n", f"gpu-patch: {word}\n")
    left = sorted(path.name for path in tmp_path.glob("new/*"))
    assert left == ([".o.ome.zarr.partial"] if ending == ".ome.zarr" else [])
    assert (tmp_path / "new").exists() == (ending == ".ome.zarr")


def test_who_handles_it_already_keeps_on(capsys):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with terminable():
        inside = signal.getsignal(signal.SIGTERM)
        with terminable():
            assert signal.getsignal(signal.SIGTERM) is inside
        assert signal.getsignal(signal.SIGTERM) is inside
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    # a thread cannot handle signals, and runs commands all the same
    found = []
    thread = threading.Thread(target=lambda: found.append(main([])))
    thread.start()
    thread.join()
    assert found == [0]


def test_a_forked_process_just_ends():
    code = """
import os, signal, sys
from gpu_patch.cli.termination import terminable
with terminable():
    child = os.fork()
    if child == 0:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            print("cleaned in the child", flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM)
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "True\n"

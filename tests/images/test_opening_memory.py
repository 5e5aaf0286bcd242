"""Memory that opening takes above the images; in a process of its own."""

import subprocess
import sys
from math import prod

import pytest

PROGRAM = """
import resource, sys
import numpy as np
import zarr
from gpu_patch import open_images
from gpu_patch.images import loading
loading._PIECE_BYTES = int(sys.argv[2])

def peak():  # of this process alone: getrusage counts its parent's too, before exec
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

open_images(sys.argv[1] + "/small.zarr", "CYX", device="cpu")  # all is imported
before = peak()
found = open_images(sys.argv[1] + "/large.zarr", "CYX", device="cpu").image_stacks[0]
print(peak() - before, found.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc, of Linux")
def test_opening_takes_little_above_the_images(tmp_path):
    zarr = pytest.importorskip("zarr")
    for name, shape in (("small", (1, 64, 64)), ("large", (64, 1024, 1024))):
        array = zarr.create_array(
            tmp_path / f"{name}.zarr", shape=shape, chunks=(1, 512, 512), dtype="u2", overwrite=True
        )
        array[:] = 1
    above = {}
    large = prod((48, 1024, 1024, 2))
    for piece in (1 << 22, large):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(piece)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        taken, resident = map(int, output.split())
        above[piece] = taken - resident
    assert resident == 64 << 21
    assert above[1 << 22] < resident / 4
    assert above[large] > resident / 2  # in large pieces it would be much: the figures are true

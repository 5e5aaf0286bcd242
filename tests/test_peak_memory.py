"""Memory that a batch takes above the images; each case in a process of its own.

NumPy reports its memory to tracemalloc. A fresh process has lent no memory to earlier batches.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, sys, tracemalloc
from math import prod
import numpy as np
import gpu_patch as g
case = json.loads(sys.argv[1])
size, shape = [case["patch"]] * len(case["image"]), (1, case["channels"], *case["image"])
pixels = np.arange(prod(shape)).reshape(shape).astype(case["dtype"])
tracemalloc.start()
axes = "SCYX" if len(size) == 2 else "SCZYX"
extractor = g.PatchExtractor([g.ImageStack.from_array(pixels, axes, device="cpu")])
strategy = g.RandomPatching(extractor.shapes, size, 0)
if case["scales"]:
    ranges = [(0.2, 1.0)] * case["channels"]
    made = g.MultiChannelTargetMsPatchConstr(
        strategy, extractor, case["scales"], case["mode"], ranges, case["probability"], seed=0
    )
else:
    made = g.BasicPatchConstr(strategy, extractor, seed=0)
construction = tracemalloc.get_traced_memory()[1]
tracemalloc.reset_peak()
batch = made.construct_batch(np.arange(case["batch"]) % made.n_patches)
peak = tracemalloc.get_traced_memory()[1]
outputs = batch.input.nbytes + (0 if batch.target is None else batch.target.nbytes)
print(json.dumps([construction, peak, outputs]))
"""
MIB = 1 << 20


def measure(**case):
    """Peak bytes of the construction, of a batch, and the bytes of its outputs."""
    defaults = {"dtype": "uint16", "channels": 2, "mode": "reflect", "probability": 0.5}
    command = [sys.executable, "-c", PROGRAM, json.dumps({**defaults, **case})]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(output.stdout)


def window_bytes(**case):
    """All channels of the batch's windows at the largest scale, in the type of the images."""
    n_pixels = (case["patch"] << (case["scales"] - 1)) ** len(case["image"])
    itemsize = np.dtype(case.get("dtype", "uint16")).itemsize
    return case["batch"] * case.get("channels", 2) * n_pixels * itemsize


@pytest.mark.parametrize("scales", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_batch_takes_at_most_three_times_its_largest_windows(dtype, scales):
    case = {"dtype": dtype, "scales": scales, "patch": 64, "batch": 16, "image": [700, 800]}
    _, peak, outputs = measure(**case)
    assert outputs == 16 * (scales + 2) * 64**2 * 4
    assert peak <= outputs + 3 * window_bytes(**case)


@pytest.mark.parametrize("mode", ["wrap", "periodic"])
def test_the_border_rule_takes_no_more(mode):
    case = {"scales": 4, "patch": 64, "batch": 16, "image": [100, 120], "mode": mode}
    _, peak, outputs = measure(**case)
    assert peak <= outputs + 3 * window_bytes(**case)


def test_volumes_take_at_most_three_times_their_largest_windows():
    case = {"scales": 3, "patch": 16, "batch": 8, "image": [20, 90, 90]}
    _, peak, outputs = measure(**case)
    assert peak <= outputs + 3 * window_bytes(**case)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_plain_patches_take_little_more_than_themselves(dtype):
    case = {"dtype": dtype, "scales": 0, "patch": 128, "batch": 64, "image": [700, 800]}
    _, peak, outputs = measure(**case)
    assert outputs == 64 * 2 * 128**2 * 4
    assert peak <= outputs + 64 * 2 * 128**2 * np.dtype(dtype).itemsize + MIB


def test_images_are_resident_once():
    case = {"dtype": "float32", "scales": 3, "patch": 16, "batch": 2, "image": [3000, 2000]}
    construction, peak, outputs = measure(**case)
    assert construction < 4 * MIB  # of 46 MiB
    assert peak < outputs + 4 * MIB


@pytest.mark.parametrize(
    "case",
    [
        {"dtype": "float32", "scales": 5, "patch": 256, "image": [900, 900], "batch": 2},
        {"dtype": "float32", "scales": 5, "patch": 16, "image": [30, 90, 90], "batch": 3},
        {"dtype": "uint16", "scales": 10, "patch": 16, "image": [20, 20], "batch": 1},
    ],
    ids=["pictures", "volumes", "tiny image"],
)
def test_batch_of_huge_windows_stays_below_256_mib(case):
    assert window_bytes(**case) > 256 * MIB - 1
    _, peak, outputs = measure(**case)
    assert peak <= outputs + 256 * MIB


def test_many_scales_of_a_tiny_image_allocate_nothing_of_padded_size():
    # padded as upstream does it: 16 · 2^10 pixels along each axis, half a gigabyte per channel
    case = {"scales": 10, "patch": 16, "image": [20, 20], "batch": 1}
    _, peak, _ = measure(**case)
    assert peak < 400 * MIB

"""Processes that tell how much memory they needed at most, beyond what they had before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from written import make_predicted, make_store

import gpu_patch


def peak():
    """The most memory that this process has had, in bytes; on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def write(folder, suffix, report):
    """Write an image of 256 MiB, its levels included."""

    def write_one(name, n_rows):
        predicted = make_predicted("YX", name=name, Y=n_rows, X=4096)
        output = make_store(folder / f"{name}{suffix}", ["a"]).open(predicted)
        block = np.zeros((1, 64, 4096), np.float32)
        for row in range(0, n_rows, 64):
            block[...] = np.arange(4096)
            output.write(0, row, block)
        output.finish()

    write_one("small", 512)  # what is imported and cached once
    before = peak()
    write_one("large", 16384)
    report.write_text(str(peak() - before))


def predict(folder, suffix, report):
    """Predict an image of 256 MiB."""
    pixels = np.zeros((16384, 4096), np.uint8)
    pixels[::3] = 7

    def predict_one(name, pixels):
        gpu_patch.predict(
            gpu_patch.ImageStack.from_array(pixels, "YX", device="cpu"),
            lambda x: x,
            tile_size=(256, 256),
            overlaps=(64, 64),
            out=folder / f"{name}{suffix}",
            progress=False,
        )

    predict_one("small", pixels[:300, :300])  # what is imported and cached once
    before = peak()
    predict_one("large", pixels)
    report.write_text(str(peak() - before))

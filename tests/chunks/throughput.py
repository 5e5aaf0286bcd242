"""How fast images by chunk are, beside the same images resident, in one run.

    PYTHONPATH=. python tests/chunks/throughput.py [--size 8192] [--share 0.25] [FOLDER]

Writes an OME-Zarr of two channels (uint16, chunks of 256 x 256, uncompressed) to FOLDER, opens it
whole and with a budget of a share of its bytes, and takes turns with an epoch of each, in blocks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import zarr

import gpu_patch
from gpu_patch.feed import BatchLoader

MOST_BATCHES = 500


def write(path: Path, size: int) -> None:
    group = zarr.open_group(path, mode="w")
    array = group.create_array(
        "0", shape=(2, size, size), dtype="uint16", chunks=(1, 256, 256), compressors=None
    )
    for channel in range(2):
        rng = np.random.default_rng(channel)
        array[channel] = rng.integers(0, 2000, (size, size), np.uint16)
    axes = [{"name": "c", "type": "channel"}] + [{"name": a, "type": "space"} for a in "yx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * 3}]}]
    multiscales = [{"axes": axes, "datasets": datasets}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}


def loader(images: gpu_patch.PatchExtractor, n_scales: int) -> BatchLoader:
    made = gpu_patch.StratifiedPatching(images.shapes, (64, 64), seed=0)
    constructor = (
        gpu_patch.MultiChannelTargetMsPatchConstr(
            made, images, n_scales, "reflect", [(0.2, 1)] * 2, 0.0, seed=0
        )
        if n_scales
        else gpu_patch.BasicPatchConstr(made, images, seed=0)
    )
    return BatchLoader(constructor, 32, order="blocks")


def epoch(batches: BatchLoader) -> float:
    """Return the seconds that a batch takes, reading all chunks anew included."""
    begun = time.perf_counter()
    for n, _ in enumerate(batches, 1):
        if n == MOST_BATCHES:
            break
    return (time.perf_counter() - begun) / n


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = (options.folder or Path(temporary)) / "images.ome.zarr"
        write(path, options.size)
        whole = gpu_patch.open_images(path)
        budget = int(options.share * whole.image_stacks[0].nbytes)
        print(f"{size_of(whole)} resident, {budget / 1e6:.0f} MB by chunk, on {whole.device}")
        print(f"{'':>14}  resident  by chunk  speed  hits")
        for n_scales in (0, 1, 2, 3, 4):
            pairs = []
            for _ in range(options.repeats):
                part = gpu_patch.open_images(path, memory_budget=budget)
                pairs.append([epoch(loader(images, n_scales)) for images in (whole, part)])
            resident, chunked = (median(column) / 32 * 1e6 for column in zip(*pairs, strict=True))
            name = f"{n_scales} scales" if n_scales else "Basic"
            print(
                f"{name:>14}  {resident:6.1f}µs  {chunked:6.1f}µs  {resident / chunked:5.2f}  "
                f"{part.cache.traffic.hit_rate:.1%}",
                flush=True,
            )


def size_of(images: gpu_patch.PatchExtractor) -> str:
    return f"{sum(stack.nbytes for stack in images.image_stacks) / 1e6:.0f} MB"


if __name__ == "__main__":
    main()

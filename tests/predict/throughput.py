"""What stitching costs beside making tiles, in one run: the model is the identity.

    PYTHONPATH=. python tests/predict/throughput.py [--size 4096] [--batch-size 16]

Every case takes turns: tiles alone, tiles and stitching, and the whole of `predict`, which also
converts the result and brings it to the host.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

import gpu_patch
from gpu_patch import ops
from gpu_patch.plan import Segment
from gpu_patch.predict._runs import choose_grid

TILE, OVERLAP = (256, 256), (64, 64)


def native(batch):
    return np.ascontiguousarray(batch[:, :1])


def seconds(call) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    pixels = np.random.default_rng(0).integers(0, 4000, (options.size,) * 2, np.uint16)
    images = gpu_patch.PatchExtractor([gpu_patch.ImageStack(pixels, "YX", device="cpu")])
    print("µs a tile of 256 x 256:     tiles  + stitched    more  predict    more")
    for blend in ("crop", "hann"):
        for n_scales in (None, 1, 2, 3, 4):
            measure(images, blend, n_scales, options.batch_size, options.repeats)


def measure(images, blend, n_scales, batch_size, repeats) -> None:
    grid = choose_grid(images.shapes[0][2:], TILE, OVERLAP, blend)
    tiling = gpu_patch.TiledPatching(images.shapes, TILE, OVERLAP)
    constructor = (
        gpu_patch.BasicPatchConstr(tiling, images, seed=0)
        if n_scales is None
        else gpu_patch.PredMsPatchConstr(tiling, images, n_scales, "reflect", seed=0)
    )
    n_tiles = constructor.n_patches
    batches = [
        (first, grid.indices(np.arange(first, min(first + batch_size, n_tiles))).tolist())
        for first in range(0, n_tiles, batch_size)
    ]
    whole = np.zeros((1, *grid.size), np.float32)

    def tiles():
        for _, indices in batches:
            native(constructor.construct_batch(indices).input)

    def stitched():
        for first, indices in batches:
            found = native(constructor.construct_batch(indices).input)
            ops.stitch(found, [Segment(whole, grid, first, len(indices), (0, grid.size[0]))])

    def predict():
        gpu_patch.predict(
            images, native, tile_size=TILE, overlaps=OVERLAP, batch_size=batch_size, blend=blend,
            multiscale_count=n_scales, progress=False,
        )  # fmt: skip

    calls = (tiles, stitched, predict)
    for call in calls:
        call()
    assert np.array_equal(whole[0], images.image_stacks[0].data[0, 0]) or blend != "crop"
    times = np.array([[seconds(call) for call in calls] for _ in range(repeats)])
    made, more, all_of_it = (median(column) / n_tiles * 1e6 for column in times.T)
    name = "plain" if n_scales is None else f"{n_scales} scales"
    print(
        f"{blend:>6}, {name:<10} {made:14.1f} {more:11.1f} {more / made - 1:8.1%} "
        f"{all_of_it:8.1f} {all_of_it / made - 1:7.1%}",
        flush=True,
    )


if __name__ == "__main__":
    main()

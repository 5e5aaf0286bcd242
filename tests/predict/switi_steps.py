"""Sliding tiles, their sums and their writing, beside upstream's draft: `switi_steps.py [DEVICE]`.

An image of 2048×2048, tiles of 64×64 of which 32×32 are kept, a stride of 4 (64 tiles a pixel),
three scales of context, and a model that does nothing but give two channels back. Upstream's draft
(CAREamics' pull request 995) makes one tile at a time, collates batches, adds each kept part to
float32 sums of the whole image and 1 to its counts, divides at the end, and returns an array. Those
steps are done here with careamics' own constructor, where it is installed, for a sample of tiles
from the whole image; whole are ours, with an array and with OME-Zarr as the result.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import gpu_patch
from gpu_patch import ops

SIZE, TILE, OVERLAP, STRIDE, SCALES, CHANNELS = 2048, 64, 32, 4, 3, 2
BATCH, UPSTREAM_TILES = 256, 512


def identity(batch):
    """The empty model: the first two of three scales."""
    return batch[:, :CHANNELS].copy()


def sizes():
    """What `predict` and the strategy take."""
    return (TILE, TILE), (OVERLAP, OVERLAP), (STRIDE, STRIDE)


def upstream(pixels):
    """Seconds per tile of the draft's steps, and seconds for the whole image besides."""
    from careamics.dataset.image_stack import InMemoryImageStack
    from careamics.dataset.patch_constructor import PredMsPatchConstr
    from careamics.dataset.patch_extractor import PatchExtractor

    data = pixels[None, None]
    tiling = gpu_patch.SwitiPatching([data.shape], *sizes())
    extractor = PatchExtractor([InMemoryImageStack("array", data)])
    constructor = PredMsPatchConstr(tiling, extractor, SCALES, "reflect")
    start = time.perf_counter()
    sums = np.zeros((1, CHANNELS, *pixels.shape), np.float32)
    counts = np.zeros(sums.shape, np.uint32)
    sums += 0  # its pages are there, as those of the whole run would be
    counts += 0
    begun = time.perf_counter()
    indices = np.linspace(0, tiling.n_patches - 1, UPSTREAM_TILES).astype(int).tolist()
    for at in range(0, len(indices), 16):
        chosen = indices[at : at + 16]
        tiles = [(tiling.get_patch_spec(i), constructor.construct_patch(i)) for i in chosen]
        batch = np.stack([np.asarray(tile[1][0], np.float32) for tile in tiles])
        for (spec, _), tile in zip(tiles, identity(batch), strict=True):
            inside, outside = (
                tuple(slice(a, a + n) for a, n in zip(spec[k], spec["crop_size"], strict=True))
                for k in ("crop_coords", "stitch_coords")
            )
            sums[(0, slice(None), *outside)] += tile[(slice(None), *inside)]
            counts[(0, slice(None), *outside)] += 1
    per_tile = (time.perf_counter() - begun) / len(indices)
    begun_division = time.perf_counter()
    np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    rest = time.perf_counter() - begun_division + begun - start
    return tiling.n_patches * per_tile + rest


def ours(image, **options):
    """Seconds of the whole run."""
    tile, overlaps, stride = sizes()
    start = time.perf_counter()
    gpu_patch.predict(
        image,
        identity,
        tile_size=tile,
        overlaps=overlaps,
        tiling="switi",
        stride=stride,
        multiscale_count=SCALES,
        batch_size=BATCH,
        progress=False,
        **options,
    )
    return time.perf_counter() - start


class _Noted:
    """Wraps functions, to sum their seconds."""

    def __init__(self):
        self.seconds = 0.0

    def timed(self, function):
        def call(*arguments, **options):
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - start

        return call


def main():
    """Print seconds, and the share of sums."""
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60000, (SIZE, SIZE)).astype(np.uint16)
    image = gpu_patch.ImageStack.from_array(pixels, "YX", device=device)
    noted = _Noted()
    originals = ops.accumulate, ops.means
    ops.accumulate, ops.means = (noted.timed(function) for function in originals)
    small = gpu_patch.ImageStack.from_array(pixels[:200, :200], "YX", device=device)
    ours(small)
    noted.seconds = 0.0
    found = {"device": device, "ours, s": ours(image)}
    if device == "cpu":  # on a GPU launches return at once
        found["of which sums, s"] = noted.seconds
    with tempfile.TemporaryDirectory() as folder:
        found["ours with OME-Zarr, s"] = ours(image, out=Path(folder) / "a.ome.zarr")
    try:
        found["upstream's steps, s"] = upstream(pixels)
    except ModuleNotFoundError as error:
        found["upstream's steps, s"] = f"not measured: {error}"
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""What stitching adds to making tiles and an identity model: `measure.py [DEVICE] [JSON]`.

Per number of scales: seconds per tile to make the tiles, to run an identity over them, and to
stitch them into a slab, each the median of several passes over the same batches; and of `predict`
as a whole, whose result stays in the host's memory. Then the peak of the host's memory that NumPy
reports for a tall image.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

import gpu_patch
from gpu_patch import device as devices
from gpu_patch import ops
from gpu_patch.predict.schedule import RowRange, batches_of, choose_grid
from gpu_patch.predict.slab_writer import make_slab_writer

TILE, OVERLAP, BATCH, SIZE, PASSES = 256, 64, 16, 2048, 7


def clock(device):
    """Return a function that waits for the device and tells the time."""
    if device == "cpu":
        return time.perf_counter
    import cupy

    def now():
        cupy.cuda.Device(int(device.partition(":")[2])).synchronize()
        return time.perf_counter()

    return now


def measure(device, n_scales, blend="crop", dtype="uint16", size=SIZE):
    """Seconds per tile of each step; `n_scales` is None for plain tiles."""
    pixels = np.random.default_rng(0).integers(0, 60000, (size, size)).astype(dtype)
    stack = gpu_patch.ImageStack.from_array(pixels, "YX", device=device)
    images = gpu_patch.PatchExtractor([stack])
    tile, overlaps = (TILE, TILE), (OVERLAP, OVERLAP)
    tiling = gpu_patch.TiledPatching(images.shapes, tile, overlaps)
    made = (
        gpu_patch.BasicPatchConstr(tiling, images)
        if n_scales is None
        else gpu_patch.PredMsPatchConstr(tiling, images, n_scales, "reflect")
    )
    grid, now = choose_grid((size, size), tile, overlaps, blend), clock(stack.device)
    rows = RowRange(0, 0, 0, size)
    batches, (height,) = batches_of([(rows, grid)], BATCH)
    writer = make_slab_writer(stack.device)
    slab = writer.new((1, height, size))
    writer.close()

    def identity(batch):
        return batch if n_scales is None else np.ascontiguousarray(batch[:, :1])

    if stack.device != "cpu" and n_scales is not None:
        import cupy

        def identity(batch):
            return cupy.ascontiguousarray(batch[:, :1])

    seconds = {"make": [], "identity": [], "stitch": []}
    for _ in range(PASSES):
        spent = dict.fromkeys(seconds, 0.0)
        for (part,) in batches:
            indices = grid.indices(np.arange(part.first, part.first + part.count))
            moments = [now()]
            batch = made.construct_batch(indices).input
            moments.append(now())
            tiles = identity(batch)
            moments.append(now())
            ops.stitch(tiles, [ops.Segment(slab, grid, part.first, part.count, (0, size))])
            moments.append(now())
            for name, first, last in zip(seconds, moments, moments[1:], strict=False):
                spent[name] += last - first
        for name, total in spent.items():
            seconds[name].append(total / grid.n_tiles)
    found = {name: statistics.median(values) for name, values in seconds.items()}
    whole = []
    for _ in range(PASSES):
        start = now()
        gpu_patch.predict(
            stack, lambda batch: identity(batch), tile_size=tile, overlaps=overlaps,
            multiscale_count=n_scales, blend=blend, batch_size=BATCH, progress=False,
        )  # fmt: skip
        whole.append((now() - start) / grid.n_tiles)
    found["predict"] = statistics.median(whole)
    found["added"] = found["stitch"] / (found["make"] + found["identity"])
    return found


def peak(device, ending, size=(16384, 4096)):
    """Part of a whole float32 buffer that is allocated on the host at most."""
    pixels = np.zeros(size, np.uint8)
    stack = gpu_patch.ImageStack.from_array(pixels, "YX", device=device)
    with tempfile.TemporaryDirectory() as folder:
        tracemalloc.start()
        gpu_patch.predict(
            stack, lambda batch: batch, tile_size=(TILE, TILE), overlaps=(OVERLAP, OVERLAP),
            out=Path(folder) / f"out{ending}", progress=False,
        )  # fmt: skip
        found = tracemalloc.get_traced_memory()[1] / (4 * np.prod(size))
        tracemalloc.stop()
    return float(found)


def main(device=None, document=None):
    device = devices.resolve(device)
    found = {"device": device, "tile": TILE, "overlap": OVERLAP, "batch": BATCH, "size": SIZE}

    def keep(name, figures):
        found[name] = figures
        if document:  # now: a later row may not come to its end
            Path(document).write_text(json.dumps(found, indent=2) + "\n")

    print(f"{device}: µs per tile of {TILE}² pixels, batches of {BATCH}")
    print(f"{'':20}{'make':>9}{'identity':>9}{'stitch':>9}{'adds':>8}{'predict':>9}")
    for n_scales in (None, 1, 3, 4):
        for blend in ("crop", "hann"):
            name = f"{'plain' if n_scales is None else f'{n_scales} scales'}, {blend}"
            row = measure(device, n_scales, blend)
            keep(name, row)
            times = "".join(f"{row[k] * 1e6:9.1f}" for k in ("make", "identity", "stitch"))
            print(f"{name:20}{times}{row['added']:8.1%}{row['predict'] * 1e6:9.1f}", flush=True)
    for ending, package in ((".ome.tif", "tifffile"), (".ome.zarr", "zarr")):
        name = f"peak, 16384×4096 to {ending}"
        if importlib.util.find_spec(package) is None:
            keep(f"peak {ending}", {"not_run": f"needs {package}"})
            print(f"{name}: not run, needs {package}")
            continue
        part = peak(device, ending)
        keep(f"peak {ending}", part)
        print(f"{name}: {part:.1%} of the whole buffer", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

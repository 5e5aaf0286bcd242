"""How fast patches come where a quarter of an image fits in memory, beside others that read them.

    PYTHONPATH=. python tests/pages/throughput.py [--size 4096] [--codec none] [--scales 0 2 3 4]

Contenders take turns, so that what else the machine does falls on all; each has its best run told.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorstore
import zarr

import gpu_patch
from gpu_patch.feed import BatchLoader
from gpu_patch.feed.epoch_pages import fitted

PATCH, BATCH, CHUNK = 64, 32, 256
CODECS = {
    "none": None,
    "blosc": zarr.codecs.BloscCodec(cname="zstd", clevel=3),
    "zstd": zarr.codecs.ZstdCodec(level=3),
}


def write(path: Path, size: int, codec: str) -> None:
    """Write an image of two channels."""
    array = zarr.create_array(
        path,
        shape=(2, size, size),
        dtype="uint16",
        chunks=(1, CHUNK, CHUNK),
        compressors=CODECS[codec],
    )
    for c in range(2):
        array[c] = np.random.default_rng(c).poisson(100, (size, size)).astype(np.uint16)


def constructor(images, n_scales):
    placed = gpu_patch.StratifiedPatching(images.shapes, (PATCH, PATCH), seed=0)
    if not n_scales:
        return gpu_patch.BasicPatchConstr(placed, images, seed=0)
    ranges = [(0.2, 1)] * 2
    return gpu_patch.MultiChannelTargetMsPatchConstr(
        placed, images, n_scales, "reflect", ranges, 0.0, seed=0
    )


def loop(path, budget, specs):
    """Cut each patch by tensorstore, with a cache of its own of the same size."""
    array = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(path)},
            "context": {"cache_pool": {"total_bytes_limit": budget}},
        }
    ).result()
    for batch in specs:
        reads = [array[:, y : y + PATCH, x : x + PATCH].read() for y, x in batch]
        np.stack([read.result() for read in reads]).astype(np.float32)


def cut_by_zarr(path, specs):
    """What a worker of a DataLoader does, without its processes."""
    array = zarr.open_array(path, mode="r")
    for batch in specs:
        np.stack([array[:, y : y + PATCH, x : x + PATCH] for y, x in batch]).astype(np.float32)


def read_alone(path):
    """Read every chunk once, into memory that is there, sixteen at a time."""
    images = gpu_patch.open_images(path, "CYX", by_chunk=True, memory_budget=1 << 26)
    stack = images.image_stacks[0]
    pool = images.cache.pool
    pages = np.arange(len(pool.table))
    for first in range(0, len(pages), 16):
        with pool.hold(pages[first : first + 16]):
            pass
    return stack


def per_second(run: Callable[[], int]) -> float:
    begun = time.perf_counter()
    n = run()
    return n / (time.perf_counter() - begun)


def emptied(loader, n_batches):
    n = 0
    for i, batch in enumerate(loader, 1):
        n += len(batch.input)
        if i == n_batches:
            break
    return n


def measure(path: Path, size: int, n_scales: int, n_runs: int) -> None:
    """Print what each contender reaches."""
    whole = gpu_patch.open_images(path, "CYX")
    n_bytes = whole.image_stacks[0].nbytes
    budget = n_bytes // 4
    resident = constructor(whole, n_scales)
    n_batches = -(-resident.n_patches // BATCH)
    traffic = []

    def paged() -> int:
        images = gpu_patch.open_images(path, "CYX", memory_budget=budget)
        n = emptied(BatchLoader(constructor(images, n_scales), BATCH, order="sweep"), n_batches)
        traffic.append(images.cache.traffic)
        return n

    images = gpu_patch.open_images(path, "CYX", memory_budget=budget)
    sweep = fitted(constructor(images, n_scales))
    few = min(n_batches, 8)
    runs = {
        "resident": lambda: emptied(BatchLoader(resident, BATCH), n_batches),
        "paged": paged,
    }
    if not n_scales:
        loader = BatchLoader(constructor(images, 0), BATCH, order="sweep")
        specs = [[spec["coords"] for spec in batch.specs] for batch in loader]
        n = sum(map(len, specs))
        cut = sum(map(len, specs[:few]))
        runs["tensorstore loop"] = lambda: loop(path, budget, specs) or n
        runs["zarr-python"] = lambda: cut_by_zarr(path, specs[:few]) or cut
        runs["reader alone"] = lambda: read_alone(path) and n
    best = dict.fromkeys(runs, 0.0)
    for _ in range(n_runs):
        for name, run in runs.items():
            best[name] = max(best[name], per_second(run))
    last = min(traffic, key=lambda each: each.waited_s)
    print(
        f"{n_scales or 'plain'}: {sweep.n_strips} strips in {sweep.n_columns} columns, "
        f"{last.bytes_moved / n_bytes:.2f} of the data read, "
        f"{last.waited_share:.1%} of the time waited"
    )
    for name, found in best.items():
        print(f"  {name:17s} {found:9.0f} a second, {best['paged'] / found:6.2f} of it by page")


def ranks(path: Path, world_size: int) -> None:
    """Print what several ranks read together, of what one reads."""
    read = []
    for size in (1, world_size):
        moved = 0
        for rank in range(size):
            n_bytes = 2 * 2 * zarr.open_array(path, mode="r").shape[1] ** 2
            images = gpu_patch.open_images(path, "CYX", memory_budget=n_bytes // 4)
            loader = BatchLoader(
                constructor(images, 0), BATCH, order="sweep", rank=rank, world_size=size
            )
            emptied(loader, 0)
            moved += images.cache.traffic.bytes_moved
        read.append(moved)
    print(f"{world_size} ranks read {read[1] / read[0]:.2f} of what one reads")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--codec", nargs="+", default=["none", "blosc"], choices=CODECS)
    parser.add_argument("--scales", nargs="+", type=int, default=[0, 2, 3, 4])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    for codec in options.codec:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.zarr"
            write(path, options.size, codec)
            print(f"{options.size}², {codec}")
            for n_scales in options.scales:
                measure(path, options.size, n_scales, options.runs)
            ranks(path, 4)


if __name__ == "__main__":
    main()

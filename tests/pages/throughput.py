"""`gpu-patch bench --by-chunk` for several codecs, and what ranks read together of what one reads.

PYTHONPATH=. python tests/pages/throughput.py [--size 4096] [--codec none blosc] [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import zarr

import gpu_patch
from gpu_patch.cli.bench.by_chunk import BATCH, SHARE, serve
from gpu_patch.cli.bench.by_chunk_table import row_line
from gpu_patch.feed import BatchLoader

CHUNK = 256
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
        dimension_names=("c", "y", "x"),
    )
    for c in range(2):
        array[c] = np.random.default_rng(c).poisson(100, (size, size)).astype(np.uint16)


def measure(path: Path, *, quick: bool) -> None:
    """Print what each contender reaches."""
    found: list[dict] = []

    def report(row: dict) -> None:
        found.append(row)
        if len(found) > 1:
            print(row_line(row, found[1:], found[0]["image_bytes"]), flush=True)

    serve({"by_chunk": path, "quick": quick}, report)


def read_by(path: Path, rank: int, world_size: int) -> int:
    """Return how many bytes a rank reads in an epoch of plain patches."""
    n_bytes = zarr.open_array(path, mode="r").nbytes
    images = gpu_patch.open_images(path, memory_budget=int(n_bytes * SHARE))
    placed = gpu_patch.StratifiedPatching(images.shapes, (64, 64), seed=0)
    constructor = gpu_patch.BasicPatchConstr(placed, images, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few strips
        loader = BatchLoader(constructor, BATCH, order="sweep", rank=rank, world_size=world_size)
    for _ in loader:
        pass
    return images.cache.traffic.bytes_moved


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--codec", nargs="+", default=["none", "blosc"], choices=CODECS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    for codec in options.codec:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.zarr"
            write(path, options.size, codec)
            print(f"{options.size}², {codec}")
            measure(path, quick=options.quick)
            together = sum(read_by(path, rank, 4) for rank in range(4))
            print(f"four ranks read {together / read_by(path, 0, 1):.2f} of what one reads")


if __name__ == "__main__":
    main()

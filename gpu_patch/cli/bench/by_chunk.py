"""What ``gpu-patch bench --by-chunk`` measures: patches of images that do not fit in memory."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import gpu_patch
from gpu_patch.cli.bench.from_files import Cut, Place, data_loader, tensorstore_loop
from gpu_patch.cli.bench.timing import machine
from gpu_patch.feed import BatchLoader
from gpu_patch.feed.epoch_pages import fitted
from gpu_patch.images import PatchExtractor
from gpu_patch.optional import imported
from gpu_patch.pages import PageCache
from gpu_patch.threads import get_num_threads

SCALES = (0, 2, 3, 4)
"""0 are plain patches."""
SHARE = 0.25
"""Of the images that is in memory at a time."""
BATCH = 32
_SIZE = 4096
_LIMIT, _QUICK_LIMIT = 20.0, 3.0
"""Seconds after which a contender is stopped."""
_ROUNDS, _QUICK_ROUNDS = 3, 1
_PAGES_AT_ONCE = 16

Timed = tuple[int, float]
"""Patches, and seconds for them."""


def serve(settings: dict[str, Any], report: Callable[[Any], None]) -> None:
    """Measure what `settings` ask for: first the machine, then a row per contender and scales."""
    quick = settings["quick"]
    with ExitStack() as stack:
        path = settings["by_chunk"]
        if not path:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            path = write_image(Path(folder) / "image.zarr", _SIZE)
        bench = _Bench(str(path), _QUICK_LIMIT if quick else _LIMIT)
        report({**machine(), **bench.describe()})
        for n_scales in SCALES:
            for row in bench.rows(n_scales, _QUICK_ROUNDS if quick else _ROUNDS):
                report({"n_scales": n_scales, **row})


def write_image(path: Path, size: int) -> Path:
    """Write random pixels of two channels, uncompressed, in chunks of a sixteenth of a side."""
    side = size // 16
    array = imported("zarr", "gpu-patch bench --by-chunk").create_array(
        path,
        shape=(2, size, size),
        dtype="uint16",
        chunks=(1, side, side),
        compressors=None,
        dimension_names=("c", "y", "x"),
    )
    array[:] = np.random.default_rng(0).integers(0, 4096, array.shape, np.uint16)
    return path


class _Bench:
    """The contenders, for the images of a path.

    Parameters
    ----------
    path : str
        The images.
    limit : float
        Seconds after which a contender is stopped.
    """

    def __init__(self, path: str, limit: float) -> None:
        self._path, self._limit = path, limit
        # a byte is enough to describe them
        images = gpu_patch.open_images(path, device="cpu", by_chunk=True, progress=False)
        self.n_bytes = sum(stack.data.total_bytes for stack in images.image_stacks)
        self.budget = int(self.n_bytes * SHARE)
        self._images = images
        self._n_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        self._traffic: Any = None

    def describe(self) -> dict[str, Any]:
        """Return what is measured."""
        (first, *others) = self._images.image_stacks
        return {
            "images": f"{len(others) + 1} of {first.data_shape}, {first.data.dtype}, in chunks of "
            f"{first.data.reader.chunk_shape}",
            "image_bytes": self.n_bytes,
            "budget_bytes": self.budget,
            "n_threads": get_num_threads(),
            "n_workers": self._n_workers,
        }

    def rows(self, n_scales: int, n_rounds: int) -> list[dict[str, Any]]:
        """Return a row per contender; they take turns, and each has its best round told."""
        best: dict[str, dict[str, Any]] = {}
        contenders: dict[str, Callable[[], Timed]] = {
            "resident": lambda: self._resident(n_scales),
            "paged": lambda: self._paged(n_scales),
        }
        if not n_scales:
            contenders["tensorstore loop"] = self._loop
            contenders["reader alone"] = self._reader
            contenders["torch DataLoader"] = self._data_loader
        for _ in range(n_rounds):
            for name, run in contenders.items():
                if "skipped" in best.get(name, {}):
                    continue
                try:
                    n_patches, seconds = run()
                except (ImportError, MemoryError, ValueError) as error:
                    best[name] = {"skipped": str(error)}
                    continue
                speed = n_patches / seconds
                if speed > best.get(name, {}).get("patches_per_second", 0):
                    best[name] = {"patches_per_second": speed}
                    if name == "paged":
                        best[name] |= self._of_pages(n_scales)
        return [{"name": name, **found} for name, found in best.items()]

    def _paged_images(self) -> PatchExtractor:
        return gpu_patch.open_images(
            self._path, device="cpu", by_chunk=True, memory_budget=self.budget, progress=False
        )

    def _resident(self, n_scales: int) -> Timed:
        images = gpu_patch.open_images(self._path, device="cpu", by_chunk=False, progress=False)
        return self._emptied(BatchLoader(_constructor(images, n_scales), BATCH))

    def _paged(self, n_scales: int) -> Timed:
        images = self._paged_images()
        found = self._emptied(_swept(_constructor(images, n_scales)))
        assert images.cache is not None
        self._traffic = images.cache.traffic
        return found

    def _of_pages(self, n_scales: int) -> dict[str, Any]:
        sweep = fitted(_constructor(self._paged_images(), n_scales))
        return {
            "n_strips": None if sweep is None else sweep.n_strips,
            "bytes_read": self._traffic.bytes_moved,
            "megabytes_per_second": self._traffic.megabytes_per_second,
            "waited_share": self._traffic.waited_share,
        }

    def _emptied(self, batches: Iterable[Any]) -> Timed:
        n_patches, begun = 0, time.perf_counter()
        for batch in batches:
            n_patches += len(batch[0])
            if time.perf_counter() - begun > self._limit:
                break
        return n_patches, time.perf_counter() - begun

    def _places(self) -> tuple[Cut, list[list[Place]]]:
        """Return the places of an epoch in the order of our batches, and how to cut there."""
        images = self._paged_images()
        constructor = _constructor(images, 0)
        if len(images.image_stacks) > 1:
            raise ValueError("there are several images")
        loader = _swept(constructor)
        most = constructor.n_patches // BATCH
        cut = Cut.of(images.image_stacks[0], constructor.sampling.patch_sizes[0])
        return cut, [
            [Place(spec["sample_idx"], tuple(spec["coords"])) for spec in batch.specs]
            for batch in islice(loader, most)
        ]

    def _loop(self) -> Timed:
        cut, places = self._places()
        batches = tensorstore_loop(cut, self.budget, places)
        return self._emptied((batch,) for batch in batches)

    def _reader(self) -> Timed:
        """Read every page once; the patches are those of an epoch, which need no more."""
        images = self._paged_images()
        assert isinstance(images.cache, PageCache)
        pool = images.cache.pool
        n_pages, n_read = len(pool.table), 0
        begun = time.perf_counter()
        while n_read < n_pages and time.perf_counter() - begun < self._limit:
            n = min(_PAGES_AT_ONCE, pool.n_slots, n_pages - n_read)
            with pool.hold(np.arange(n_read, n_read + n)):
                n_read += n
        n_patches = _constructor(images, 0).n_patches
        return n_patches * n_read // n_pages, time.perf_counter() - begun

    def _data_loader(self) -> Timed:
        return data_loader(*self._places(), self._n_workers, self._limit)


def _swept(constructor: Any) -> BatchLoader:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few strips, which the table tells
        return BatchLoader(constructor, BATCH, order="sweep")


def _constructor(images: PatchExtractor, n_scales: int) -> Any:
    size = (64, 64) if len(images.shapes[0]) == 4 else (16, 64, 64)
    strategy = gpu_patch.StratifiedPatching(images.shapes, size, seed=0)
    if not n_scales:
        return gpu_patch.BasicPatchConstr(strategy, images, seed=0)
    ranges = [(0.2, 1.0)] * images.shapes[0][1]
    return gpu_patch.MultiChannelTargetMsPatchConstr(
        strategy, images, n_scales, "reflect", ranges, 0.0, seed=0
    )

"""Readers of arrays in memory, some with troubles of their own."""

from __future__ import annotations

import threading
import time

import numpy as np

import gpu_patch
from gpu_patch.chunks import ChunkedImage
from gpu_patch.pages import PageCache


class ArrayReader:
    """Reads an array; refuses what is not a chunk's worth, as files would read more than asked."""

    def __init__(self, array, chunk_shape, *, seconds=0.0):
        self.array, self.chunk_shape = array, tuple(chunk_shape)
        self.shape, self.dtype, self.seconds = array.shape, array.dtype, seconds
        self.regions = []
        self.threads = set()
        self.fail_at = None
        self._busy = threading.Lock()

    def __reduce__(self):
        return ArrayReader, (self.array, self.chunk_shape)

    def read(self, region, out):
        assert self._busy.acquire(blocking=False), "two threads read at once"
        try:
            self.regions.append(tuple((part.start, part.stop) for part in region))
            self.threads.add(threading.get_ident())
            time.sleep(self.seconds)
            if self.fail_at is not None and len(self.regions) > self.fail_at:
                out[...] = 77
                raise OSError("the disk is on fire")
            assert out.shape == tuple(part.stop - part.start for part in region)
            out[...] = self.array[region]
        finally:
            self._busy.release()


def chunks_of(array, seed=0, most=9):
    """Odd chunks, of some samples and channels."""
    rng = np.random.default_rng(seed)
    return tuple(int(rng.integers(1, min(n, most) + 1)) for n in array.shape)


def new_cache(budget, device="cpu"):
    """What `open_images` takes."""
    return PageCache(budget, device)


def chunked_images(arrays, budget=10**9, device="cpu", seed=0, cache=None):
    """`ChunkedImage`s of one cache, each with chunks of another shape."""
    cache = cache or new_cache(budget, device)
    return [
        ChunkedImage(ArrayReader(array, chunks_of(array, seed + i)), cache, f"image {i}")
        for i, array in enumerate(arrays)
    ]


def chunked_extractor(arrays, budget=10**9, device="cpu", cache=None, chunk_shape=None):
    cache = cache or new_cache(budget, device)
    return gpu_patch.PatchExtractor(
        [
            gpu_patch.ImageStack.by_chunk(
                ArrayReader(array, chunk_shape or chunks_of(array, i)), cache=cache
            )
            for i, array in enumerate(arrays)
        ]
    )

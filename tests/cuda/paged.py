"""Cases whose images lie in slots of a pool, for kernels that read them through the page table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
from cases import Case
from chunk_readers import chunked_images

from gpu_patch._host import library
from gpu_patch._host.lateral_context import HostContext
from gpu_patch.chunks import image
from gpu_patch.ops.paged_set import PagedSet
from gpu_patch.pages import PageCache
from gpu_patch.pages.slot_table import SlotTable


@contextmanager
def in_slots(runtime, case: Case, scale: int, mode: str) -> Iterator[SlotTable]:
    """A table of a case's images, of which only what is read is there, in slots in any order."""
    seed = case.sources.coords.size
    cache = PageCache(10**7)
    with mock.patch.object(image, "_LEAST_BYTES", 0):  # pages of few pixels
        pages = PagedSet(chunked_images(case.images, seed=seed, cache=cache))
        images = pages.images()
    images[0].memory[...] = 0xFF
    rng = np.random.default_rng(seed)
    needed = pages.pages(case.sources, case.patch_size, scale, case.n_scales, mode)
    with ExitStack() as stack:
        for pool, (_, page) in needed.items():
            stack.enter_context(pool.hold(rng.permutation(np.unique(page))))
        yield SlotTable(runtime, images)


def host_context(compiled: library.Library, case: Case, *, dtype=np.float32, **options):
    """By compiled kernels of the CPU."""
    how = (case.patch_size, case.n_scales, case.mode, np.dtype(dtype))
    with in_slots(library.HOST, case, case.n_scales - 1, case.mode) as table:
        return HostContext(compiled, table, case.sources, case.weights, *how, **options)()

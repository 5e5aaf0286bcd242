"""Images read by page in many ways, with reads that fail when told to, beside the same resident."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from chunk_readers import ArrayReader
from hypothesis import strategies as st
from paging import LazyReader
from pixels import distinct

import gpu_patch
from gpu_patch import ImageStack, PatchExtractor
from gpu_patch.feed import BatchLoader
from gpu_patch.feed.epoch_pages import planning
from gpu_patch.geometry import PADDING_MODES
from gpu_patch.pages import PageCache

PATCH = {2: (6, 5), 3: (3, 5, 4)}
SEED = 4
N_EPOCHS = 4


def plan_epoch(constructor, epoch):
    """What the patches of an epoch read, planned at once."""

    def pieces():
        yield (yield from planning(constructor, epoch))

    *_, found = pieces()
    return found


class FlakyReader(ArrayReader):
    """Fails where it is told to, so many times; what it leaves behind then must not be used."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.failures, self.failed, self.twice = {}, set(), set()

    def read(self, region, out):
        out[...] = 77
        place = tuple(part.start for part in region)
        left = self.failures.get(place, 0)
        if left:
            self.failures[place] = left - 1
            if place in self.failed:
                self.twice.add(place)
            self.failed.add(place)
            raise OSError(f"chunk {place}")
        self.failed.discard(place)
        super().read(region, out)


@dataclass(frozen=True)
class World:
    """What is opened, and which patches are made of it."""

    dtype: str
    samples_of: tuple[int, ...]
    sizes: tuple[tuple[int, ...], ...]
    chunks: tuple[tuple[int, ...], ...]
    kind: str
    n_scales: int
    mode: str
    strategy: str
    share: float
    reads: str

    @property
    def n_dims(self):
        return len(self.sizes[0])

    def pixels(self, n_channels, seed=0):
        return [
            distinct((n, n_channels, *size), self.dtype, seed + i)
            for i, (n, size) in enumerate(zip(self.samples_of, self.sizes, strict=True))
        ]

    def constructor(self, opened):
        """A constructor; `opened` makes an extractor of arrays."""
        two = opened(self.pixels(2))
        shapes, size = two.shapes, PATCH[self.n_dims]
        if self.strategy == "sequential":
            placed = gpu_patch.SequentialPatching(shapes, size)
        else:
            made = {"random": gpu_patch.RandomPatching, "stratified": gpu_patch.StratifiedPatching}
            placed = made[self.strategy](shapes, size, seed=1)
        if self.kind == "basic":
            return gpu_patch.BasicPatchConstr(placed, two, seed=3)
        if self.kind == "mixed":
            return gpu_patch.MultiChannelTargetMsPatchConstr(
                placed, two, self.n_scales, self.mode, [(0.2, 1)] * 2, 0.5, seed=3
            )
        one = opened(self.pixels(1, 9))  # images of another cache
        return gpu_patch.PairedInputTargetMsPatchConstr(
            placed, one, two, self.n_scales, self.mode, seed=3
        )

    def resident(self):
        axes = "SCYX" if self.n_dims == 2 else "SCZYX"

        def opened(pixels):
            return PatchExtractor([ImageStack.from_array(a, axes, device="cpu") for a in pixels])

        return self.constructor(opened)

    def paged(self):
        """What is opened anew, with memory for a share of the images, and for any patch."""
        share = self.share
        while True:
            found = Opened(self, share)
            if found.has_room:
                return found
            share *= 1.5


class Opened:
    """Images of a world that are read by page, and a constructor of them."""

    def __init__(self, world, share):
        self.world, self.pixels, self.images = world, {}, {}
        self.caches = []

        def opened(pixels):
            cache = PageCache(max(1, int(share * sum(array.nbytes for array in pixels))))
            self.caches.append(cache)
            stacks = []
            for array, chunk in zip(pixels, world.chunks, strict=True):
                stacks.append(ImageStack.by_chunk(FlakyReader(array, chunk), cache=cache))
                image = stacks[-1].data
                self.pixels[image.number], self.images[image.number] = array, image
            return PatchExtractor(stacks)

        self.constructor = world.constructor(opened)
        self.extractor = self.constructor.sampling.principal.extractor
        if world.reads != "in threads":
            for pool in self.pools:
                pool._reader = LazyReader(world.reads)

    @property
    def pools(self):
        return [cache.pool for cache in self.caches]

    @property
    def readers(self):
        return [image.reader for image in self.images.values()]

    @property
    def has_room(self):
        """Whether each patch, and each tile of a prediction, has room for what it reads."""
        for epoch in range(N_EPOCHS):
            for pool, (patch, page) in plan_epoch(self.constructor, epoch).needs.items():
                pairs = np.unique(np.stack([patch, page]), axis=1)
                if np.bincount(pairs[0]).max() > pool.n_slots:
                    return False
        tile = np.array(PATCH[self.world.n_dims])
        for pool in self.pools:
            for image in pool.paged.values():
                at_once = np.minimum(image.grid[2:], (tile - 2) // image.page_shape[2:] + 2)
                if prod(at_once) * image.grid[1] > pool.n_slots:
                    return False
        return True

    @cached_property
    def pages(self):
        """Every page: its pool, its image there, its number."""
        return [
            (pool, image, image.base + i)
            for pool in self.pools
            for image in pool.paged.values()
            for i in range(image.n_pages)
        ]

    def loader(self, batch_size, order, prefetch=0):
        return loader_of(self.constructor, batch_size, order, prefetch)


def loader_of(constructor, batch_size, order, prefetch=0):
    """A loader; "sequential" is an order too."""
    options = {"shuffle": False} if order == "sequential" else {"order": order}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "order=.sweep. has memory")
        return BatchLoader(constructor, batch_size, seed=SEED, prefetch=prefetch, **options)


def order_of(loader, epoch):
    """The patches of an epoch in the loader's order."""
    pages = plan_epoch(loader.constructor, epoch)
    return loader._sorting.order(SEED, epoch, loader._division(0), pages)


@st.composite
def worlds(draw):
    n_dims = draw(st.sampled_from([2, 3]))
    n_images = draw(st.integers(1, 3))
    longest = {2: (25, 22), 3: (6, 11, 10)}[n_dims]

    def lengths(least, most):
        return tuple(draw(st.integers(n, max(n, m))) for n, m in zip(least, most, strict=True))

    sizes = tuple(lengths(PATCH[n_dims], longest) for _ in range(n_images))
    chunks = tuple((1, 1, *lengths((2,) * n_dims, (4, 9, 7)[-n_dims:])) for _ in sizes)
    return World(
        dtype=draw(st.sampled_from(["uint8", "int16", "uint16", "float16", "float32", "bool"])),
        samples_of=tuple(draw(st.integers(1, 2)) for _ in sizes),
        sizes=sizes,
        chunks=chunks,
        kind=draw(st.sampled_from(["basic", "mixed", "paired"])),
        n_scales=draw(st.integers(1, 2)),
        mode=draw(st.sampled_from(PADDING_MODES)),
        strategy=draw(st.sampled_from(["stratified", "random", "sequential"])),
        share=draw(st.sampled_from([0.1, 0.3, 1.0])),
        reads=draw(st.sampled_from(["in threads", "when waited for", "at once", "copies"])),
    )

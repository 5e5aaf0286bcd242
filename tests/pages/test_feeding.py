"""Loaders over images that are read by page: the same batches as over resident ones."""

from __future__ import annotations

import itertools
import threading
import warnings

import numpy as np
import pytest
from chunk_readers import ArrayReader
from paged_world import plan_epoch
from pixels import DTYPES, distinct

import gpu_patch
from gpu_patch import geometry
from gpu_patch.chunks import image as chunk_image
from gpu_patch.feed import BatchLoader
from gpu_patch.feed.epoch_pages import fitted
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.pages import PageCache

SHAPES = {2: [(2, 90, 110), (1, 60, 130)], 3: [(1, 12, 40, 38), (2, 9, 31, 50)]}
PAGES = {2: (16, 24), 3: (4, 16, 12)}
PATCH = {2: (12, 16), 3: (3, 8, 6)}
MODES = geometry.PADDING_MODES
KINDS = ("basic", "with targets", "multi", "uncorrelated", "independent", "paired", "pred")


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(chunk_image, "_LEAST_BYTES", 0)


def arrays(n_channels, dtype="uint16", n_dims=2, seed=0):
    return [
        distinct((s, n_channels, *size), dtype, seed + i)
        for i, (s, *size) in enumerate(SHAPES[n_dims])
    ]


def paged(pixels, share=0.5, budget=None, reader=ArrayReader):
    """An extractor whose pages have memory for a share of the images."""
    n_dims = pixels[0].ndim - 2
    n_bytes = sum(array.nbytes for array in pixels)
    cache = PageCache(budget or max(1, int(share * n_bytes)))
    chunk = (1, 1, *PAGES[n_dims])
    return PatchExtractor([ImageStack.by_chunk(reader(a, chunk), cache=cache) for a in pixels])


def resident(pixels):
    axes = "SCYX" if pixels[0].ndim == 4 else "SCZYX"
    return PatchExtractor([ImageStack.from_array(a, axes, device="cpu") for a in pixels])


def constructor(kind, opened, n_dims=2, mode="reflect", n_scales=2, dtype="uint16", strategy=None):
    """A constructor; `opened` makes an extractor of arrays."""
    make = strategy or gpu_patch.StratifiedPatching

    def strategies(extractor, seed=0):
        return make(extractor.shapes, PATCH[n_dims], seed=seed)

    two, one = opened(arrays(2, dtype, n_dims)), opened(arrays(1, dtype, n_dims, 7))
    placed = strategies(two)
    if kind == "basic":
        return gpu_patch.BasicPatchConstr(placed, two, seed=3)
    if kind == "with targets":
        return gpu_patch.BasicPatchConstr(placed, one, two, seed=3)
    if kind in ("multi", "uncorrelated"):
        prob = 0.6 if kind == "uncorrelated" else 0.0
        ranges = [(0.2, 1)] * 2
        return gpu_patch.MultiChannelTargetMsPatchConstr(
            placed, two, n_scales, mode, ranges, prob, seed=3
        )
    if kind == "independent":
        other = opened(arrays(1, dtype, n_dims, 20)[::-1])
        return gpu_patch.IndependentTargetsMsPatchConstr(
            [strategies(one), strategies(other, 1)], [one, other], n_scales, mode, None, seed=3
        )
    if kind == "paired":
        return gpu_patch.PairedInputTargetMsPatchConstr(placed, one, two, n_scales, mode, seed=3)
    return gpu_patch.PredMsPatchConstr(strategies(one), one, n_scales, mode, seed=3)


def batches(loader):
    return [
        (b.input.tobytes(), None if b.target is None else b.target.tobytes(), list(b.specs))
        for b in loader
    ]


def swept(found, expected, **options):
    """What both give in the same order; only pages have the order "sweep"."""
    loader = BatchLoader(found, 8, order="sweep", **options)
    division = loader._division(0)
    for epoch in range(2):
        pages = loader_plan(found, epoch)
        order = loader._sorting.order(loader.seed, epoch, division, pages)
        assert sorted(order.tolist()) == list(range(found.n_patches))
        for step, batch in enumerate(loader):
            first, stop = division.part(step, loader.rank)
            own = expected.construct_batch(order[first:stop].tolist(), epoch=epoch)
            assert batch.input.tobytes() == own.input.tobytes()
            assert (batch.target is None) == (own.target is None)
            assert own.target is None or batch.target.tobytes() == own.target.tobytes()
            assert list(batch.specs) == list(own.specs)


def loader_plan(made, epoch):
    found = plan_epoch(made, epoch)
    assert found is not None
    return found


@pytest.mark.filterwarnings("ignore:order=.sweep. has memory")
@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_constructor_gives_the_same(kind, n_dims):
    for mode, n_scales in ((MODES[0], 1), (MODES[1], 2), (MODES[2], 2), (MODES[0], 3)):
        options = {"n_dims": n_dims, "mode": mode, "n_scales": n_scales}
        found = constructor(kind, paged, **options)
        swept(found, constructor(kind, resident, **options))


@pytest.mark.filterwarnings("ignore:order=.sweep. has memory")
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_stored_type_gives_the_same(dtype):
    swept(constructor("multi", paged, dtype=dtype), constructor("multi", resident, dtype=dtype))


@pytest.mark.filterwarnings("ignore:order=.sweep. has memory")
@pytest.mark.parametrize("strategy", [gpu_patch.RandomPatching, gpu_patch.SequentialPatching])
def test_other_strategies(strategy):
    def make(shapes, size, seed):
        return strategy(shapes, size, **{"seed": seed} if strategy.__name__[0] == "R" else {})

    found = constructor("multi", paged, strategy=make)
    swept(found, constructor("multi", resident, strategy=make))


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("order", ["shuffle", "by_image", "blocks"])
def test_other_orders_are_those_of_resident_images(order, prefetch):
    found = BatchLoader(constructor("multi", paged), 7, order=order, prefetch=prefetch)
    expected = BatchLoader(constructor("multi", resident), 7, order=order)
    for _ in range(2):
        assert batches(found) == batches(expected)


def test_resident_images_are_shuffled():
    made = constructor("basic", resident)
    assert batches(BatchLoader(made, 7, order="sweep")) == batches(BatchLoader(made, 7))


@pytest.mark.filterwarnings("ignore:order=.sweep. has memory")
def test_mixed_page_shapes_and_types():
    pixels = [distinct((1, 2, 90, 110), "uint8"), distinct((2, 2, 50, 70), "float32", 1)]
    cache = PageCache(40_000)
    chunks = [(1, 1, 16, 16), (2, 2, 9, 31)]
    mixed = PatchExtractor(
        [
            ImageStack.by_chunk(ArrayReader(a, c), cache=cache)
            for a, c in zip(pixels, chunks, strict=True)
        ]
    )

    def made(images):
        placed = gpu_patch.StratifiedPatching(images.shapes, (12, 16), seed=0)
        return gpu_patch.BasicPatchConstr(placed, images, seed=3)

    swept(made(mixed), made(resident(pixels)))
    assert cache.nbytes <= cache.budget


@pytest.mark.filterwarnings("ignore:order=.sweep. has memory")
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_each_step(world_size):
    def of(rank, size, n):
        return BatchLoader(
            constructor("basic", paged), n, order="sweep", rank=rank, world_size=size
        )

    def places(loader):
        return [sorted(map(str, batch.specs)) for batch in loader]

    alone = places(of(0, 1, 3 * world_size))
    ranks = [places(of(rank, world_size, 3)) for rank in range(world_size)]
    together = [sorted(itertools.chain(*each)) for each in zip(*ranks, strict=True)]
    assert together[:-2] == alone[: len(together) - 2]  # the last ones are divided evenly
    assert sorted(itertools.chain(*together)) == sorted(itertools.chain(*alone))


@pytest.mark.filterwarnings("ignore:order=.sweep. has memory")
def test_resuming():
    loader = BatchLoader(constructor("multi", paged), 6, order="sweep")
    whole = [batches(loader) for _ in range(2)]
    again = BatchLoader(constructor("multi", paged), 6, order="sweep")
    taken = list(itertools.islice(again, 5))
    state = again.state_dict()
    assert state["position"] == 6 * len(taken)
    last = BatchLoader(constructor("multi", paged), 6, order="sweep")
    last.load_state_dict(state)
    assert batches(last) == whole[0][5:]
    assert batches(last) == whole[1]
    other = constructor("multi", lambda pixels: paged(pixels, 0.3))
    with pytest.raises(ValueError, match=r"swept in another way.*memory_budget"):
        BatchLoader(other, 6, order="sweep").load_state_dict(state)


class Failing(ArrayReader):
    """Fails at chosen first reads of a region, and never twice there; or always in one place."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.n_reads, self.failing, self.bad = 0, set(), None
        self._failed = set()

    def read(self, region, out):
        self.n_reads += 1
        out[...] = 77
        place = str(region)
        # the second try of a region may have any of the numbers
        if self.n_reads in self.failing and place not in self._failed:
            self._failed.add(place)
            raise OSError("once")
        if self.bad is not None and region[2].start <= self.bad[0] < region[2].stop:
            raise OSError(f"image, chunk {self.bad}")
        super().read(region, out)


@pytest.mark.parametrize("order", ["shuffle", "blocks"])
def test_a_read_that_fails_once_is_repeated(order):
    found = constructor("basic", lambda pixels: paged(pixels, reader=Failing))
    for stack in found.input_extractor.image_stacks:
        stack.data.reader.failing = {2, 5, 9, 30}
    expected = BatchLoader(constructor("basic", resident), 7, order=order)
    assert batches(BatchLoader(found, 7, order=order)) == batches(expected)
    assert found.input_extractor.image_stacks[0].data.reader.n_reads > 30


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_names_what_failed_and_the_loader_goes_on(prefetch):
    found = constructor("basic", lambda pixels: paged(pixels, reader=Failing))
    reader = found.input_extractor.image_stacks[0].data.reader
    reader.bad = (40, 50)
    loader = BatchLoader(found, 7, prefetch=prefetch)
    for _ in range(2):
        with pytest.raises(OSError, match=r"image, chunk \(40, 50\)"):
            batches(loader)
    pool = found.input_extractor.cache.pool
    assert pool.pins.sum() == len(pool._readings)
    reader.bad = None
    loader.set_epoch(0)
    assert batches(loader) == batches(BatchLoader(constructor("basic", resident), 7))


def test_two_loaders_and_direct_calls_share_a_pool():
    images = paged(arrays(2), 0.4)
    placed = gpu_patch.StratifiedPatching(images.shapes, (12, 16), seed=0)

    def made(extractor, seed):
        return gpu_patch.MultiChannelTargetMsPatchConstr(
            placed, extractor, 2, "reflect", [(0.2, 1)] * 2, 0.0, seed=seed
        )

    expected, found, errors = {}, {}, []
    for seed in range(2):
        expected[seed] = batches(BatchLoader(made(resident(arrays(2)), seed), 5, seed=seed))

    def run(seed):
        try:
            found[seed] = batches(BatchLoader(made(images, seed), 5, seed=seed))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    whole = arrays(2)[0]
    for i in range(60):
        patch = images.extract_patch(0, i % 2, (i, i), (20, 20))
        np.testing.assert_array_equal(patch, whole[i % 2, :, i : i + 20, i : i + 20])
    for thread in threads:
        thread.join()
    assert not errors
    assert found == expected
    assert images.cache.nbytes <= images.cache.budget


def test_a_budget_too_small_for_a_patch_says_what_fits():
    images = paged(arrays(1), budget=2400)
    placed = gpu_patch.StratifiedPatching(images.shapes, (12, 16), seed=0)
    made = gpu_patch.PredMsPatchConstr(placed, images, 3, "reflect", seed=0)
    with pytest.raises(MemoryError, match=r"need \d+ chunks of 768 bytes, .* to at least \d+"):
        made.construct_batch([30])


def side_by_side(n_scales, share, side=1024, page=64):
    """A constructor of one large image, of which a share has room."""
    pixels = np.zeros((1, 1, side, side), np.uint8)
    stack = ImageStack.by_chunk(
        ArrayReader(pixels, (1, 1, page, page)), cache=PageCache(int(share * pixels.nbytes))
    )
    extractor = PatchExtractor([stack])
    made = gpu_patch.StratifiedPatching(extractor.shapes, (16, 16), seed=0)
    return gpu_patch.PredMsPatchConstr(made, extractor, n_scales, "reflect", seed=0)


@pytest.mark.parametrize(("n_scales", "least"), [(1, 4), (2, 4), (3, 4)])
def test_a_quarter_of_the_memory_reads_each_page_little_more_than_once(n_scales, least):
    made = side_by_side(n_scales, 0.25)
    assert fitted(made).n_strips >= least
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = BatchLoader(made, 32, order="sweep", prefetch=0)
    for batch in loader:
        del batch
    cache = made.input_extractor.cache
    assert cache.traffic.bytes_moved <= 1.15 * 1024**2
    assert cache.traffic.misses >= 256


def test_too_few_strips_are_said():
    with pytest.warns(UserWarning, match=r"memory for 2 strips of .* Raise memory_budget"):
        BatchLoader(side_by_side(2, 0.1), 32, order="sweep")


def test_everything_in_memory_is_a_shuffle():
    made = side_by_side(1, 1.0, side=256)
    loader = BatchLoader(made, 32, order="sweep")
    order = loader._sorting.order(0, 0, loader._division(0), loader_plan(made, 0))
    expected = BatchLoader(made, 32)._sorting.order(0, 0, loader._division(0), None)
    assert order.tolist() == expected.tolist()


def test_a_batch_mixes_regions_as_a_shuffle_does():
    made = side_by_side(1, 0.25)
    loader = BatchLoader(made, 32, order="sweep")
    rows = [np.array([spec["coords"] for spec in batch.specs]) // 128 for batch in loader]
    regions = np.mean([len({tuple(r) for r in each.tolist()}) for each in rows])
    assert regions > 14  # of 64; a shuffle has 25, boxes have 8

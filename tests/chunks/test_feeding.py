"""Loaders of chunked images: the same batches, errors, orders that keep to blocks."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from chunk_readers import ArrayReader, chunked_extractor
from pixels import distinct
from reference import on_host

import gpu_patch
from gpu_patch.feed import BatchLoader
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.pages import PageCache
from gpu_patch.pages.pool import UNPLANNED

PAGES = "gpu_patch_pages"
SHAPES = [(2, 2, 90, 110), (1, 2, 60, 130)]


def images():
    return [distinct(shape, "uint16", i) for i, shape in enumerate(SHAPES)]


def large():
    return PageCache(10**9, "cpu")


def constructor(extractor, n_scales=2, strategy=gpu_patch.StratifiedPatching):
    made = strategy(extractor.shapes, (16, 16))
    return gpu_patch.MultiChannelTargetMsPatchConstr(
        made, extractor, n_scales, "reflect", [(0, 1), (0, 1)], 0.0, seed=4
    )


def resident():
    return PatchExtractor([ImageStack.from_array(a, "SCYX", device="cpu") for a in images()])


def nothing_is_held(pool):
    """Whether only reads that go on have pages pinned, and nothing is expected to be needed."""
    planned = pool.next_use[pool.table[pool.table >= 0]] < UNPLANNED // 2
    return pool.pins.sum() == len(pool._readings) and not planned.any()


def contents(loader):
    return [
        (on_host(batch.input).tobytes(), on_host(batch.target).tobytes(), list(batch.specs))
        for batch in loader
    ]


@pytest.mark.parametrize(
    ("order", "prefetch"), [("shuffle", 0), ("shuffle", 3), ("by_image", 1), ("blocks", 3)]
)
def test_loaders_give_the_same(order, prefetch, device):
    cache = PageCache(100_000, device)
    chunked = constructor(chunked_extractor(images(), cache=cache, chunk_shape=(1, 1, 16, 16)))
    whole = PatchExtractor([ImageStack.from_array(a, "SCYX", device=device) for a in images()])
    options = {"batch_size": 7, "order": order, "prefetch": prefetch}
    found = BatchLoader(chunked, **options)
    expected = BatchLoader(constructor(whole), **options)
    for _ in range(2):
        assert contents(found) == contents(expected)
    assert cache.nbytes <= 100_000
    assert cache.traffic.misses


def test_an_iteration_left_early_expects_nothing():
    extractor = chunked_extractor(images(), cache=large(), chunk_shape=(1, 1, 16, 16))
    batches = iter(BatchLoader(constructor(extractor), 4))
    for _ in itertools.islice(batches, 3):
        pass
    batches.close()
    # nothing makes batches; the threads that read stay with the images
    assert {t.name[:15] for t in threading.enumerate() if "gpu_patch" in t.name} <= {PAGES}
    assert nothing_is_held(extractor.cache.pool)


def test_errors_of_readers_come_with_the_batch():
    extractor = chunked_extractor(images(), cache=large(), chunk_shape=(1, 1, 16, 16))
    loader = BatchLoader(constructor(extractor), 4, prefetch=2)
    extractor.image_stacks[1].data.reader.fail_at = 3
    with pytest.raises(OSError, match="the disk is on fire"):
        list(loader)
    assert nothing_is_held(extractor.cache.pool)
    extractor.image_stacks[1].data.reader.fail_at = None
    assert contents(loader) == contents(BatchLoader(constructor(resident()), 4))


def hit_rate(strategy, order, share=0.25, n_scales=2, **options):
    """Of one epoch of an image cut into 1024 chunks, of which a share has room."""
    side, chunk = 1024, 32
    pixels = np.zeros((1, 1, side, side), np.uint8)
    cache = PageCache(int(share * pixels.nbytes), "cpu")
    stack = ImageStack.by_chunk(ArrayReader(pixels, (1, 1, chunk, chunk)), cache=cache)
    extractor = PatchExtractor([stack])
    made = strategy(extractor.shapes, (8, 8))
    read = gpu_patch.PredMsPatchConstr(made, extractor, n_scales, "reflect", seed=0)
    for _ in BatchLoader(read, 64, order=order, prefetch=0, **options):
        pass
    return cache.traffic.hit_rate


def test_four_times_the_budget_at_nine_hits_of_ten():
    assert hit_rate(gpu_patch.StratifiedPatching, "blocks") > 0.9
    assert hit_rate(gpu_patch.SequentialPatching, "blocks") > 0.9
    assert hit_rate(gpu_patch.StratifiedPatching, "shuffle") < 0.5


def test_a_smaller_window_for_a_smaller_budget():
    made = gpu_patch.StratifiedPatching
    assert hit_rate(made, "blocks", 0.1, window=0.05) > hit_rate(made, "blocks", 0.1) + 0.05


@pytest.mark.parametrize("budget", [9000, 20_000])
def test_batches_larger_than_the_budget_are_cut_in_parts(budget, device):
    chunked = constructor(chunked_extractor(images(), budget, device, chunk_shape=(1, 1, 9, 16)))
    batch = chunked.construct_batch(range(40))
    expected = constructor(resident()).construct_batch(range(40))
    np.testing.assert_array_equal(on_host(batch.target), expected.target)
    np.testing.assert_array_equal(on_host(batch.input)[:, 0], expected.input[:, 0])
    cache = chunked.target_extractor.image_stacks[0].data.cache
    assert cache.nbytes <= budget
    assert cache.traffic.misses > cache.budget // 288

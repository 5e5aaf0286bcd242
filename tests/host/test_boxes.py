"""Boxes of pages under windows: compiled functions find NumPy's, and none that nobody holds."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
from chunk_readers import ArrayReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_patch._host import library
from gpu_patch._host.records import HostRecords
from gpu_patch.chunks import ChunkedImage
from gpu_patch.ops.paged_set import PagedSet
from gpu_patch.pages import PageCache
from gpu_patch.pages.slot_table import SlotTable
from gpu_patch.records import NUMPY_RECORDS, Windows
from gpu_patch.sources import ChannelSources

MODES = ["zero", "reflect", "wrap", "periodic"]


def paged_images(shapes, pages, budgets):
    """Images whose pages have these shapes, each in a pool of its own where there are budgets."""
    caches = [PageCache(budget) for budget in budgets]
    images = []
    for i, (shape, page) in enumerate(zip(shapes, pages, strict=True)):
        cache = caches[i % len(caches)]
        images.append(ChunkedImage(ArrayReader(np.zeros(shape, "uint8"), page), cache))
        images[-1].chunk_shape = tuple(map(min, page, shape))
    return PagedSet(images)


@given(data=st.data())
# `compiled` is the same for all examples
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_same_as_numpys(compiled, data):
    draw = data.draw
    n_dims = draw(st.integers(2, 3))
    n_images = draw(st.integers(1, 3))

    def lengths(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=n_dims, max_size=n_dims)))

    shapes = [(draw(st.integers(3, 4)), 3, *lengths(3, 30)) for _ in range(n_images)]
    chunks = [(draw(st.integers(1, 2)), draw(st.integers(1, 3)), *lengths(2, 9)) for _ in shapes]
    patch, n_scales = lengths(1, 6), draw(st.integers(1, 3))
    mode, n_places = draw(st.sampled_from(MODES)), draw(st.sampled_from([1, 3]))
    outside = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pages = paged_images(shapes, chunks, draw(st.sampled_from([[10**6], [10**6, 10**6]])))
    image_idx = rng.integers(0, n_images, (4, n_places))
    # as far outside as patches may lie: some of the context is of the image
    sizes = np.array([shape[2:] for shape in shapes])[image_idx]
    half = np.array(patch) // 2
    coords = rng.integers(-half, sizes - half)
    if not outside:
        coords = np.clip(coords, 0, sizes - 1)
    samples = rng.integers(0, 3, (4, n_places))
    sources = ChannelSources(image_idx, samples, coords, np.array([0, 2, 1]))
    scale = draw(st.integers(0, n_scales - 1))
    images = pages.images()
    with ExitStack() as stack:
        for pool, (_, page) in pages.pages(sources, patch, scale, n_scales, mode).items():
            stack.enter_context(pool.hold(rng.permutation(np.unique(page))))
        rows = draw(st.sampled_from([None, np.array([3, 1])]))
        table = SlotTable(library.HOST, images)
        windows = Windows(table, sources, patch, n_scales, mode, rows=rows)
        boxes, slots = NUMPY_RECORDS.pages(windows, scale)
        own_boxes, own_slots = HostRecords(compiled).pages(windows, scale)
    assert own_boxes.tobytes() == boxes.tobytes()
    # of what is not read NumPy may look up anything
    read = np.broadcast_to(True, slots.shape) if mode == "periodic" else slots >= 0
    assert own_slots.shape == slots.shape
    np.testing.assert_array_equal(own_slots[read], slots[read])


@pytest.mark.parametrize("n_pools", [1, 2])
def test_a_page_that_nobody_holds_is_an_error(compiled, n_pools):
    pages = paged_images([(1, 1, 12, 12)] * 2, [(1, 1, 4, 4)] * 2, [10**6] * n_pools)
    images = pages.images()
    sources = ChannelSources(
        np.array([[0], [1]]), np.zeros((2, 1), int), np.array([[[0, 2]], [[5, 5]]]), np.array([0])
    )
    windows = Windows(SlotTable(library.HOST, images), sources, (4, 4), 0, "zero")
    needed = pages.pages(sources, (4, 4), 0, 0, "zero")
    for left_out in (None, *range(6)):
        with ExitStack() as stack:
            for pool, (_, page) in needed.items():
                every = np.unique(page)
                with pool.hold(every):  # there, but let go again
                    pass
                is_second = pool is not pages.pools()[0]
                kept = every + 100 * is_second != _nth(needed, pages, left_out)
                stack.enter_context(pool.hold(every[kept]))
            records = HostRecords(compiled)
            if left_out is None:
                records.pages(windows, 0)
                continue
            with pytest.raises(RuntimeError, match="nobody holds"):
                records.pages(windows, 0)


def _nth(needed, pages, n):
    """Which page is left out: its number, and 100 more in the second pool."""
    if n is None:
        return -1
    every = [
        page + 100 * (pool is not pages.pools()[0])
        for pool, (_, own) in needed.items()
        for page in np.unique(own).tolist()
    ]
    return every[n]


def test_more_pages_than_there_is_room_for_at_first(compiled):
    pages = paged_images([(1, 1, 40, 40)], [(1, 1, 2, 2)], [10**6])
    sources = ChannelSources(
        np.zeros((3, 1), int), np.zeros((3, 1), int), np.array([[[0, 0]], [[7, 3]], [[9, 9]]]),
        np.array([0]),
    )  # fmt: skip
    with ExitStack() as stack:
        for pool, (_, page) in pages.pages(sources, (30, 30), 0, 0, "zero").items():
            stack.enter_context(pool.hold(np.unique(page)))
        windows = Windows(SlotTable(library.HOST, pages.images()), sources, (30, 30), 0, "zero")
        boxes, slots = NUMPY_RECORDS.pages(windows, 0)
        own_boxes, own_slots = HostRecords(compiled).pages(windows, 0)
    assert slots.shape[-1] == 16 * 16
    assert own_boxes.tobytes() == boxes.tobytes()
    np.testing.assert_array_equal(own_slots, slots)


def test_of_a_window_that_misses_the_image_nothing_need_be_held(compiled):
    pages = paged_images([(1, 1, 12, 12)], [(1, 1, 4, 4)], [10**6])
    for at in ([-9, 3], [3, 12], [-4, -4], [40, 0]):
        sources = ChannelSources(
            np.zeros((1, 1), int), np.zeros((1, 1), int), np.array([[at]]), np.array([0])
        )
        needed = pages.pages(sources, (4, 4), 0, 0, "zero")
        assert not any(page.size for _, page in needed.values())
        windows = Windows(SlotTable(library.HOST, pages.images()), sources, (4, 4), 0, "zero")
        boxes, _ = NUMPY_RECORDS.pages(windows, 0)
        own_boxes, own_slots = HostRecords(compiled).pages(windows, 0)
        assert own_boxes.tobytes() == boxes.tobytes()
        assert (own_slots == -1).all()

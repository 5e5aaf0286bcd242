"""Images by chunk: what is kept at a time, and for how long."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from chunk_readers import ArrayReader
from pixels import distinct

from gpu_patch.chunks import ChunkedImage
from gpu_patch.chunks.image import kept_chunk_shape
from gpu_patch.pages import PageCache


def test_small_chunks_are_kept_several_at_a_time(monkeypatch):
    monkeypatch.undo()
    # strips of a TIFF, tiles, volumes of planes, large tiles, a small image
    assert kept_chunk_shape((1, 2, 4000, 4000), (1, 1, 8, 4000), 2) == (1, 1, 32, 4000)
    assert kept_chunk_shape((1, 2, 4000, 4000), (1, 2, 64, 64), 1) == (1, 2, 256, 256)
    assert kept_chunk_shape((1, 1, 90, 128, 128), (1, 1, 1, 128, 128), 2) == (1, 1, 4, 128, 128)
    assert kept_chunk_shape((9, 1, 4000, 4000), (1, 1, 999, 999), 2) == (1, 1, 999, 999)
    assert kept_chunk_shape((9, 1, 20, 30), (1, 1, 6, 7), 2) == (1, 1, 20, 30)
    assert kept_chunk_shape((1, 1, 20, 30), (5, 5, 60, 70), 2) == (1, 1, 20, 30)
    with pytest.raises(ValueError, match="chunk_shape must have 4 lengths of at least 1"):
        kept_chunk_shape((1, 1, 20, 30), (1, 20, 30), 2)


def image_of(n_pages, budget, device="cpu"):
    """An image of pages of 100 bytes in a row."""
    pixels = distinct((1, 1, 10, 10 * n_pages), "uint8")
    return ChunkedImage(ArrayReader(pixels, (1, 1, 10, 10)), PageCache(budget, device))


def ask(image, *pages):
    with image.cache.pool.hold(np.array(pages)):
        pass


def test_what_went_through():
    image = image_of(8, 208)  # two slots, each of 104 bytes
    image.reader.seconds = 0.05  # a wait is one that something is left of
    for pages in ((0, 1), (0, 1), (1, 2), (1, 2), (0,)):
        ask(image, *pages)
    traffic = image.cache.traffic
    assert (traffic.hits, traffic.misses, traffic.hit_rate) == (5, 4, 5 / 9)
    assert (traffic.bytes_moved, traffic.waits) == (400, 3)
    assert 0 < traffic.waited_s <= traffic.elapsed_s
    assert str(traffic).startswith("5 hits, 4 misses (55.6% hits), 0.0 MB moved, 3 waits of ")
    assert image.nbytes == image.cache.nbytes == 200
    assert image.total_bytes == 800
    assert PageCache(1).traffic.hit_rate == 1


@pytest.mark.parametrize(
    ("budget", "error"), [(0, ValueError), (1.5, ValueError), ("1", TypeError)]
)
def test_wrong_budgets(budget, error):
    with pytest.raises(error, match="budget must be a whole number of at least 1"):
        PageCache(budget)


def test_images_do_not_outlive_their_use(device):
    image = image_of(8, 10**6, device)
    ask(image, *range(8))
    cache, alive = image.cache, weakref.ref(image)
    assert cache.nbytes == 800
    del image
    gc.collect()  # a reader's thread lets go of it a moment after it has read
    assert alive() is None
    alive = weakref.ref(cache)
    del cache
    assert alive() is None

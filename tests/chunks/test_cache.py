"""What stays in a cache, what goes, and what is counted; errors and threads."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import pytest
from chunk_readers import ArrayReader
from pixels import distinct

from gpu_patch.chunks import ChunkCache, ChunkedImage
from gpu_patch.chunks.image import ChunkKey, kept_chunk_shape


def image_of(n_chunks=8, budget=10**9, cache=None, device="cpu", **options):
    """An image of chunks of 100 bytes in a row, and its keys."""
    reader = ArrayReader(distinct((1, 1, 10, 10 * n_chunks), "uint8"), (1, 1, 10, 10), **options)
    image = ChunkedImage(reader, cache or ChunkCache(budget, device))
    return image, [ChunkKey(image, (0, 0, 0, i)) for i in range(n_chunks)]


def ask(image, keys):
    with image.cache.hold(keys) as chunks:
        assert list(chunks)
        assert set(chunks) == set(keys)
        for key, array in chunks.items():
            expected = image.reader.array[image.region(key.place)]
            np.testing.assert_array_equal(array if isinstance(array, np.ndarray) else array.get(),
                                          expected)  # fmt: skip


def numbers(cache):
    return [place[3] for _, place in cache._chunks]


def test_the_least_recently_used_goes_first(device):
    image, keys = image_of(budget=350, device=device)
    for i in (0, 1, 2, 0, 3):
        ask(image, [keys[i]])
    assert numbers(image.cache) == [2, 0, 3]
    ask(image, [keys[4], keys[2]])
    assert numbers(image.cache) == [3, 2, 4]
    assert image.cache.nbytes == image.nbytes == 300
    assert image.total_bytes == 800


def test_counters():
    image, keys = image_of(budget=250, seconds=0.002)
    for part in (keys[:2], keys[:2], keys[1:3], keys[1:3], keys[:1]):
        ask(image, part)
    traffic = image.cache.traffic
    assert (traffic.hits, traffic.misses) == (5, 4)
    assert traffic.bytes_moved == 400
    assert traffic.waits == 3
    assert traffic.waited_s >= 0.008
    assert traffic.hit_rate == 5 / 9
    assert str(traffic).startswith("5 hits, 4 misses (55.6% hits), 0.0 MB moved, 3 waits of 0.0")
    assert ChunkCache(1, "cpu").traffic.hit_rate == 1


def test_a_batch_larger_than_the_budget():
    image, keys = image_of(budget=250)
    ask(image, keys[:2])
    with pytest.raises(MemoryError, match=r"need 3 chunks, 300 bytes together, .* 250 bytes"):
        ask(image, keys[3:6])
    assert numbers(image.cache) == [0, 1]
    assert len(image.reader.regions) == 2


@pytest.mark.parametrize(
    ("budget", "error"), [(0, ValueError), (1.5, ValueError), ("1", TypeError)]
)
def test_wrong_budgets(budget, error):
    with pytest.raises(error, match="budget must be a whole number of at least 1"):
        ChunkCache(budget, "cpu")


def test_an_error_in_the_middle_leaves_what_was_read(device):
    image, keys = image_of(budget=400, device=device)
    ask(image, keys[:1])
    image.reader.fail_at = 2
    with pytest.raises(OSError, match="the disk is on fire"):
        ask(image, keys[:4])
    assert numbers(image.cache) == [0, 1]
    assert image.cache.nbytes == 200
    image.reader.fail_at = None
    ask(image, keys[:4])
    assert numbers(image.cache) == [0, 1, 2, 3]
    # nothing is in use any more: everything can go
    ask(image, keys[4:])
    ask(image, keys[:4])
    assert numbers(image.cache) == [0, 1, 2, 3]


def test_reading_ahead_drops_nothing_that_is_expected():
    image, keys = image_of(budget=300)
    cache = image.cache
    ask(image, keys[:2])
    cache.announce(keys[1:3])
    cache.fetch(keys[1:3])
    assert numbers(cache) == [0, 1, 2]
    cache.announce(keys[3:6])
    cache.fetch(keys[3:6])  # room for one, in place of the first
    assert numbers(cache) == [1, 2, 3]
    before = cache.traffic
    ask(image, keys[1:3])
    cache.release(keys[1:3])
    assert cache.traffic.waits == before.waits
    # what had to be read for a batch is a miss, also where that was ahead of time
    assert (cache.traffic.hits, cache.traffic.misses) == (before.hits + 1, before.misses + 1)
    cache.fetch(keys[3:6])
    assert numbers(cache) == [3, 4, 5]


def test_a_batch_drops_the_expected_last():
    image, keys = image_of(budget=300)
    ask(image, keys[:3])
    image.cache.announce(keys[:1])
    ask(image, keys[3:5])
    assert numbers(image.cache) == [0, 3, 4]
    ask(image, keys[5:8])
    assert numbers(image.cache) == [5, 6, 7]


def test_only_what_is_expected_is_read_ahead():
    image, keys = image_of()
    image.cache.announce(keys[:2])
    image.cache.release(keys[:2])
    image.cache.fetch(keys[:2])
    assert numbers(image.cache) == []


def test_errors_of_reading_ahead_come_when_a_batch_asks():
    image, keys = image_of()
    image.reader.fail_at = 1
    image.cache.announce(keys[:3])
    image.cache.fetch(keys[:3])
    assert numbers(image.cache) == [0]
    assert image.cache.nbytes == 100
    with pytest.raises(OSError, match="the disk is on fire"):
        ask(image, keys[:3])


def test_threads(device):
    """More of them than the budget has room for at once; each chunk is read by one at a time."""
    image, keys = image_of(16, budget=700, device=device, seconds=0.0005)
    errors = []

    def work(seed):
        rng = np.random.default_rng(seed)
        try:
            for _ in range(25):
                chosen = rng.choice(16, rng.integers(1, 5), replace=False)
                ask(image, [keys[i] for i in chosen.tolist()])
                assert image.cache.nbytes <= 700
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []
    assert image.cache.nbytes == 100 * len(numbers(image.cache)) <= 700
    assert image.cache.traffic.misses * 100 == image.cache.traffic.bytes_moved


def test_a_chunk_is_read_once_for_two_threads():
    image, keys = image_of(seconds=0.05)
    threads = [threading.Thread(target=ask, args=(image, keys[:2])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(image.reader.regions) == 2
    assert image.cache.traffic.waits == 3


def test_images_do_not_outlive_their_use(device):
    image, keys = image_of(device=device)
    ask(image, keys)
    cache, alive = image.cache, weakref.ref(image)
    del image, keys
    assert alive() is None
    assert cache.nbytes == 800
    alive = weakref.ref(cache)
    del cache
    assert alive() is None


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

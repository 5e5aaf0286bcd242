"""Pages on CUDA devices: launches, copies, streams, memory."""

from __future__ import annotations

import numpy as np
import pytest
from chunk_readers import chunked_extractor
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from pixels import distinct

import gpu_patch
from gpu_patch.chunks import image as chunk_image
from gpu_patch.feed import BatchLoader
from gpu_patch.pages import PageCache

pytestmark = pytest.mark.skipif(not available(), reason="needs a C++ compiler")

PAGE_BYTES = 3 * 16 * 16 * 2
"""Of all channels."""


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(chunk_image, "_LEAST_BYTES", 0)


def arrays():
    return [distinct((2, 3, 60, 70), "uint16"), distinct((1, 3, 50, 90), "uint16")]


def paged(n_pages=1000, device="cuda"):
    cache = PageCache(n_pages * PAGE_BYTES, device)
    return chunked_extractor(arrays(), cache=cache, chunk_shape=(1, 3, 16, 16))


def constructor(extractor):
    strategy = gpu_patch.StratifiedPatching(extractor.shapes, (8, 8))
    return gpu_patch.BasicPatchConstr(strategy, extractor, seed=1)


def on_host():
    images = [gpu_patch.ImageStack.from_array(a, "SCYX", device="cpu") for a in arrays()]
    return constructor(gpu_patch.PatchExtractor(images))


def test_one_launch_and_no_waiting_for_the_device():
    with fake_cupy.installed():
        made = constructor(paged())
        made.construct_batch(range(made.n_patches))
        gpu.log.clear()
        batch = made.construct_batch(range(5))
        assert [action.what for action in gpu.log if action.kind == "launch"] == ["gather"]
        assert gpu.count("upload") == 1  # its table: all pages are there
        assert gpu.count("synchronize") == gpu.count("download") == 0
        assert batch.input.shape[0] == 5


def test_pages_are_copied_on_a_stream_of_their_own_and_waited_for_on_the_device():
    with fake_cupy.installed() as cupy:
        made = constructor(paged())
        gpu.log.clear()
        with cupy.cuda.Stream(non_blocking=True) as own:
            made.construct_batch(range(5))
            copies = {a.stream for a in gpu.log if a.kind == "upload" and a.stream != own.ptr}
            waits = [a for a in gpu.log if a.kind == "wait_event" and a.stream == own.ptr]
            assert len(copies) == 1
            assert {wait.what.place[0].ptr for wait in waits} == copies


def test_a_slot_is_filled_behind_all_who_read_it():
    """Poison and the order of streams would show in the pixels."""
    with fake_cupy.installed() as cupy:
        extractor = paged(25)
        made, plain = constructor(extractor), on_host()
        batches = []
        for first in range(0, made.n_patches - 6, 6):
            with cupy.cuda.Stream(non_blocking=True):
                batches.append(made.construct_batch(range(first, first + 6)))
        assert extractor.cache.traffic.misses > 60
        gpu.finish()
        for first, batch in zip(range(0, made.n_patches - 6, 6), batches, strict=True):
            expected = plain.construct_batch(range(first, first + 6))
            np.testing.assert_array_equal(batch.input.get(), expected.input)


def test_reading_does_not_wait_for_the_model():
    """A slot is free behind the batches that read it, not behind what came later."""
    with fake_cupy.installed() as cupy:
        extractor = paged(25)
        made = constructor(extractor)
        main, batch_made = cupy.cuda.get_current_stream(), []
        for first in range(0, made.n_patches - 6, 6):
            made.construct_batch(range(first, first + 6))
            batch_made.append(main.submitted)
            for _ in range(30):
                main.submit(lambda: None)  # a model's kernels
        assert extractor.cache.traffic.misses > 60
        (copies,) = {a.stream for a in gpu.log if a.kind == "upload"} - {main.ptr}
        (stream,) = (s for s in gpu.streams if s.ptr == copies)
        stream.run()  # all that was copied for the last batch, and may be before it is made
        assert main.completed <= batch_made[-2], "a model was waited for"


@pytest.mark.parametrize("order", ["shuffle", "sweep", "blocks"])
def test_loaders_give_the_same(order):
    expected = BatchLoader(constructor(paged(25, "cpu")), 7, order=order)
    with fake_cupy.installed():
        extractor = paged(25)
        found = BatchLoader(constructor(extractor), 7, order=order)
        for _ in range(2):
            for batch, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(batch.input.get(), other.input)
                assert list(batch.specs) == list(other.specs)
        assert extractor.cache.traffic.misses > 60


def test_batches_larger_than_the_slots_are_cut_in_parts():
    with fake_cupy.installed():
        made = constructor(paged(5))
        indices = range(0, made.n_patches, 9)
        found = made.construct_batch(indices).input.get()
        launches = [action.what for action in gpu.log if action.kind == "launch"]
    assert len(launches) > 2
    np.testing.assert_array_equal(found, on_host().construct_batch(indices).input)


def test_the_device_has_no_room():
    with fake_cupy.installed():
        extractor = paged()
        made = constructor(extractor)
        gpu.capacity = 4000
        with pytest.raises(MemoryError, match=r"cuda:0 has no room for .* of pages of images"):
            made.construct_batch(range(5))
        gpu.capacity = 1 << 30
        made.construct_batch(range(5))
        gpu.capacity = gpu.used_bytes() + 300
        with pytest.raises(MemoryError, match=r"cuda:0 has no room for .* of patches"):
            made.construct_batch(range(5))
        gpu.capacity = 1 << 30
        made.construct_batch(range(5))


def test_a_read_that_fails_leaves_nothing():
    with fake_cupy.installed():
        extractor = paged()
        made = constructor(extractor)
        reader = extractor.image_stacks[0].data.reader
        reader.fail_at = 3
        with pytest.raises(OSError, match="the disk is on fire"):
            made.construct_batch(range(12))
        reader.fail_at = None
        found = made.construct_batch(range(12)).input.get()
    np.testing.assert_array_equal(found, on_host().construct_batch(range(12)).input)


def test_pinned_memory_is_used_again():
    with fake_cupy.installed():
        made = constructor(paged(25))
        for first in range(0, made.n_patches - 6, 6):
            made.construct_batch(range(first, first + 6))
            gpu.finish()
        pinned = [action.what for action in gpu.log if action.kind == "pin"]
        assert len(pinned) < 40

"""Chunks on CUDA devices: the kernel that assembles them, launches, streams, memory."""

from __future__ import annotations

import numpy as np
import pytest
from cases import DTYPES, MODES, Case
from chunk_readers import ArrayReader, assembled, chunked_extractor
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import EmulatedRuntime, available
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels import distinct

import gpu_patch
from gpu_patch._cuda.assemble import copy_records
from gpu_patch.chunks import ChunkCache, ChunkedImage
from gpu_patch.chunks.image import ChunkKey
from gpu_patch.chunks.windows import ChunkCopy, ChunkStretch
from gpu_patch.device import SideStream
from gpu_patch.table import ImageTable

pytestmark = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


@given(
    seed=st.integers(0, 2**32),
    mode=st.sampled_from(("zero", *MODES)),
    patch=st.sampled_from([(11, 45), (1, 2), (3, 4, 7)]),
    places=st.sampled_from([1, 3]),
    most=st.sampled_from([5, 60]),
    order=st.integers(0, 5),
)
@settings(max_examples=60)
def test_the_kernel_equals_numpy(seed, mode, patch, places, most, order):
    case = Case.random(
        seed, patch, 2, "reflect", n_channels=3, n_places=places, dtypes=DTYPES, most=most
    )
    for found, expected in zip(*assembled(EmulatedRuntime(order), case, mode), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_image_of_many_blocks_and_gaps():
    case = Case.random(1, (40, 70), 3, "reflect", n_samples=9, least=300, most=400, dtypes=DTYPES)
    for found, expected in zip(*assembled(EmulatedRuntime(), case, "zero"), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("at", "first", "step"), [(5, 0, 1), (-1, 0, 1), (0, 8, 1), (0, -1, 1), (0, 2, -1), (0, 10, -1)]
)
def test_boxes_that_leave_their_arrays(at, first, step):
    array = np.zeros((1, 1, 9, 10), np.uint8)
    image = ChunkedImage(ArrayReader(array, array.shape), ChunkCache(1000, "cpu"))
    key = ChunkKey(image, (0, 0, 0, 0))
    whole = [ChunkStretch.make(0, 1, 0), ChunkStretch.make(0, 9, 0)]

    def records(piece):
        copies = [ChunkCopy(0, 0, key, 0, (*whole, piece))]
        return copy_records(EmulatedRuntime(), copies, {key: array}, [np.zeros((1, 1, 9, 8))])

    assert len(records(ChunkStretch.make(0, 4, 0, 3, -1))) == 1
    with pytest.raises(IndexError, match="leaves its chunk, or its cut of the shape"):
        records(ChunkStretch.make(at, 4, 0, first, step))


def test_what_was_cut_decides_about_the_kernel():
    whole = [np.zeros((1, 1, 90, 80), kind) for kind in ("uint8", "int16")]
    cut = np.zeros((4, 1, 9, 9), np.int16)
    assert ImageTable(EmulatedRuntime(), [cut]).pixel_types == {4}
    table = ImageTable(EmulatedRuntime(), [cut], whole)
    assert table.pixel_types == {1, 4}
    assert table.most_pixels == 7200
    assert table.least_side == 9


def chunked(**options):
    arrays = [distinct((2, 3, 60, 70), "uint16"), distinct((1, 3, 50, 90), "uint16")]
    options = {"cache": ChunkCache(10**9, "cuda")} | options
    return chunked_extractor(arrays, device="cuda", chunk_shape=(1, 1, 16, 16), **options)


def constructor(extractor):
    strategy = gpu_patch.StratifiedPatching(extractor.shapes, (8, 8))
    return gpu_patch.BasicPatchConstr(strategy, extractor, seed=1)


def test_two_launches_and_no_waiting_for_the_device():
    with fake_cupy.installed():
        made = constructor(chunked())
        made.construct_batch(range(made.n_patches))
        gpu.log.clear()
        batch = made.construct_batch(range(5))
        launches = [action.what for action in gpu.log if action.kind == "launch"]
        assert launches == ["assemble", "gather"]
        assert gpu.count("upload") == 2  # their tables: all chunks are there
        assert gpu.count("synchronize") == gpu.count("download") == 0
        assert batch.input.shape[0] == 5


def test_chunks_are_copied_on_a_stream_of_their_own_and_waited_for_on_the_device():
    with fake_cupy.installed() as cupy:
        made = constructor(chunked())
        gpu.log.clear()
        with cupy.cuda.Stream(non_blocking=True) as own:
            made.construct_batch(range(5))
            chunk_uploads = {
                a.stream for a in gpu.log if a.kind == "upload" and a.what <= 16 * 16 * 2
            }
            (copies,) = chunk_uploads - {own.ptr}
            waits = [a for a in gpu.log if a.kind == "wait_event" and a.stream == own.ptr]
            assert [wait.what.place[0].ptr for wait in waits] == [copies]


def test_memory_of_chunks_waits_for_who_reads_them():
    """Poison and the order of streams would show in the pixels."""
    with fake_cupy.installed() as cupy:
        cache = ChunkCache(60 * 16 * 16 * 2, "cuda")
        made = constructor(chunked(cache=cache))
        plain = constructor_on_host()
        batches = []
        for first in range(0, made.n_patches - 6, 6):
            with cupy.cuda.Stream(non_blocking=True):
                batches.append(made.construct_batch(range(first, first + 6)))
        assert cache.traffic.misses > 60
        gpu.finish()
        for first, batch in zip(range(0, made.n_patches - 6, 6), batches, strict=True):
            expected = plain.construct_batch(range(first, first + 6))
            np.testing.assert_array_equal(batch.input.get(), expected.input)


def test_reading_ahead_does_not_wait_for_the_model():
    """Memory of chunks is free behind the batches that read them, not behind what came later."""
    with fake_cupy.installed() as cupy:
        cache = ChunkCache(60 * 16 * 16 * 2, "cuda")
        made = constructor(chunked(cache=cache))
        main, batch_made = cupy.cuda.get_current_stream(), []
        for first in range(0, made.n_patches - 6, 6):
            made.construct_batch(range(first, first + 6))
            batch_made.append(main.submitted)
            for _ in range(30):
                main.submit(lambda: None)  # a model's kernels
        assert cache.traffic.misses > 60
        (copies,) = {a.stream for a in gpu.log if a.kind == "upload"} - {main.ptr}
        (stream,) = (s for s in gpu.streams if s.ptr == copies)
        stream.run()  # all that was copied for the last batch, and may be before it is made
        assert main.completed <= batch_made[-2], "a model was waited for"


def test_each_purpose_has_a_stream_of_its_own():
    with fake_cupy.installed() as cupy:
        streams = []
        for purpose in ("chunks", "batches", "batches"):
            side = SideStream("cuda:0", purpose)
            streams.append(side.run(lambda: cupy.cuda.get_current_stream().ptr)[0])
        assert streams[0] != streams[1] == streams[2]


def constructor_on_host():
    arrays = [distinct((2, 3, 60, 70), "uint16"), distinct((1, 3, 50, 90), "uint16")]
    return constructor(chunked_extractor(arrays))


def test_the_device_has_no_room_for_chunks():
    with fake_cupy.installed():
        made = constructor(chunked())
        gpu.capacity = gpu.used_bytes() + 4000
        with pytest.raises(MemoryError, match=r"cuda:0 has no room for .* of chunks of images"):
            made.construct_batch(range(5))
        cache = made.input_extractor.image_stacks[0].data.cache
        assert cache.nbytes == sum(s.nbytes for s in made.input_extractor.image_stacks) <= 4000
        assert list(cache._chunks)
        gpu.capacity = 1 << 30
        made.construct_batch(range(5))


def test_the_device_has_no_room_for_windows():
    with fake_cupy.installed():
        made = constructor(chunked())
        made.construct_batch(range(5))
        gpu.capacity = gpu.used_bytes() + 300
        with pytest.raises(MemoryError, match=r"cuda:0 has no room for .* of windows of images"):
            made.construct_batch(range(5))


def test_pinned_memory_is_used_again():
    with fake_cupy.installed():
        made = constructor(chunked())
        made.construct_batch(range(made.n_patches))
        pinned = [action.what for action in gpu.log if action.kind == "pin"]
        # four for all chunks; the others are of the tables
        assert pinned[:4] == [1 << 12] * 4
        assert pinned.count(1 << 12) == 4 < made.n_patches

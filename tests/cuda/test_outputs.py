"""Outputs that other libraries read: their memory waits for those libraries' streams."""

from __future__ import annotations

import numpy as np
import pytest
from builders import KINDS
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from pixels import distinct
from samples import make_sample

from gpu_patch import ImageStack

pytestmark = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def cupy():
    with fake_cupy.installed() as module:
        yield module


def waits():
    """Which stream waits for which, as far as recorded."""
    return [(a.stream, a.what.place[0].ptr) for a in gpu.log if a.kind == "wait_event"]


def make_batch(kind="multichannel"):
    batch = make_sample(kind, device="cuda").constructor.construct_batch(range(3))
    gpu.log.clear()
    return batch


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_that_nobody_else_reads_waits_for_nobody(kind):
    batch = make_batch(kind)
    del batch
    assert not gpu.log


def test_memory_waits_for_a_reader_once_everybody_has_let_go(cupy):
    batch, reader = make_batch(), cupy.cuda.Stream(non_blocking=True)
    tensor = batch.input.__dlpack__(stream=reader.ptr, max_version=(1, 0))
    view = tensor[1:, 0]
    del tensor, batch
    assert not waits()
    del view
    assert waits() == [(0, reader.ptr)]


def test_views_note_their_readers(cupy):
    batch = make_batch()
    readers = [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    for reader in (*readers, readers[0]):
        batch.target[1:].__dlpack__(stream=reader.ptr)
    del batch
    assert sorted(waits()) == sorted((0, reader.ptr) for reader in readers)


def test_memory_waits_for_what_the_reader_was_given_last(cupy):
    """Not for what it had to do when it took the array."""
    batch, reader = make_batch(), cupy.cuda.Stream(non_blocking=True)
    tensor = batch.input.__dlpack__(stream=reader.ptr)
    for _ in range(3):
        reader.submit(lambda: None)
    del batch, tensor
    (event,) = (a.what for a in gpu.log if a.kind == "wait_event")
    assert event.place == (reader, 3)


def test_the_stream_that_made_it_need_not_wait(cupy):
    for stream in (None, 0, 1, -1):  # the default one by its names, and none
        batch = make_batch()
        batch.input.__dlpack__(stream=stream)
        del batch
        assert not gpu.log
    with cupy.cuda.Stream(non_blocking=True) as own:
        batch = make_batch()
        batch.input.__dlpack__(stream=own.ptr)
        del batch
        assert not gpu.log
        batch = make_batch()
        batch.input.__dlpack__()
    del batch
    assert waits() == [(own.ptr, 0)]


def test_results_of_other_functions_have_memory_of_their_own(cupy):
    batch, reader = make_batch(), cupy.cuda.Stream(non_blocking=True)
    highest = batch.input.max()
    highest.__dlpack__(stream=reader.ptr)
    del batch, highest
    assert not waits()


def test_memory_is_given_back():
    sample = make_sample("multichannel", device="cuda").constructor
    used = gpu.used_bytes()
    batch = sample.construct_batch(range(3))
    gpu.finish()
    assert gpu.used_bytes() > used
    del batch
    assert gpu.used_bytes() == used


def test_arrays_are_taken_in_place_by_dlpack(cupy):
    class Foreign:
        def __dlpack__(self, **options):
            return array.__dlpack__(**options)

        def __dlpack_device__(self):
            return array.__dlpack_device__()

    array = cupy.asarray(distinct((2, 3, 9, 8), "uint16"))
    gpu.log.clear()
    stack = ImageStack.from_array(Foreign(), "SCYX")
    assert [action.kind for action in gpu.log] == ["synchronize"]
    assert stack.device == "cuda:0"
    assert stack.data.data.ptr == array.data.ptr


def test_host_arrays_that_speak_dlpack_stay_on_the_host():
    array = np.zeros((5, 6), np.uint8)
    assert array.__dlpack_device__() == (1, 0)
    assert ImageStack.from_array(array, "YX", device="cpu").data.base is array

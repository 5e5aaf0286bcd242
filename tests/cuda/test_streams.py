"""Streams: what one makes and another reads is there; what cannot be told apart is refused."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from pixels import distinct

import gpu_patch
from gpu_patch import device as devices

pytestmark = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def cupy():
    with fake_cupy.installed() as module:
        yield module


def constructor(data, axes="SYX", device=None):
    images = gpu_patch.PatchExtractor([gpu_patch.ImageStack.from_array(data, axes, device=device)])
    tiling = gpu_patch.TiledPatching(images.shapes, (8, 8), (2, 2))
    return gpu_patch.BasicPatchConstr(tiling, images)


@pytest.mark.parametrize("changed", ["type", "order", "nothing"])
def test_images_of_cupy_are_there_for_any_stream(cupy, changed):
    """They are copied on the stream that is current then; `nothing` is: it makes them just now."""
    pixels = distinct((3, 40, 30), "uint16" if changed != "type" else "float32")
    data = cupy.asarray(pixels).copy()
    axes = "SYX"
    if changed == "type":
        data = cupy.asarray(pixels.astype("float64")).copy()
    if changed == "order":
        data, axes = data.transpose(0, 2, 1), "SXY"
    made = constructor(data, axes)
    with cupy.cuda.Stream(non_blocking=True):
        batch = made.construct_batch(range(4))
        found = batch.input.get()
    expected = constructor(pixels, device="cpu").construct_batch(range(4))
    np.testing.assert_array_equal(found, expected.input)


def test_no_batch_is_made_into_a_graph(cupy):
    """A replay would copy a table from memory that later batches have used."""
    made = constructor(distinct((3, 40, 30), "uint16"), device="cuda")
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="captured into a graph"):
            made.construct_batch(range(4))
        stream.end_capture()
        made.construct_batch(range(4))
    assert gpu.count("launch") == 1


def test_default_streams_per_thread_are_refused(cupy, monkeypatch):
    pixels = distinct((3, 40, 30), "uint16")
    for value in ("0", ""):
        monkeypatch.setenv("CUPY_CUDA_PER_THREAD_DEFAULT_STREAM", value)
        assert devices.resolve(None) == "cuda:0"
    monkeypatch.setenv("CUPY_CUDA_PER_THREAD_DEFAULT_STREAM", "1")
    for refused in (
        lambda: devices.resolve("cuda"),
        lambda: devices.resolve(None),
        lambda: constructor(cupy.asarray(pixels)),
    ):
        with pytest.raises(RuntimeError, match="PER_THREAD_DEFAULT_STREAM is '1'"):
            refused()
    assert devices.resolve("cpu") == "cpu"


def test_each_purpose_has_a_stream_of_its_own(cupy):
    streams = []
    for purpose in ("pages", "batches", "batches"):
        side = devices.SideStream("cuda:0", purpose)
        streams.append(side.run(lambda: cupy.cuda.get_current_stream().ptr)[0])
    assert streams[0] != streams[1] == streams[2]

"""The package through CuPy itself, on a device in host memory whose work is done late."""

import os
import subprocess
import sys

import numpy as np
import pytest

from gpu_patch import (
    ImageStack,
    MultiChannelTargetMsPatchConstr,
    PatchExtractor,
    RandomPatching,
)
from gpu_patch.cli import main
from gpu_patch.device import cuda_problem
from gpu_patch.images.budget import size_text

if cuda_problem():
    pytest.skip(
        f"needs the environment that build.sh makes: {cuda_problem()}", allow_module_level=True
    )
import cupy

if cupy.cuda.runtime.getDeviceProperties(0)["name"] != b"CUDA on CPU":
    pytest.skip("is not for a real GPU", allow_module_level=True)
from cupy_on_cpu import on_cpu

from gpu_patch._cuda import loader, precompile
from gpu_patch._cuda.loader import source_text
from gpu_patch._cuda.specialised import tiled
from gpu_patch.device.leases import new_output
from gpu_patch.table import MODES, PIXEL_TYPES

UINT16 = PIXEL_TYPES[np.dtype(np.uint16)]
PIXELS = np.random.default_rng(0).integers(0, 4095, (3, 2, 200, 160), dtype=np.uint16)


def make_constructor(device, patch_size=(16, 16)):
    images = PatchExtractor([ImageStack.from_array(PIXELS, "SCYX", device=device)])
    return MultiChannelTargetMsPatchConstr(
        RandomPatching(images.shapes, patch_size),
        images,
        multiscale_count=3,
        padding_mode="reflect",
        alpha_ranges=[(0.3, 0.7)] * 2,
        uncorrelated_channel_prob=0.1,
        seed=0,
    )


@pytest.fixture(autouse=True)
def idle_device():
    cupy.cuda.Device().synchronize()
    on_cpu.reset()


# ---- the package -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 80])
def test_batch_is_one_launch_and_an_upload_where_it_is_large(size):
    constructor = make_constructor("cuda")
    for _ in range(3):  # compile, and fill CuPy's pools
        constructor.construct_batch(range(size))
        cupy.cuda.Device().synchronize()
    on_cpu.reset()
    constructor.construct_batch(range(size))
    found = on_cpu.counts()
    if size == 8:
        assert found == {"launches": 1}
        assert on_cpu.pending() == 1
    else:
        assert 0 < found.pop("upload_bytes") <= 5120
        assert found == {"uploads": 1, "launches": 1, "queries": 1, "event_records": 1}
        assert on_cpu.pending() == 3


@pytest.mark.parametrize(("architecture", "height", "n_compiled"), [("90", 17, 0), ("70", 18, 1)])
def test_kernels_compiled_ahead_are_not_compiled_again(
    architecture, height, n_compiled, tmp_path, monkeypatch
):
    patch, n_scales, n_channels, n_places = (1, height, 16), 3, 2, 2
    shape = tiled(2, patch, n_scales, n_channels, n_places, UINT16, MODES.index("reflect"), 0)
    text = source_text("specialised", shape.macros(False, shape.most_records(8, False)))
    monkeypatch.setattr(loader, "COMPILED", tmp_path)
    monkeypatch.setattr(precompile, "common_texts", lambda: [text])
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "1")  # what an earlier run kept is not taken
    assert precompile.precompile([architecture]) == 1
    on_cpu.reset()
    batch = make_constructor("cuda", (height, 16)).construct_batch(range(8))
    assert on_cpu.counts().get("compilations", 0) == n_compiled
    expected = make_constructor("cpu", (height, 16)).construct_batch(range(8))
    np.testing.assert_allclose(batch.input.get(), expected.input, rtol=0, atol=4095e-6)


def test_batches_that_wait_together_are_right():
    constructor = make_constructor("cuda")
    batches = [constructor.construct_batch(range(8 * i, 8 * i + 8)) for i in range(5)]
    assert on_cpu.pending() >= 5
    for i, batch in enumerate(batches):
        expected = make_constructor("cpu").construct_batch(range(8 * i, 8 * i + 8))
        np.testing.assert_allclose(batch.input.get(), expected.input, rtol=0, atol=4095e-6)
        np.testing.assert_array_equal(batch.target.get(), expected.target)


@pytest.mark.filterwarnings("ignore:ExternalStream is deprecated")
def test_memory_waits_for_a_reader_on_another_stream():
    own, other = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with own:
        first = new_output(cupy, (1000,), np.uint8)
        first.data.memset_async(1, 1000, own)
        own.synchronize()
    with other:
        read = cupy.empty(1000, np.uint8)
        read.data.copy_from_device_async(cupy.from_dlpack(first).data, 1000, other)
    address = first.data.ptr
    del first
    with own:
        again = new_output(cupy, (1000,), np.uint8)
        assert again.data.ptr == address
        again.data.memset_async(2, 1000, own)
        own.synchronize()
    with other:
        assert set(read.get().tolist()) == {1}


def test_no_room_for_images():
    total = cupy.cuda.runtime.memGetInfo()[1]
    cupy.get_default_memory_pool().free_all_blocks()
    on_cpu.set_capacity(1000)
    try:
        with pytest.raises(MemoryError, match=r"cuda:0 has no room for .* images"):
            ImageStack.from_array(PIXELS, "SCYX", device="cuda")
    finally:
        on_cpu.set_capacity(total)


def test_no_device():
    code = "from gpu_patch.device import resolve; print(resolve(None)); resolve('cuda')"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDA_ON_CPU_DEVICES": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == "cpu\n"
    assert "RuntimeError: device is 'cuda', but no CUDA device can be used" in found.stderr
    assert "cudaErrorNoDevice" in found.stderr


# ---- the device --------------------------------------------------------------------------------


def test_new_memory_is_poisoned():
    assert np.isnan(cupy.empty(1 << 20, np.float32).get()).all()


def test_pinned_memory_is_read_late_and_pageable_memory_at_once():
    pinned = cupy.cuda.alloc_pinned_memory(512)
    host, pageable = np.frombuffer(pinned, np.uint8, 512), np.ones(512, np.uint8)
    stream = cupy.cuda.Stream(non_blocking=True)
    to = [cupy.empty(512, np.uint8) for _ in range(2)]
    for array, address in zip(to, (pinned.ptr, pageable.ctypes.data), strict=True):
        host[:] = 1
        array.data.copy_from_host_async(address, 512, stream)
    host[:] = pageable[:] = 2
    stream.synchronize()
    assert [set(array.get().tolist()) for array in to] == [{2}, {1}]


def test_polling_an_event_ends():
    stream = cupy.cuda.Stream(non_blocking=True)
    array = cupy.empty(10, np.uint8)
    for _ in range(3):
        array.data.memset_async(0, 10, stream)
    event = stream.record()
    assert [event.done for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize("non_blocking", [True, False])
def test_the_default_stream_and_blocking_streams_wait_for_each_other(non_blocking):
    stream = cupy.cuda.Stream(non_blocking=non_blocking)
    array = cupy.zeros(10, np.uint8)
    cupy.cuda.Device().synchronize()
    array.data.memset_async(1, 10, stream)
    assert set(array.get().tolist()) == ({0} if non_blocking else {1})


def test_writing_behind_the_end_is_an_error():
    kernel = cupy.RawKernel(
        'extern "C" __global__ void beyond(char* a, long long n) { a[n] = 0; }', "beyond"
    )
    memory = cupy.cuda.Memory(1000)  # not from CuPy's pool, which gives parts of larger blocks
    kernel((1,), (1,), (np.uint64(memory.ptr), np.int64(1000)))
    try:
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorLaunchFailure"):
            cupy.cuda.Device().synchronize()
    finally:
        on_cpu.forget_error()


# ---- what describes the machine ----------------------------------------------------------------


def test_info_describes_the_device(capsys, monkeypatch):
    monkeypatch.delenv("GPU_PATCH_DEVICE", raising=False)
    assert main(["info"]) == 0
    free = size_text(cupy.cuda.runtime.memGetInfo()[0])
    lines = capsys.readouterr().out.splitlines()
    device = f"cuda:0 CUDA on CPU, compute capability 9.0, {free} of "
    assert any(line.startswith(f"devices    {device}") for line in lines)
    assert any("CUDA up to 12.9" in line for line in lines)
    assert lines[-1] == "ok         images go to cuda:0"

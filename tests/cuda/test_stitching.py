"""Stitching on CUDA: what is launched and uploaded, and bits beyond those of tests/ops."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import stitching
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import EmulatedRuntime, available
from hypothesis import given, settings
from hypothesis import strategies as st
from tilings import Tiling, divided

from gpu_patch import ops

pytestmark = pytest.mark.skipif(not available(), reason="needs a C++ compiler")

TILING = Tiling((60, 50), (16, 12), (5, 4), "hann", 0, 2)


@pytest.fixture
def cupy():
    with fake_cupy.installed() as module:
        yield module


@settings(max_examples=100)
@given(case=divided(), order=st.integers(0, 2**32))
def test_the_same_bits_as_numpys_in_any_order_of_threads(case, order):
    stitching.assert_stitched(EmulatedRuntime(order), *case)


@pytest.mark.parametrize("order", [0, 1])
def test_cases_of_the_mutants(order):
    for tiling, count in stitching.cases():
        counts = stitching.counts_of(tiling, count)
        stitching.assert_stitched(EmulatedRuntime(order), tiling, counts)
    stitching.assert_rows_kept(EmulatedRuntime(order))


def test_places_beyond_32_bits(tmp_path):
    stitching.assert_huge(EmulatedRuntime(), tmp_path)


def test_one_launch_and_one_upload_per_batch(cupy):
    slabs = [cupy.asarray(np.zeros(TILING.shape, np.float32)) for _ in range(2)]
    tiles = cupy.asarray(np.concatenate([TILING.tiles[:3], TILING.tiles[2:5]]))
    segments = [TILING.segment(slab, i, 3) for slab, i in zip(slabs, (0, 2), strict=True)]
    for batch in range(3):
        gpu.log.clear()
        ops.stitch(tiles, segments, scale=[1, 2], offset=[3, 4])
        # the grid's tables, once
        assert gpu.count("upload") == (2 if batch == 0 else 1)
        assert gpu.count("launch") == 1
        assert gpu.count("synchronize") == 0
    uploaded = [action.what for action in gpu.log if action.kind == "upload"]
    assert sum(uploaded) < 2000


def test_tables_are_there_before_kernels_of_any_stream_read_them(cupy):
    slab, tiles = cupy.asarray(np.zeros(TILING.shape, np.float32)), cupy.asarray(TILING.tiles)
    gpu.log.clear()
    for stream in (cupy.cuda.Stream(), cupy.cuda.Stream()):
        with stream:
            ops.stitch(tiles, [TILING.segment(slab)])
    # a kernel in one stream does not wait for an upload in another
    streams = [action.stream for action in gpu.log if action.kind == "upload"]
    assert sorted(streams.count(s) for s in set(streams)) == [2, 2]


def test_tables_live_as_long_as_their_grid(cupy):
    tiles = cupy.asarray(TILING.tiles)
    tiling = Tiling(TILING.size, TILING.patch_size, TILING.overlaps, "hann", 0, 2)
    slab = cupy.asarray(np.zeros(tiling.shape, np.float32))
    gpu.finish()
    before = gpu.used_bytes()
    ops.stitch(tiles, [tiling.segment(slab)])
    gpu.finish()
    assert gpu.used_bytes() > before
    del tiling
    gc.collect()
    assert gpu.used_bytes() == before


def test_slabs_of_another_device_are_refused(cupy):
    tiles = cupy.asarray(TILING.tiles)
    gpu.n_devices = 2
    with cupy.cuda.Device(1):
        elsewhere = cupy.asarray(np.zeros(TILING.shape, np.float32))
    for slab in (elsewhere, np.zeros(TILING.shape, np.float32)):
        with pytest.raises(ValueError, match=r"segments\[0\].slab must be on the device that"):
            ops.stitch(tiles, [TILING.segment(slab)])

"""What CUDA refuses is not asked of it: copies, pinned memory, launches."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from emulation import fake_cupy, limits
from emulation.gpu import gpu, living
from emulation.runtime import available
from pixels import distinct

import gpu_patch
from gpu_patch import device as devices
from gpu_patch.device import pinned
from gpu_patch.predict import slab_writer


@pytest.fixture(autouse=True)
def cupy():
    with fake_cupy.installed() as module:
        yield module


def predicted(device):
    stack = gpu_patch.ImageStack.from_array(distinct((40, 21, 18), "uint16"), "ZYX", device=device)
    made = gpu_patch.predict(
        stack, lambda tiles: tiles, tile_size=(4, 8, 8), overlaps=(2, 4, 4), batch_size=3,
        progress=False,
    )  # fmt: skip
    return made.images[0]


def pins():
    return [action.what for action in gpu.log if action.kind == "pin"]


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("most", [limits.MOST_PITCH, 100])
def test_rows_leave_a_slab_however_far_apart_they_are(cupy, monkeypatch, axis, most):
    """300 × 2048 × 2048 pixels have rows 2.7 GB apart."""
    assert pinned._MOST_PITCH == limits.MOST_PITCH
    for module in (pinned, limits):
        monkeypatch.setattr(module, "MOST_PITCH" if module is limits else "_MOST_PITCH", most)
    values = distinct((2, 5, 7, 9), "float32")
    rows = slice(1, 4)
    piece = pinned.rounded_buffer(cupy, values.nbytes)
    piece.copy_rows_from(cupy.asarray(values), axis, rows)
    piece.copied.synchronize()
    expected = values[(slice(None),) * axis + (rows,)]
    found = piece.host[: expected.nbytes].view(np.float32).reshape(expected.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not available(), reason="needs a C++ compiler")
def test_rows_leave_by_moderate_pieces(monkeypatch):
    expected = predicted("cpu")
    predicted("cuda")
    n_uploaded = 2  # pieces of pinned memory, first
    assert max(pins()[n_uploaded:]) == 1 << 13
    gpu.log.clear()
    monkeypatch.setattr(slab_writer, "_PINNED_BYTES", 1 << 12)
    np.testing.assert_array_equal(predicted("cuda"), expected)
    assert max(pins()[n_uploaded:]) == 1 << 12


@pytest.mark.skipif(not available(), reason="needs a C++ compiler")
def test_no_room_for_pinned_memory_is_a_memory_error():
    stack = gpu_patch.ImageStack.from_array(np.zeros((300, 400), "u2"), "YX", device="cuda")
    gpu.pinned_capacity = sum(memory.size for memory in living(gpu.pinned)) + (1 << 16)
    with pytest.raises(MemoryError, match=r"no room for 0\.3 MB of pinned memory.*host"):
        gpu_patch.predict(stack, lambda tiles: tiles, tile_size=(64, 64), overlaps=(8, 8),
                          progress=False)  # fmt: skip


@pytest.mark.parametrize("gives", [True, False])
def test_room_that_pytorch_keeps_is_asked_for(cupy, monkeypatch, gives):
    """Where PyTorch is imported, and uses CUDA."""
    gpu.capacity = 1 << 16

    def empty_cache():
        gpu.capacity += gives << 20

    torch = SimpleNamespace(cuda=SimpleNamespace(
        is_initialized=lambda: True, empty_cache=empty_cache, memory_reserved=lambda n: 3 << 30
    ))  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch", torch)
    makes = [
        lambda: devices.empty((1 << 17,), np.dtype("u1"), "cuda:0", "images"),
        lambda: slab_writer.CudaSlabWriter("cuda:0").new((1, 1 << 15)),
    ]
    for make in makes:
        if gives:
            assert make().nbytes == 1 << 17
        else:
            with pytest.raises(MemoryError, match=r"3\.22 GB are PyTorch's"):
                make()
    torch.cuda.is_initialized = lambda: False
    gpu.capacity = gpu.used_bytes()
    with pytest.raises(MemoryError) as error:
        makes[0]()
    assert "PyTorch" not in str(error.value)


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((0,), (32,), 0), ((1 << 31,), (32,), 0), ((1,), (1025,), 0), ((1, 65536), (32,), 0),
     ((1,), (8, 8, 65), 0), ((1,), (32, 64), 0), ((1,), (32,), 49153), ((1,), (0,), 0)],
)  # fmt: skip
def test_launches_beyond_the_limits_are_refused(cupy, grid, block, shared):
    kernel = cupy.RawKernel("", "spin")
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="InvalidConfiguration"):
        kernel(grid, block, (np.int64(1),), shared_mem=shared)
    kernel(((1 << 31) - 1,), (32, 32), (np.int64(1),), shared_mem=49152)


def test_parameters_beyond_4_kb_are_refused(cupy):
    kernel = cupy.RawKernel("", "spin")
    kernel((1,), (1,), (np.zeros(1, "V4096"),))
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="4104 bytes of parameters"):
        kernel((1,), (1,), (np.zeros(1, "V4097"),))

"""`CupyRuntime` and gpu_check.py, with a stand-in for CuPy: their own logic."""

from __future__ import annotations

import subprocess
import sys

import gpu_check
import numpy as np
import pytest
from cases import Case, assert_same_context
from emulation import fake_cupy
from emulation.runtime import available

from gpu_patch._cuda.runtime import CupyRuntime, cupy_runtime, launch

needs_compiler = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


@pytest.fixture
def cupy(monkeypatch):
    module = fake_cupy.make_module()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(fake_cupy.FakeEvent, "pending", 0)
    monkeypatch.setattr(fake_cupy.FakePinned, "allocated", [])
    cupy_runtime.cache_clear()
    yield module
    cupy_runtime.cache_clear()


@needs_compiler
def test_batches_through_cupy(cupy):
    case = Case.random(0, (16, 16), 3, "reflect")
    images = [cupy.asarray(image) for image in case.images]
    runtime = cupy_runtime(0)
    assert runtime is cupy_runtime(0)
    for specialise in (True, False):
        made = case.context(runtime, images=images, specialise=specialise)
        assert_same_context(made, case.numpy_context())
    made = case.patches(runtime, "zero", images=images)
    np.testing.assert_array_equal(made, case.numpy_patches("zero"))


def test_kernels_are_made_once(cupy):
    runtime = CupyRuntime(0)
    constants = {"N_THREADS": 64}
    first = runtime.kernel("lateral_context", "lateral_context", constants)
    assert runtime.kernel("lateral_context", "lateral_context", dict(constants)) is first
    assert runtime.kernel("lateral_context", "lateral_context", {"N_THREADS": 32}) is not first


def test_pinned_memory_is_used_again_once_its_copy_is_done(cupy):
    runtime = CupyRuntime(0)
    for i in range(5):
        table = np.full(1000, i, np.uint8)
        np.testing.assert_array_equal(runtime.upload(table), table)
    assert fake_cupy.FakePinned.allocated == [4096]
    runtime.upload(np.zeros(5000, np.uint8))
    assert fake_cupy.FakePinned.allocated == [4096, 8192]


def test_pinned_memory_is_left_alone_while_a_copy_reads_it(cupy):
    fake_cupy.FakeEvent.pending = 1000
    runtime = CupyRuntime(0)
    for _ in range(3):
        runtime.upload(np.zeros(1000, np.uint8))
    assert fake_cupy.FakePinned.allocated == [4096] * 3


def test_nothing_is_launched_for_an_empty_batch():
    launch(pytest.fail, 0, (32,), [])


def test_importing_the_launch_code_imports_no_cupy():
    code = "import sys, gpu_patch._cuda.gather, gpu_patch._cuda.lateral_context as _; "
    code += "sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@needs_compiler
def test_gpu_check_finds_right_and_wrong(cupy, monkeypatch, capsys):
    case = Case.random(0, (9, 10), 2, "reflect")
    monkeypatch.setattr(gpu_check, "correctness_cases", lambda: [("small", case)])
    assert gpu_check.check_correctness(cupy, cupy_runtime(0))
    assert "6 checks, 0 failed" in capsys.readouterr().out

    monkeypatch.setattr(Case, "numpy_patches", lambda self, mode: np.zeros(1))
    assert not gpu_check.check_correctness(cupy, cupy_runtime(0))
    assert "DIFFERS: small, patches, zero" in capsys.readouterr().out


@needs_compiler
def test_gpu_check_times_a_workload(cupy, capsys):
    workload = gpu_check.Workload("tiny", (2, 2, 40, 50), (16, 16), 2, 3)
    bandwidth = gpu_check.copy_bandwidth(cupy, 1 << 10)
    assert bandwidth == 2 * 1024 / 500
    gpu_check.measure(cupy, cupy_runtime(0), workload, bandwidth, sweep=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 12
    assert lines[0].startswith("tiny, specialised")
    assert lines[1].startswith("tiny, general")


def test_bytes_of_a_batch():
    workload = gpu_check.Workload("", (1, 2, 100, 100), (8, 8), 2, 1)
    case = gpu_check.make_case(workload)
    for coords, pixels in (([50, 50], 16 * 16), ([0, 50], 12 * 16), ([92, 92], 12 * 12)):
        case.rows.coords[:] = coords
        assert gpu_check.bytes_read(case, workload.image_shape, 2) == pixels * 2 * 2
    assert gpu_check.bytes_written(case) == (2 + 2) * 64 * 4


def test_pixels_of_overlapping_windows_count_once():
    workload = gpu_check.Workload("", (1, 1, 100, 100), (8, 8), 1, 2)
    case = gpu_check.make_case(workload)
    case.rows.coords[:] = [[[10, 10]], [[10, 14]]]
    assert gpu_check.bytes_read(case, workload.image_shape, 1) == 8 * 12


def test_correctness_cases_are_of_every_kind():
    cases = [case for _, case in gpu_check.correctness_cases()]
    assert {case.mode for case in cases} == set(gpu_check.MODES)
    assert {len(case.patch_size) for case in cases} == {2, 3}
    assert {image.dtype.name for case in cases for image in case.images} == set(gpu_check.DTYPES)

"""`CupyRuntime` with a stand-in for CuPy: its own logic."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from cases import Case, assert_same_context
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available

from gpu_patch._cuda.runtime import CupyRuntime, cupy_runtime, launch

needs_compiler = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


@pytest.fixture
def cupy():
    with fake_cupy.installed() as module:
        yield module


def pinned():
    """Sizes of all pinned memory that was asked for."""
    return [action.what for action in gpu.log if action.kind == "pin"]


@needs_compiler
def test_batches_through_cupy(cupy):
    case = Case.random(0, (16, 16), 3, "reflect")
    images = [cupy.asarray(image) for image in case.images]
    runtime = cupy_runtime(0)
    assert runtime is cupy_runtime(0)
    for specialise in (True, False):
        made = case.context(runtime, images=images, specialise=specialise)
        assert_same_context([part.get() for part in made], case.numpy_context())
    made = case.patches(runtime, "zero", images=images)
    np.testing.assert_array_equal(made.get(), case.numpy_patches("zero"))


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
        np.testing.assert_array_equal(runtime.upload(table).get(), table)
    assert pinned() == [4096]
    table = np.zeros(5000, np.uint8)
    np.testing.assert_array_equal(runtime.upload(table).get(), table)
    assert pinned() == [4096, 8192]


def test_pinned_memory_is_left_alone_while_a_copy_reads_it(cupy):
    runtime = CupyRuntime(0)
    tables = [np.full(1000, i, np.uint8) for i in range(3)]
    uploaded = [runtime.upload(table) for table in tables]
    assert pinned() == [4096] * 3
    for found, table in zip(uploaded, tables, strict=True):
        np.testing.assert_array_equal(found.get(), table)


def test_nothing_is_launched_for_an_empty_batch():
    launch(pytest.fail, 0, (32,), [])


def test_importing_the_launch_code_imports_no_cupy():
    code = "import sys, gpu_patch._cuda.gather, gpu_patch._cuda.lateral_context as _; "
    code += "sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

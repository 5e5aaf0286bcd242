"""Tables of batches: a parameter of the kernel where they fit, else uploaded."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, assert_same_context, specialised_case
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.limits import MOST_PARAMETER_BYTES
from emulation.runtime import EmulatedRuntime, available
from pixels import distinct

from gpu_patch import (
    ImageStack,
    MultiChannelTargetMsPatchConstr,
    PatchExtractor,
    RandomPatching,
)
from gpu_patch._cuda import specialised
from gpu_patch.table import short_record

pytestmark = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


@pytest.fixture
def cupy():
    with fake_cupy.installed() as module:
        yield module


def compiled_for(runtime):
    """How many records the kernels take that were launched."""
    return [constants["N_RECORDS"] for _, constants in runtime.launched]


@pytest.mark.parametrize("finished", [False, True], ids=["plain", "epilogue"])
@pytest.mark.parametrize("name", ["common", "one place per channel", "3D, one place per channel"])
def test_uploaded_tables_give_the_same(name, finished, monkeypatch):
    case = specialised_case(name, 4, n_samples=8)
    options = {"epilogue": case.epilogue(mixed=True)} if finished else {}
    by_value, uploaded = EmulatedRuntime(), EmulatedRuntime()
    made = case.context(by_value, **options)
    assert_same_context(made, case.numpy_context(**options))
    monkeypatch.setattr(specialised, "TABLE_BYTES", 0)
    for one, other in zip(made, case.context(uploaded, **options), strict=True):
        np.testing.assert_array_equal(one.view(np.int32), other.view(np.int32))
    n_dims = len(case.patch_size)
    most = (MOST_PARAMETER_BYTES - 16) // short_record(n_dims, finished).itemsize
    most = 0 if n_dims == 3 and finished else most  # registers would spill
    assert (compiled_for(by_value), compiled_for(uploaded)) == ([most], [0])


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_largest_table_that_fits(beyond):
    most = (MOST_PARAMETER_BYTES - 16) // short_record(2, False).itemsize
    case = Case.random(6, (8, 9), 2, "wrap", n_channels=1, n_samples=most + beyond)
    runtime = EmulatedRuntime()
    assert_same_context(case.context(runtime), case.numpy_context())
    assert compiled_for(runtime) == [0 if beyond else most]


def test_batches_of_32_with_epilogues_fit():
    assert 32 * 2 * short_record(2, True).itemsize <= MOST_PARAMETER_BYTES - 16


def make_batch(device, size):
    stack = ImageStack.from_array(distinct((2, 70, 60), "uint16"), "CYX", device=device)
    images = PatchExtractor([stack])
    places = RandomPatching(images.shapes, (8, 9))
    constructor = MultiChannelTargetMsPatchConstr(
        places, images, 2, "reflect", [(0.3, 0.7)] * 2, 0.3, seed=0
    )
    return constructor.construct_batch(np.arange(size) % constructor.n_patches)


def test_what_fits_is_not_uploaded(cupy):
    specialised.tiled.cache_clear()  # and so the kernels that others have compiled
    for size, kinds in ((9, ["launch"]), (90, ["pin", "upload", "launch"]), (9, ["launch"])):
        gpu.finish()
        gpu.log.clear()
        batch = make_batch("cuda", size)
        found = [action.kind for action in gpu.log]
        assert found[-len(kinds) :] == kinds
        assert found.count("launch") == 1
        np.testing.assert_array_equal(batch.target.get(), make_batch("cpu", size).target)


def test_a_last_batch_takes_the_kernel_of_those_before():
    runtime = EmulatedRuntime()
    for n_samples in (90, 9):
        case = Case.random(6, (8, 9), 2, "wrap", n_channels=2, n_samples=n_samples)
        assert_same_context(case.context(runtime), case.numpy_context())
    assert compiled_for(runtime) == [0]

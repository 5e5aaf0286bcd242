"""The kernels as NVRTC compiles them, against NumPy: and mutants of them."""

from __future__ import annotations

import mutants
import numpy as np
import nvrtc
import pytest
from cases import assert_same_context
from test_emulated import specialised_case

from ptx.runtime import PtxRuntime, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "available")

FILES = (mutants.COMMON, mutants.GENERAL, mutants.GATHER, mutants.SPECIAL, mutants.ASSEMBLE,
         mutants.STITCH, mutants.MOMENTS)  # fmt: skip


@pytest.fixture(autouse=True)
def least_patch(monkeypatch):
    """`check` lets the specialised kernel serve small patches."""
    monkeypatch.setattr(mutants.specialised, "LEAST_PATCH", 1)


@pytest.mark.parametrize("file", FILES[1:])
def test_kernels_equal_numpy(file, tmp_path):
    runtime = PtxRuntime()
    mutants.check(runtime, file, tmp_path)
    assert runtime.reports


@pytest.mark.parametrize("name", ["common", "3D"])
def test_order_of_warps_and_blocks_does_not_matter(name):
    case = specialised_case(name)
    results = [np.concatenate(case.context(PtxRuntime(order)), axis=1) for order in range(4)]
    assert_same_context(np.split(results[0], [case.n_scales], axis=1), case.numpy_context())
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("architecture", [70, 80, 120])
def test_other_architectures_make_the_same(architecture):
    if architecture not in nvrtc.architectures():
        pytest.skip(f"NVRTC {nvrtc.version()} has no sm_{architecture}")
    case = specialised_case("odd, tiles left over")
    made = case.context(PtxRuntime(architecture=architecture))
    for one, expected in zip(made, case.context(PtxRuntime()), strict=True):
        np.testing.assert_array_equal(one, expected)


@pytest.mark.parametrize(
    ("file", "name"),
    [("moments.cu", "spread: biased"), ("gather.cu", ""), ("specialised.cu", "barrier 3")],
)
def test_a_mutant_is_caught(file, name):
    mutant = next(m for m in mutants.load() if m.file == file and m.name.startswith(name))
    assert mutants.run(mutant, PtxRuntime).startswith("caught")

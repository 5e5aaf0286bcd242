"""The kernels as NVRTC compiles them, against NumPy: and mutants of them."""

from __future__ import annotations

from dataclasses import replace

import mutants
import numpy as np
import nvrtc
import pytest
from cases import assert_same_context, specialised_case

from ptx import counts
from ptx.runtime import PtxRuntime, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "available")

FILES = tuple(dict.fromkeys(mutant.file for mutant in mutants.load()))


@pytest.fixture(autouse=True)
def least_patch(monkeypatch):
    """`check` lets the specialised kernel serve small patches."""
    monkeypatch.setattr(mutants.specialised, "LEAST_PATCH", 1)


@pytest.mark.parametrize("file", [file for file in FILES if file != mutants.COMMON])
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


@pytest.mark.parametrize("squares", [False, True])
def test_sums_pass_over_a_batch_less_than_three_times(squares):
    """By the bytes that a launch reads and writes, each counted once."""
    (report,) = counts.summed(squares=squares)
    moved = report.totals["bytes_loaded"] + report.totals["bytes_stored"]
    assert counts.SUMMED[0] * counts.KEPT <= moved <= 3 * counts.SUMMED[0] * counts.KEPT


@pytest.mark.parametrize("architecture", [70, 80, 120])
def test_other_architectures_make_the_same(architecture):
    if architecture not in nvrtc.architectures():
        pytest.skip(f"NVRTC {nvrtc.version()} has no sm_{architecture}")
    case = specialised_case("odd, tiles left over")
    made = case.context(PtxRuntime(architecture=architecture))
    for one, expected in zip(made, case.context(PtxRuntime()), strict=True):
        np.testing.assert_array_equal(one, expected)


def test_subnormal_numbers_are_as_in_numpy():
    """CuPy compiles with -ftz=true."""
    case = specialised_case("common").with_dtype("float32")
    case = replace(case, images=[image * np.float32(1e-42) for image in case.images])
    epilogue = case.epilogue(mixed=False)
    small = np.float32(1e-41)
    tiny = replace(
        epilogue,
        input_offset=epilogue.input_offset * small,
        input_shift=epilogue.input_shift * small,
    )
    for options in ({}, {"epilogue": tiny}):
        made = case.patches(PtxRuntime(), "wrap", **options)
        assert (np.abs(made[made != 0]) < np.finfo(np.float32).tiny).any()
        np.testing.assert_array_equal(made, case.numpy_patches("wrap", **options))
    for specialise in (True, False):
        mixed, target = case.context(PtxRuntime(), specialise=specialise)
        expected_mixed, expected_target = case.numpy_context()
        np.testing.assert_array_equal(mixed[:, 0], expected_mixed[:, 0])
        np.testing.assert_array_equal(target, expected_target)


@pytest.mark.parametrize(
    ("file", "name"),
    [("moments.cu", "spread: biased"), ("gather.cu", ""), ("specialised.cu", "barrier 3")],
)
def test_a_mutant_is_caught(file, name):
    mutant = next(m for m in mutants.load() if m.file == file and m.name.startswith(name))
    assert mutants.run(mutant, PtxRuntime).startswith("caught")

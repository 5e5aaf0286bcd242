"""Kernels that read pages in slots: the same bits as of resident images."""

from __future__ import annotations

import numpy as np
import pytest
from cases import DTYPES, MODES, SPECIALISED, Case, specialised_case
from emulation.runtime import EmulatedRuntime, available
from hypothesis import given, settings
from hypothesis import strategies as st
from paged import in_slots

from gpu_patch._cuda import specialised

pytestmark = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


@st.composite
def cases(draw):
    n_dims = draw(st.integers(2, 3))
    side = st.sampled_from([1, 2, 3, 5, 8, 13, 40] if n_dims == 2 else [1, 2, 3, 6])
    n_channels = draw(st.integers(1, 3))
    return Case.random(
        draw(st.integers(0, 2**32)),
        draw(st.lists(side, min_size=n_dims, max_size=n_dims)),
        draw(st.integers(1, 4 if n_dims == 2 else 3)),
        draw(st.sampled_from(MODES)),
        n_samples=draw(st.integers(1, 4)),
        n_channels=n_channels,
        n_places=draw(st.sampled_from([1, n_channels])),
        dtypes=draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4)),
        most=draw(st.sampled_from([1, 3, 40, 90] if n_dims == 2 else [1, 3, 20])),
    )


@given(case=cases(), mode=st.sampled_from(("zero", *MODES)), order=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_patches(case, mode, order):
    runtime = EmulatedRuntime(order)
    for options in ({}, {"epilogue": case.epilogue(mixed=False)}, {"dtype": np.float16}):
        expected = case.patches(EmulatedRuntime(), mode, **options)
        with in_slots(runtime, case, 0, mode) as table:
            found = case.patches(runtime, mode, images=table, **options)
        np.testing.assert_array_equal(found, expected)


@given(case=cases(), order=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_contexts_of_the_general_kernel(case, order):
    runtime = EmulatedRuntime(order)
    for options in ({}, {"epilogue": case.epilogue(mixed=True)}, {"targets": False}):
        expected = case.context(EmulatedRuntime(), specialise=False, **options)
        with in_slots(runtime, case, case.n_scales - 1, case.mode) as table:
            found = case.context(runtime, images=table, specialise=False, **options)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", SPECIALISED)
def test_contexts_of_the_specialised_kernel(name, monkeypatch):
    monkeypatch.setattr(specialised, "LEAST_PATCH", 1)
    case = specialised_case(name, n_samples=4)
    runtime = EmulatedRuntime(3)
    for options in ({}, {"epilogue": case.epilogue(mixed=True)}):
        expected = case.context(EmulatedRuntime(), **options)
        with in_slots(runtime, case, case.n_scales - 1, case.mode) as table:
            found = case.context(runtime, images=table, **options)
        assert runtime.launched[-1][0] == "specialised"
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)

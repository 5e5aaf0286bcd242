"""Patches of labels: integers come out as they are, of 64 bits too, and are turned at most."""

import numpy as np
import pytest
import reference
from cases import random_epilogue
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels import LABEL_DTYPES, labels
from problems import Problem, problems

from gpu_patch.sources import ChannelSources
from gpu_patch.table import MODES

HOLD = {
    dtype: [other for other in LABEL_DTYPES if np.can_cast(other, dtype, "safe")]
    for dtype in LABEL_DTYPES
}
"""What each type holds all values of."""


def labelled(problem, dtypes, seed):
    """The same batch of images of labels."""
    images = [
        labels(image.shape, dtypes[i % len(dtypes)], seed + i)
        for i, image in enumerate(problem.images)
    ]
    return problem._replace(images=images)


def expected_of(problem: Problem, mode, dtype):
    images, sources, _, patch_size, n_scales = problem
    n_samples, n_channels = sources.shape
    out = np.empty((n_samples, n_channels, *patch_size), dtype)
    for b, c in np.ndindex(n_samples, n_channels):
        image, sample, coords, channel = reference.places(sources, b, c)
        volume = images[image][sample, channel]
        out[b, c] = reference.window(volume, coords, patch_size, 0, n_scales, mode)
    return out


@settings(max_examples=60)
@given(
    problem=problems(dtypes=("uint8",)),
    mode=st.sampled_from(MODES),
    dtype=st.sampled_from(LABEL_DTYPES),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_equal_to_reading_pixel_by_pixel(backend, problem, mode, dtype, seed, data):
    dtypes = data.draw(st.lists(st.sampled_from(HOLD[dtype]), min_size=1, max_size=3))
    case = labelled(problem, dtypes, seed)
    images, sources, _, patch_size, n_scales = case
    found = backend.gather(images, sources, patch_size, mode=mode, n_scales=n_scales, dtype=dtype)
    reference.assert_same(found, expected_of(case, mode, dtype))


@settings(max_examples=40)
@given(
    problem=problems(dtypes=("uint8",), square=None),
    dtype=st.sampled_from(LABEL_DTYPES),
    seed=st.integers(0, 99),
)
def test_turned_and_never_normalised(backend, problem, dtype, seed):
    images, sources, _, patch_size, _ = case = labelled(problem, [dtype], seed)
    epilogue = random_epilogue(seed, *sources.shape, 0, patch_size)
    found = backend.gather(images, sources, patch_size, dtype=dtype, epilogue=epilogue)
    whole = expected_of(case._replace(n_scales=0), "zero", dtype)
    each = [
        reference.turned(patch, turn)
        for patch, turn in zip(whole, epilogue.orientation.tolist(), strict=True)
    ]
    reference.assert_same(found, np.stack(each))


def test_what_float32_rounds_stays(backend):
    image = np.array([20_000_001, 2**24 + 1, 2**31 - 1, -(2**31)], np.int32).reshape(1, 1, 2, 2)
    sources = ChannelSources(
        *np.zeros((2, 1, 1), np.int64), np.zeros((1, 1, 2), np.int64), np.array([0])
    )
    for dtype in (np.int32, np.int64):
        found = backend.gather([image], sources, (2, 2), dtype=dtype)
        assert found.dtype == dtype
        assert found.ravel().tolist() == [20_000_001, 2**24 + 1, 2**31 - 1, -(2**31)]


@pytest.mark.parametrize(
    ("stored", "dtype", "message"),
    [
        ("int32", "uint32", "uint32, which does not hold all values of int32"),
        ("uint64", "int64", "int64, which does not hold all values of uint64"),
        ("float32", "int64", "int64, which does not hold all values of float32"),
        ("uint8", "bool", "bool, which does not hold all values of uint8"),
        ("uint32", "float32", "float32, but the images are labels of uint32"),
        ("int64", "float16", "float16, but the images are labels of int64"),
    ],
)
def test_refuses_what_would_lose_values(backend, stored, dtype, message):
    image = np.zeros((1, 1, 4, 4), stored)
    sources = ChannelSources(
        *np.zeros((2, 1, 1), np.int64), np.zeros((1, 1, 2), np.int64), np.array([0])
    )
    with pytest.raises(TypeError, match=message):
        backend.gather([image], sources, (2, 2), dtype=dtype)
    if np.dtype(dtype).kind == "f":
        with pytest.raises(TypeError, match=message):
            backend.lateral_context(
                [image],
                sources,
                np.ones((1, 1), np.float32),
                (2, 2),
                2,
                mode="reflect",
                dtype=dtype,
            )

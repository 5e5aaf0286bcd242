"""Operations with an epilogue: as without one, then scaled, shifted and turned."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import reference
from backends import BACKENDS
from cases import random_epilogue
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels import distinct
from problems import Problem, problems, random_problem
from reference import finished_input, finished_target, turned

from gpu_patch import geometry
from gpu_patch._numpy import lateral_context as numpy_lateral_context
from gpu_patch._numpy import windows
from gpu_patch.epilogue import Epilogue
from gpu_patch.sources import ChannelSources

MODES = geometry.PADDING_MODES
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="session")
def numpy_backend():
    """What the work is cut into is the NumPy backend's affair."""
    return next(backend for backend in BACKENDS if backend.name == "numpy")


def of_patches(problem, seed):
    n_samples, n_channels = problem.sources.shape
    return random_epilogue(seed, n_samples, n_channels, 0, problem.patch_size)


def of_context(problem, seed):
    n_samples, n_channels = problem.sources.shape
    return random_epilogue(seed, n_samples, 1, n_channels, problem.patch_size)


def gather(backend, problem, **options):
    return backend.gather(problem.images, problem.sources, problem.patch_size, **options)


def lateral_context(backend, problem, mode="reflect", **options):
    return backend.lateral_context(*problem, mode=mode, **options)


def assert_near(found, expected, epilogue, dtype=np.float32):
    """Within 1e-6 of the largest value: before or after shift and offset, whichever is larger."""
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert found.flags.c_contiguous
    shifts = np.abs(epilogue.input_shift).sum(axis=1) * np.abs(epilogue.input_scale).max()
    largest = max(np.abs(expected).max(), np.abs(epilogue.input_offset).max(), shifts.max())
    assert np.abs(found.astype(np.float64) - expected).max() <= 1e-6 * largest


@settings(max_examples=80)
@given(problem=problems(square=None), mode=st.sampled_from(("zero", *MODES)), seed=SEEDS)
def test_patches_are_finished_to_the_last_bit(backend, problem, mode, seed):
    images, sources, _, patch_size, n_scales = problem
    epilogue = of_patches(problem, seed)
    found = gather(backend, problem, mode=mode, n_scales=n_scales, epilogue=epilogue)
    plain = reference.gather(images, sources, patch_size, mode, n_scales)
    reference.assert_same(found, finished_input(plain, epilogue))


@settings(max_examples=80)
@given(problem=problems(square=None), mode=st.sampled_from(MODES), seed=SEEDS)
def test_contexts_are_finished(backend, problem, mode, seed):
    images, sources, weights, patch_size, n_scales = problem
    epilogue = of_context(problem, seed)
    inputs, targets = lateral_context(backend, problem, mode, epilogue=epilogue)
    plain = reference.lateral_context(images, sources, weights, patch_size, n_scales, mode)
    assert_near(inputs, finished_input(plain[0], epilogue, weights), epilogue)
    reference.assert_same(targets, finished_target(plain[1], epilogue))


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("orientation", range(8))
def test_every_orientation(backend, orientation, n_dims):
    """Nothing but the turn: the values are those without it, to the last bit."""
    patch_size = (9, 9) if n_dims == 2 else (3, 5, 5)
    problem = random_problem(orientation, n_dims, 3, patch_size, 60 // n_dims, n_samples=3)
    n_channels = problem.sources.shape[1]
    turns = np.full(3, orientation, np.uint8)
    plain = lateral_context(backend, problem)
    found = lateral_context(
        backend, problem, epilogue=Epilogue.identity(3, 1, n_channels).turned(turns)
    )
    for one, other in zip(found, plain, strict=True):
        reference.assert_same(one, turned(other, orientation))
    patches = gather(backend, problem, epilogue=Epilogue.identity(3, n_channels, 0).turned(turns))
    reference.assert_same(patches, turned(gather(backend, problem), orientation))


@pytest.mark.parametrize("patch_size", [(6, 9), (9, 6), (4, 5, 3)])
def test_the_identity_changes_no_bit(backend, patch_size):
    problem = random_problem(7, len(patch_size), 3, patch_size, 40, ("float32", "uint16"))
    n_samples, n_channels = problem.sources.shape
    found = lateral_context(backend, problem, epilogue=Epilogue.identity(n_samples, 1, n_channels))
    for one, other in zip(found, lateral_context(backend, problem), strict=True):
        reference.assert_same(one, other)
    patches = gather(backend, problem, epilogue=Epilogue.identity(n_samples, n_channels, 0))
    reference.assert_same(patches, gather(backend, problem))


@settings(max_examples=40)
@given(problem=problems(square=None, scales=[2, 3]), seed=SEEDS)
def test_float16_is_the_rounded_float32(backend, problem, seed):
    epilogue = of_context(problem, seed)
    with np.errstate(over="ignore"):
        found = lateral_context(backend, problem, epilogue=epilogue, dtype=np.float16)
        expected = lateral_context(backend, problem, epilogue=epilogue)
        patches = of_patches(problem, seed)
        found += (gather(backend, problem, epilogue=patches, dtype=np.float16),)
        expected += (gather(backend, problem, epilogue=patches),)
        for one, other in zip(found, expected, strict=True):
            reference.assert_same(one, other.astype(np.float16))


def test_what_float16_cannot_hold_is_scaled_first(backend):
    images = [np.full((1, 1, 9, 9), 65535, np.uint16)]
    sources = ChannelSources(
        *np.zeros((2, 1, 1), np.int64), np.zeros((1, 1, 2), np.int64), np.array([0])
    )
    problem = Problem(images, sources, np.ones((1, 1), np.float32), (4, 4), 2)
    scale, offset = np.float32([[1 / 65535]]), np.float32([[1]])
    epilogue = Epilogue(scale, offset, scale, offset)
    arrays = lateral_context(backend, problem, epilogue=epilogue, dtype=np.float16)
    arrays += (gather(backend, problem, epilogue=epilogue, dtype=np.float16),)
    for array in arrays:
        assert array.dtype == np.float16
        np.testing.assert_allclose(array, 2, rtol=1e-3)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_targets_may_be_left_out(backend, n_channels):
    """Those of a single channel are none of the epilogue's business then."""
    problem = random_problem(5, 2, 2, (7, 7), 40, n_channels=n_channels)
    epilogue = of_context(problem, 3)
    expected, _ = lateral_context(backend, problem, epilogue=epilogue)
    if n_channels == 1:
        five = np.ones((5, 5), np.float32)
        epilogue = replace(epilogue, target_shift=five, target_scale=five, target_offset=five)
    found, _ = lateral_context(backend, problem, epilogue=epilogue, targets=False)
    reference.assert_same(found, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_stay_where_they_are(backend, value):
    problem = random_problem(0, 2, 1, (6, 6), 30, ("float32",), n_channels=2)
    for image in problem.images:
        image.flat[::7] = value
    images, sources, weights, patch_size, n_scales = problem
    epilogue = of_context(problem, 1)
    with np.errstate(all="ignore"):
        inputs, targets = lateral_context(backend, problem, epilogue=epilogue)
        plain = reference.lateral_context(images, sources, weights, patch_size, n_scales, "reflect")
        reference.assert_same(targets, finished_target(plain[1], epilogue))
        expected = finished_input(plain[0], epilogue, weights)
    finite = np.isfinite(expected)
    assert not finite.all()
    np.testing.assert_array_equal(inputs[~finite], expected[~finite])
    np.testing.assert_allclose(inputs[finite], expected[finite], rtol=1e-5, atol=1e-3)


def test_a_sample_is_bit_equal_in_any_batch(backend):
    problem = random_problem(6, 2, 4, (16, 16), 120, ("float32", "uint8"), n_samples=9)
    images, sources, weights, patch_size, n_scales = problem
    epilogue = of_context(problem, 4)
    whole = lateral_context(backend, problem, epilogue=epilogue)
    for part in (slice(0, 1), slice(3, 4), slice(2, 7), slice(None, None, -1)):
        fewer = ChannelSources(
            sources.image_idx[part],
            sources.sample_idx[part],
            sources.coords[part],
            sources.channels,
        )
        some = Problem(images, fewer, weights[part], patch_size, n_scales)
        own = epilogue.of_samples(part)
        found = lateral_context(backend, some, epilogue=own)
        for one, other in zip(found, whole, strict=True):
            reference.assert_same(one, np.ascontiguousarray(other[part]))


@pytest.mark.parametrize("correlated", [True, False])
@pytest.mark.parametrize("patch_size", [(8, 8), (5, 9), (3, 4, 4)])
@pytest.mark.parametrize(
    "constants",
    [
        {"SMALL_WINDOW": 0},
        {"_PIXELS_AT_ONCE": 1},
        {"_MOST_RUNS": 0},
        {"_PIXELS_IN_CACHE": 1},
        {"_STRIP": 19},
        {"_STRIP": 200},
        {"_MOST_BYTES": 1},
    ],
    ids=repr,
)
def test_parts_do_not_change_the_result(
    numpy_backend, monkeypatch, patch_size, correlated, constants
):
    problem = random_problem(
        2, len(patch_size), 3, patch_size, 40, ("uint8", "float32"), n_samples=7,
        correlated=correlated,
    )  # fmt: skip
    epilogue = of_context(problem, 9)
    whole = lateral_context(numpy_backend, problem, epilogue=epilogue)
    for name, value in constants.items():
        (module,) = (m for m in (numpy_lateral_context, windows) if hasattr(m, name))
        monkeypatch.setattr(module, name, value)
    inputs, targets = lateral_context(numpy_backend, problem, epilogue=epilogue)
    assert_near(inputs, whole[0], epilogue)
    np.testing.assert_array_equal(inputs[:, 0], whole[0][:, 0])
    reference.assert_same(targets, whole[1])


def test_weights_and_images_are_only_read(backend):
    problem = random_problem(4, 2, 3, (9, 9), 40, ("float32",))
    epilogue = of_context(problem, 2)
    arrays = [*problem.images, problem.weights, epilogue.target_scale, epilogue.target_offset]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    lateral_context(backend, problem, epilogue=epilogue)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("input_scale", np.ones((2, 2), np.float32), ["input_scale", "(2, 1)", "(2, 2)"]),
        ("input_offset", np.ones((3, 1), np.float32), ["input_offset", "(2, 1)", "(3, 1)"]),
        ("target_scale", np.ones((2, 1), np.float32), ["target_scale", "(2, 3)", "(2, 1)"]),
        ("target_offset", np.ones((2,), np.float32), ["target_offset", "(2, 3)", "(2,)"]),
        ("orientation", np.zeros(3, np.uint8), ["orientation", "2 numbers", "0 … 7"]),
        ("orientation", np.array([0, 8], np.uint8), ["orientation", "0 … 7", "8"]),
        ("orientation", np.array([0, 5], np.uint8), ["square", "(6, 7)"]),
    ],
)
def test_epilogues_of_other_batches_are_refused(backend, name, value, words):
    images = [distinct((1, 3, 30, 30), "uint16")]
    sources = ChannelSources(
        *np.zeros((2, 2, 1), np.int64), np.zeros((2, 1, 2), np.int64), np.arange(3)
    )
    weights = np.ones((2, 3), np.float32)
    epilogue = replace(Epilogue.identity(2, 1, 3), **{name: value})
    with pytest.raises(ValueError, match="epilogue") as raised:
        backend.lateral_context(
            images, sources, weights, (6, 7), 2, mode="reflect", epilogue=epilogue
        )
    assert all(word in str(raised.value) for word in words)


def test_rows_of_columns_that_are_not_wanted_are_counted_too(backend):
    images = [distinct((1, 2, 30, 30), "uint16")]
    sources = ChannelSources(
        *np.zeros((2, 2, 1), np.int64), np.zeros((2, 1, 2), np.int64), np.arange(2)
    )
    epilogue = replace(Epilogue.identity(2, 2, 2), target_offset=np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"epilogue\.target_offset must have 2 rows, found 3"):
        backend.gather(images, sources, (8, 8), epilogue=epilogue)


def test_a_copy_of_rows_is_one_with_its_numbers():
    epilogue = pickle.loads(pickle.dumps(random_epilogue(0, 4, 1, 3, (8, 8)).rows(np.arange(3))))
    assert all(own is None or len(own) == 3 for own in epilogue.columns)
    epilogue.target_scale[1, 2] = 77
    assert (epilogue.packed().values == 77).sum() == 1

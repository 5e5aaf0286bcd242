"""Patches at their native scale: copies, bit-equal to reading pixel by pixel."""

import numpy as np
import pytest
import reference
from backends import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels import DTYPES, distinct
from problems import Problem, problems, random_problem

from gpu_patch import table
from gpu_patch._numpy import windows
from gpu_patch.sources import ChannelSources

MODES = table.MODES
# What reading is cut into; each is set to values that change the path or the parts
CONSTANTS = [
    {},
    {"SMALL_WINDOW": 0},
    {"SMALL_WINDOW": 1 << 60},
    {"_PIXELS_AT_ONCE": 1},
    {"_PIXELS_AT_ONCE": 150},
    {"_PIXELS_AT_ONCE": 1 << 60},
    {"_MOST_RUNS": 1},
    {"_MOST_RUNS": 1 << 60},
    {"SMALL_WINDOW": 0, "_MOST_RUNS": 1},
]


@pytest.fixture(scope="session")
def numpy_backend():
    """What the work is cut into is the NumPy backend's affair."""
    return next(backend for backend in BACKENDS if backend.name == "numpy")


def assert_gathered(backend, problem: Problem, mode, dtype=np.float32):
    images, sources, _, patch_size, n_scales = problem
    found = backend.gather(images, sources, patch_size, mode=mode, n_scales=n_scales, dtype=dtype)
    expected = reference.gather(images, sources, patch_size, mode, n_scales)
    reference.assert_same(found, expected.astype(dtype))
    return found


@settings(max_examples=200)
@given(problem=problems(), mode=st.sampled_from(MODES))
def test_equal_to_reading_pixel_by_pixel(backend, problem, mode):
    assert_gathered(backend, problem, mode)


@settings(max_examples=80)
@given(problem=problems(centre="outside"), mode=st.sampled_from(MODES))
def test_equal_where_the_centre_is_outside_the_image(backend, problem, mode):
    assert_gathered(backend, problem, mode)


# the largest uint16 are infinite in float16, which has a test of its own
SMALL_DTYPES = tuple(dtype for dtype in DTYPES if dtype != "uint16")


@settings(max_examples=60)
@given(problem=problems(dtypes=SMALL_DTYPES), mode=st.sampled_from(MODES))
def test_float16_is_rounded_once(backend, problem, mode):
    assert_gathered(backend, problem, mode, np.float16)


def test_float16_is_infinite_beyond_its_range(backend):
    image = np.array([65504, 65519, 65520, 65535], np.uint16).reshape(1, 1, 2, 2)
    sources = ChannelSources(
        *np.zeros((2, 1, 1), np.int64), np.zeros((1, 1, 2), np.int64), np.array([0])
    )
    found = backend.gather([image], sources, (2, 2), dtype=np.float16)
    assert found.ravel().tolist() == [65504, 65504, np.inf, np.inf]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_copies_keep_nan_infinity_and_the_sign_of_zero(backend, dtype):
    image = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-5], dtype).reshape(1, 1, 2, 3)
    sources = ChannelSources(*np.zeros((2, 1, 1), np.int64), np.array([[[-1, -1]]]), np.array([0]))
    found = backend.gather([image], sources, (4, 5))
    expected = np.pad(image.astype(np.float32), [(0, 0), (0, 0), (1, 1), (1, 1)])
    reference.assert_same(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def test_patch_far_outside_is_zero(backend):
    image = distinct((1, 2, 6, 7), "uint8")
    coords = np.array([[[-5, 0]], [[0, 7]], [[6, -9]], [[-(2**40), 2**40]]])
    sources = ChannelSources(*np.zeros((2, 4, 1), np.int64), coords, np.array([1, 0]))
    reference.assert_same(
        backend.gather([image], sources, (5, 3)), np.zeros((4, 2, 5, 3), np.float32)
    )


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("correlated", [True, False])
@pytest.mark.parametrize("dtypes", [("uint16",), ("uint8", "float32", "bool")])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("constants", CONSTANTS, ids=repr)
def test_parts_do_not_change_the_result(
    numpy_backend, monkeypatch, n_dims, correlated, dtypes, inside, constants
):
    options = {"correlated": correlated, "inside": inside, "n_samples": 9}
    problem = random_problem(1, n_dims, 3, (7, 5, 6)[-n_dims:], 30, dtypes, **options)
    for mode in MODES:
        expected = assert_gathered(numpy_backend, problem, mode)
        for name, value in constants.items():
            monkeypatch.setattr(windows, name, value)
        reference.assert_same(assert_gathered(numpy_backend, problem, mode), expected)
        monkeypatch.undo()


@pytest.mark.parametrize("mode", MODES[1:])
@pytest.mark.parametrize("most_runs", [0, 8])
def test_windows_many_times_larger_than_the_image(backend, monkeypatch, mode, most_runs):
    monkeypatch.setattr(windows, "_MOST_RUNS", most_runs)
    images = [distinct((2, 2, 3, 1), "int16"), distinct((1, 2, 2, 5), "uint8")]
    sources = ChannelSources(
        np.array([[0], [1], [0]]),
        np.array([[1], [0], [0]]),
        np.array([[[-20, -40]], [[-3, -50]], [[-41, 0]]]),
        np.array([1, 0]),
    )
    problem = Problem(images, sources, None, (43, 60), 1)
    assert_gathered(backend, problem, mode)


def test_repeated_calls_are_bit_equal(backend):
    images, sources, _, patch_size, _ = random_problem(3, 2, 2, (9, 8), 40)
    calls = [backend.gather(images, sources, patch_size) for _ in range(3)]
    for call in calls[1:]:
        reference.assert_same(call, calls[0])


def test_images_are_only_read(backend):
    images, sources, _, patch_size, n_scales = random_problem(4, 2, 2, (9, 8), 40, ("float32",))
    before = [image.copy() for image in images]
    for image in images:
        image.setflags(write=False)
    for mode in MODES:
        found = backend.gather(images, sources, patch_size, mode=mode, n_scales=n_scales)
        assert not any(np.shares_memory(found, image) for image in images)
        found[...] = -1
    for image, copy in zip(images, before, strict=True):
        np.testing.assert_array_equal(image, copy)

"""Lateral context against the definition in float64, tap by tap."""

import warnings
from math import prod

import numpy as np
import pytest
import reference
from backends import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Problem, problems, random_problem

from gpu_patch import geometry
from gpu_patch._numpy import fir, windows
from gpu_patch._numpy import lateral_context as numpy_lateral_context
from gpu_patch.sources import ChannelSources

MODES = geometry.PADDING_MODES
# What the work is cut into; each is set to values that change the path or the parts
CONSTANTS = [
    {"_PIXELS_IN_CACHE": 1},
    {"_PIXELS_IN_CACHE": 8000},  # two windows of 2D or 3D
    {"_PIXELS_IN_CACHE": 12000},  # three
    {"_PIXELS_IN_CACHE": 1 << 60},
    {"_STRIP": 19},
    {"_STRIP": 100},
    {"_STRIP": 1 << 60},
    {"_MOST_BYTES": 1},
    {"_MOST_BYTES": 1 << 12},
    {"_MOST_BYTES": 1 << 16},
    {"_MOST_BYTES": 1 << 60},
    {"_MOST_BYTES": 1 << 12, "_PIXELS_IN_CACHE": 1 << 60},
    {"SMALL_WINDOW": 0},
    {"SMALL_WINDOW": 1 << 60},
    {"_PIXELS_AT_ONCE": 1},
    {"_PIXELS_AT_ONCE": 1 << 60},
    {"_MOST_RUNS": 0},
    {"_MOST_RUNS": 1 << 60},
    {"_ROWS": 1, "_COLUMNS": 1},
    {"_ROWS": 3, "_COLUMNS": 5},
    {"_ROWS": 1 << 20, "_COLUMNS": 1 << 20},
    {"_PIXELS_IN_CACHE": 1, "_STRIP": 7, "_MOST_BYTES": 1, "SMALL_WINDOW": 0, "_MOST_RUNS": 0},
]


@pytest.fixture(scope="session")
def numpy_backend():
    """What the work is cut into is the NumPy backend's affair."""
    return next(backend for backend in BACKENDS if backend.name == "numpy")


def run(backend, problem: Problem, mode, dtype=np.float32):
    images, sources, weights, patch_size, n_scales = problem
    return backend.lateral_context(
        images, sources, weights, patch_size, n_scales, mode=mode, dtype=dtype
    )


def assert_as_defined(backend, problem: Problem, mode):
    images, sources, weights, patch_size, n_scales = problem
    inputs, targets = run(backend, problem, mode)
    expected = reference.lateral_context(images, sources, weights, patch_size, n_scales, mode)
    reference.assert_filtered(inputs, expected[0])
    reference.assert_same(targets, expected[1])
    return inputs, targets


def set_constants(monkeypatch, constants):
    for name, value in constants.items():
        (module,) = (m for m in (numpy_lateral_context, windows, fir) if hasattr(m, name))
        monkeypatch.setattr(module, name, value)


@settings(max_examples=150)
@given(problem=problems(), mode=st.sampled_from(MODES))
def test_equal_to_the_definition(backend, problem, mode):
    assert_as_defined(backend, problem, mode)


@settings(max_examples=80)
@given(problem=problems(centre="outside"), mode=st.sampled_from(MODES))
def test_equal_where_the_centre_is_outside_the_image(backend, problem, mode):
    assert_as_defined(backend, problem, mode)


@settings(max_examples=60)
@given(problem=problems(scales=[4, 5], most_channels=2), mode=st.sampled_from(MODES))
def test_equal_for_many_scales(backend, problem, mode):
    assert_as_defined(backend, problem, mode)


@settings(max_examples=60)
@given(problem=problems(scales=[2, 3]), mode=st.sampled_from(MODES))
def test_float16_is_the_rounded_float32(backend, problem, mode):
    with np.errstate(over="ignore"):
        found = run(backend, problem, mode, np.float16)
        expected = [array.astype(np.float16) for array in run(backend, problem, mode)]
    for array, rounded in zip(found, expected, strict=True):
        reference.assert_same(array, rounded)


@pytest.mark.parametrize("mode", MODES)
def test_equal_for_contexts_far_larger_than_the_image(backend, mode):
    images = [
        random_problem(0, 2, 1, (2, 3), size, ("uint16",), n_channels=2).images[0]
        for size in (9, 60, 700)
    ]
    for i, image in enumerate(images):
        n_y, n_x = image.shape[2:]
        sources = ChannelSources(
            np.array([[i], [i]]),
            np.array([[1], [0]]),
            np.array([[[0, n_x // 2]], [[n_y - 1, n_x - 2]]]),
            np.array([1, 0]),
        )
        weights = np.array([[0.5, 1.5], [0.25, 0.75]], np.float32)
        assert_as_defined(backend, Problem(images, sources, weights, (2, 3), 8), mode)


def test_large_windows_are_never_in_memory_as_a_whole(numpy_backend, monkeypatch):
    lent = []

    def spy(shape, dtype):
        lent.append(prod(shape) * np.dtype(dtype).itemsize)
        return take(shape, dtype)

    take = numpy_lateral_context.pool.take
    monkeypatch.setattr(numpy_lateral_context.pool, "take", spy)
    set_constants(monkeypatch, {"_MOST_BYTES": 1 << 20, "_PIXELS_IN_CACHE": 1})
    # one window of the largest scale takes 0.5 MB per channel, and 1 MB mixed
    problem = random_problem(0, 2, 6, (16, 15), 600, ("uint16",), n_samples=3)
    run(numpy_backend, problem, "reflect")
    assert max(lent) < 1 << 19


def test_float16_is_infinite_beyond_its_range(backend):
    images = [np.full((1, 1, 5, 5), 65535, np.uint16)]
    sources = ChannelSources(
        *np.zeros((2, 1, 1), np.int64), np.zeros((1, 1, 2), np.int64), np.array([0])
    )
    problem = Problem(images, sources, np.ones((1, 1), np.float32), (2, 2), 2)
    inputs, targets = run(backend, problem, "reflect", np.float16)
    assert np.isposinf(inputs).all()
    assert np.isposinf(targets).all()


@pytest.mark.parametrize("mode", MODES)
def test_windows_many_times_larger_than_the_image(backend, mode):
    rng = np.random.default_rng(0)
    images = [
        rng.permutation(12).reshape(1, 2, 3, 2).astype(np.uint8),
        rng.permutation(10).reshape(1, 2, 1, 5).astype(np.int16),
        rng.permutation(2).reshape(1, 2, 1, 1).astype(np.float32),
    ]
    sources = ChannelSources(
        np.array([[0, 1], [1, 2], [2, 0]]),
        np.zeros((3, 2), int),
        np.array([[[-5, -4], [-5, -2]], [[-5, -1], [-5, -4]], [[-5, -4], [-3, -3]]]),
        np.array([1, 0]),
    )
    weights = rng.uniform(0.5, 2, (3, 2)).astype(np.float32)
    for n_scales in (1, 3, 5):
        assert_as_defined(backend, Problem(images, sources, weights, (10, 9), n_scales), mode)


@pytest.mark.parametrize(
    ("n_dims", "correlated", "dtypes"),
    [
        (2, True, ("uint16",)),
        (2, False, ("uint8", "float32", "bool")),
        (3, True, ("uint8", "float32", "bool")),
        (3, False, ("uint16",)),
    ],
)
@pytest.mark.parametrize("constants", CONSTANTS, ids=repr)
def test_parts_do_not_change_the_result(
    numpy_backend, monkeypatch, n_dims, correlated, dtypes, constants
):
    problem = random_problem(
        2, n_dims, 4 - n_dims + 2, (9, 6) if n_dims == 2 else (4, 3, 5), 50, dtypes,
        correlated=correlated, n_samples=7,
    )  # fmt: skip
    for mode in MODES:
        inputs, targets = run(numpy_backend, problem, mode)
        set_constants(monkeypatch, constants)
        found = run(numpy_backend, problem, mode)
        monkeypatch.undo()
        reference.assert_filtered(found[0], inputs)
        reference.assert_same(found[1], targets)
        # mixed in the same order
        np.testing.assert_array_equal(found[0][:, 0], inputs[:, 0])


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("most_bytes", [1, 1 << 10, 1 << 14])
@pytest.mark.parametrize("mode", MODES)
def test_slabs_are_the_definition(numpy_backend, monkeypatch, n_dims, most_bytes, mode):
    slabs = []

    def spy(mixer, samples, out):
        slabs.append(len(out))
        slab_by_slab(mixer, samples, out)

    slab_by_slab = numpy_lateral_context._slab_by_slab
    monkeypatch.setattr(numpy_lateral_context, "_slab_by_slab", spy)
    set_constants(monkeypatch, {"_MOST_BYTES": most_bytes, "_PIXELS_IN_CACHE": 1500})
    problem = random_problem(5, n_dims, 3, (9, 6, 5)[:n_dims], 40, ("uint16", "float32"))
    assert_as_defined(numpy_backend, problem, mode)
    assert sum(slabs) == 5  # every sample went that way


@pytest.mark.parametrize("n_channels", [1, 2, 4])
@pytest.mark.parametrize("strip", [1, 13, 1 << 20])
def test_mixing_is_a_weighted_sum(monkeypatch, n_channels, strip):
    monkeypatch.setattr(numpy_lateral_context, "_STRIP", strip)
    rng = np.random.default_rng(n_channels)
    channels = rng.integers(0, 2**16, (3, n_channels, 5, 7), dtype=np.uint16)
    weights = rng.uniform(-1, 2, (3, n_channels)).astype(np.float32)
    out = np.full((3, 5, 7), np.nan, np.float32)
    numpy_lateral_context.mix(channels, weights, out)
    expected = np.einsum("bcyx,bc->byx", channels.astype(np.float64), weights.astype(np.float64))
    reference.assert_filtered(out, expected)


def with_odd_pixels(problem, values, seed):
    """Put values that are no finite numbers into floating-point images."""
    rng = np.random.default_rng(seed)
    for image in problem.images:
        if image.dtype.kind == "f":
            at = rng.choice(image.size, min(image.size, 1 + image.size // 300), replace=False)
            image.flat[at] = rng.choice(values, len(at))
    return problem


ODD_VALUES = {"nan": [np.nan], "inf": [np.inf], "all": [np.nan, np.inf, -np.inf]}


@pytest.mark.parametrize("values", ODD_VALUES.values(), ids=ODD_VALUES)
@settings(max_examples=30)
@given(
    problem=problems(scales=range(1, 5), dtypes=("float16", "float32", "uint8")),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 99),
)
def test_nan_and_infinity_reach_as_far_as_the_taps(backend, problem, mode, seed, values):
    with np.errstate(all="ignore"):
        assert_as_defined(backend, with_odd_pixels(problem, values, seed), mode)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("most_bytes", [1, 1 << 28])
def test_one_odd_pixel_gives_no_warning(backend, monkeypatch, value, most_bytes):
    monkeypatch.setattr(numpy_lateral_context, "_MOST_BYTES", most_bytes)
    problem = random_problem(0, 2, 4, (16, 17), 160, ("float32",), n_channels=1)
    problem.images[0][:, :, 60, 70] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs, _ = run(backend, problem, "reflect")
    assert not np.isfinite(inputs).all()
    with np.errstate(all="ignore"):
        assert_as_defined(backend, problem, "reflect")


def test_weights_that_overflow_reach_as_far_as_the_taps(backend):
    image = np.zeros((1, 1, 90, 90), np.uint16)
    image[..., 40, 50] = 65535
    sources = ChannelSources(*np.zeros((2, 1, 1), np.int64), np.array([[[36, 46]]]), np.array([0]))
    problem = Problem([image], sources, np.full((1, 1), 1e37, np.float32), (9, 8), 3)
    with np.errstate(all="ignore"):
        inputs, _ = run(backend, problem, "reflect")
    image = np.where(image > 0, np.inf, 0)
    expected, _ = reference.lateral_context([image], sources, np.ones((1, 1)), (9, 8), 3, "reflect")
    np.testing.assert_array_equal(inputs, expected)


def test_repeated_calls_are_bit_equal(backend):
    problem = random_problem(3, 2, 4, (33, 20), 200)
    first = run(backend, problem, "reflect")
    for _ in range(3):
        for again, before in zip(run(backend, problem, "reflect"), first, strict=True):
            reference.assert_same(again, before)


@pytest.mark.parametrize(
    ("patch_size", "value"),
    [
        ((24, 21), 1),
        ((24, 21), np.nan),
        ((11, 9), np.nan),
        ((64, 64), 1),
        ((1, 1), np.nan),
        ((4, 5, 3), 1),
        ((9, 8, 7), np.nan),
    ],
)
def test_a_sample_is_bit_equal_in_any_batch(backend, patch_size, value):
    images, sources, weights, _, n_scales = random_problem(
        6, len(patch_size), 6 - len(patch_size), patch_size, 150 // len(patch_size),
        ("float32", "uint8"), n_samples=6,
    )  # fmt: skip
    images[0][1, :, ..., 7, 7] = value  # in some of the samples
    inputs, targets = run(
        backend, Problem(images, sources, weights, patch_size, n_scales), "reflect"
    )
    for part in (slice(0, 1), slice(3, 4), slice(2, 5), slice(None, None, -1)):
        fewer = ChannelSources(
            sources.image_idx[part],
            sources.sample_idx[part],
            sources.coords[part],
            sources.channels,
        )
        problem = Problem(images, fewer, weights[part], patch_size, n_scales)
        found = run(backend, problem, "reflect")
        reference.assert_same(found[0], np.ascontiguousarray(inputs[part]))
        reference.assert_same(found[1], np.ascontiguousarray(targets[part]))


def test_images_are_only_read(backend):
    problem = random_problem(4, 2, 3, (9, 8), 40, ("float32", "uint16"))
    before = [image.copy() for image in problem.images]
    for image in problem.images:
        image.setflags(write=False)
    for array in run(backend, problem, "reflect"):
        assert not any(np.shares_memory(array, image) for image in problem.images)
        array[...] = -1
    for image, copy in zip(problem.images, before, strict=True):
        np.testing.assert_array_equal(image, copy)

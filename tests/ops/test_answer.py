"""What leaves a slab, and quantiles, against plain NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_patch import ops

WHOLE = ["uint8", "int8", "uint16", "int16"]
FACTORS = np.array([[2.0, 0.25, -3.0], [1.5, -7.25, 0.0]], np.float32)
CENTERS = np.array([100.0, 0.0, -40.5], np.float32)
SCALING = (np.float32(-12.5), np.float32(1 / 0.3))


def made(backend, slab, axis, rows, dtype, *, argmax=False, **options):
    """The answer, and whether a flag is set."""
    shape = list(slab.shape)
    shape[0], shape[axis] = 1 if argmax else len(slab), rows.stop - rows.start
    with backend.running():
        out = backend.array(np.zeros(shape, dtype))
        flags = backend.array(np.full(ops.flags_of(tuple(shape)), 9, np.uint8))
        before = slab.copy()
        there = backend.array(slab)
        ops.answer(there, axis, rows, out, flags, argmax=argmax, **options)
        found, flags, there = map(backend.to_host, (out, flags, there))
        np.testing.assert_array_equal(there, before)
    assert set(flags.tolist()) <= {0, 1}
    return found, bool(flags.any())


def steps(values, factors, centers, scaling):
    """What happens to values, one rounding after the other."""
    along = (-1, *[1] * (values.ndim - 1))
    if factors is not None:
        values = values * factors[0].reshape(along) + factors[1].reshape(along)
    if centers is not None:
        values = values + centers.reshape(along)
    return values if scaling is None else (values - scaling[0]) * scaling[1]


def converted(values, dtype):
    """Half to even, and cut."""
    if np.dtype(dtype).kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)


def a_slab(shape, seed=0):
    """Values of which many lie between two whole numbers, and some beyond any type."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(0, 300, shape) * 2) / 2
    values[rng.random(shape) < 0.02] = 1e6
    values[rng.random(shape) < 0.02] = -1e6
    return values.astype(np.float32)


@pytest.mark.parametrize("dtype", [*WHOLE, "float16", "float32"])
@pytest.mark.parametrize(
    ("shape", "axis", "rows"),
    [
        ((3, 37, 23), 1, slice(5, 30)),
        ((3, 37, 23), 2, slice(22, 23)),
        ((3, 7, 11, 131), 2, slice(0, 11)),  # of several blocks a plane
        ((3, 5, 6, 7), 3, slice(2, 6)),
    ],
)
def test_values_are_taken_back_scaled_and_rounded(backend, shape, axis, rows, dtype):
    slab = a_slab(shape)
    kept = slab[(slice(None),) * axis + (rows,)]
    for factors, centers, scaling in (
        (None, None, None),
        (FACTORS, None, None),
        (None, CENTERS, SCALING),
        (FACTORS, CENTERS, SCALING),
    ):
        options = {"factors": factors, "centers": centers, "scaling": scaling}
        found, is_bad = made(backend, slab, axis, rows, dtype, **options)
        assert not is_bad
        np.testing.assert_array_equal(found, converted(steps(kept, **options), dtype))


def test_half_to_even_and_the_ends_of_each_type(backend):
    for dtype in WHOLE:
        limits = np.iinfo(dtype)
        edges = np.arange(-3, 4) / 2
        values = np.concatenate([limits.min + edges, limits.max + edges, edges, [-0.0, 1e-40]])
        slab = values.astype(np.float32).reshape(1, 1, -1)
        found, _ = made(backend, slab, 1, slice(0, 1), dtype)
        expected = np.clip(np.rint(values), limits.min, limits.max)
        np.testing.assert_array_equal(found[0, 0], expected.astype(dtype))
    # 0.5, 1.5 and 2.5 once more, in plain words
    slab = np.array([[[0.5, 1.5, 2.5, -0.5, -1.5]]], np.float32)
    assert made(backend, slab, 1, slice(0, 1), "int8")[0].ravel().tolist() == [0, 2, 2, 0, -2]


def test_float32_keeps_its_bits(backend):
    slab = np.array([0.0, -0.0, 1e-40, -1e-45, np.inf, -np.inf, np.nan, 3e38], np.float32)
    found, is_bad = made(backend, slab.reshape(1, 2, 4), 1, slice(0, 2), "float32")
    np.testing.assert_array_equal(found.ravel().view(np.uint32), slab.view(np.uint32))
    assert not is_bad


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 3, 0), (1, 99, 112), (1, 41, 57)])
def test_one_value_that_is_not_finite_sets_a_flag(backend, dtype, value, place):
    slab = a_slab((2, 101, 113))
    slab[place] = value
    rows = slice(3, 100)
    assert made(backend, slab, 1, rows, dtype)[1]
    for at, length in ((slice(0, 3), 3), (slice(100, 101), 1)):
        assert not made(backend, slab, 1, at, dtype)[1], length


@pytest.mark.parametrize("dtype", WHOLE)
@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 37, 23), 1), ((100, 9, 31), 2), ((7, 3, 5, 9), 1)]
)
def test_the_number_of_the_largest_plane(backend, shape, axis, dtype):
    # many equal values: the first of them counts
    slab = np.random.default_rng(1).integers(-3, 4, shape).astype(np.float32)
    slab[:, 0, 0] = -np.inf
    rows = slice(0, shape[axis]) if axis == 2 else slice(0, 2)
    found, is_bad = made(backend, slab, axis, rows, dtype, argmax=True)
    expected = np.argmax(slab[(slice(None),) * axis + (rows,)], axis=0)
    np.testing.assert_array_equal(found[0], expected)
    assert not is_bad
    slab[shape[0] - 1, 0, 2] = np.nan
    assert made(backend, slab, axis, rows, dtype, argmax=True)[1]


def test_the_largest_of_subnormal_numbers_and_zeros(backend):
    planes = np.array([[-0.0, 0.0, 1e-45, -1e-45], [0.0, -0.0, 3e-45, 0.0]], np.float32)
    found, _ = made(backend, planes[:, None], 1, slice(0, 1), "uint8", argmax=True)
    assert found.ravel().tolist() == [0, 0, 1, 1]


def test_the_largest_of_what_is_taken_back(backend):
    slab = a_slab((3, 20, 17))
    options = {"factors": FACTORS, "centers": CENTERS}
    found, _ = made(backend, slab, 2, slice(3, 16), "uint16", argmax=True, **options)
    expected = np.argmax(steps(slab[:, :, 3:16], **options, scaling=None), axis=0)
    np.testing.assert_array_equal(found[0], expected)
    assert (expected != np.argmax(slab[:, :, 3:16], axis=0)).any()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, n) for n in (4, 9, 11, 13)]),
    data=st.data(),
    dtype=st.sampled_from([*WHOLE, "float16", "float32"]),
    argmax=st.booleans(),
)
def test_any_shape(backend, shape, data, dtype, argmax):
    axis = data.draw(st.integers(1, 3))
    start = data.draw(st.integers(0, shape[axis] - 1))
    rows = slice(start, data.draw(st.integers(start + 1, shape[axis])))
    dtype = "uint8" if argmax else dtype
    slab = a_slab(shape, 3)
    found, _ = made(backend, slab, axis, rows, dtype, argmax=argmax)
    kept = slab[(slice(None),) * axis + (rows,)]
    expected = np.argmax(kept, axis=0)[None] if argmax else converted(kept, dtype)
    np.testing.assert_array_equal(found, expected)


# ---- quantiles ---------------------------------------------------------------------------------


def quantiles(backend, samples, at):
    _, n_tiles, n_channels, *size = samples.shape
    with backend.running():
        out = backend.array(np.zeros((n_tiles, n_channels * len(at), *size), np.float32))
        ops.quantiles(backend.array(samples), out, at)
        return backend.to_host(out)


def expected_quantiles(samples, at):
    found = np.quantile(samples.astype(np.float64), at, axis=0)  # Q, B, C, …
    found = np.moveaxis(found, 0, 2)
    return found.reshape(found.shape[0], -1, *found.shape[3:])


AT = (0.0, 0.05, 0.25, 0.5, 0.9, 1.0)


@pytest.mark.parametrize("n_samples", [*range(1, 18), 31, 33, 50])
def test_quantiles_of_any_number_of_samples(backend, n_samples):
    samples = np.random.default_rng(n_samples).normal(0, 1, (n_samples, 2, 3, 5, 7))
    samples = np.round(samples, 1).astype(np.float32)  # some equal ones
    found = quantiles(backend, samples.copy(), AT)
    np.testing.assert_allclose(found, expected_quantiles(samples, AT), rtol=0, atol=3e-7)
    ordered = np.sort(samples, axis=0)
    np.testing.assert_array_equal(
        found[:, ::6], ordered[0]
    )  # the smallest and the largest, exactly
    np.testing.assert_array_equal(found[:, 5::6], ordered[-1])


def test_quantiles_of_what_is_not_finite(backend):
    samples = np.random.default_rng(0).normal(0, 1, (5, 1, 1, 3, 300)).astype(np.float32)
    samples[2, 0, 0, 1, 3] = np.nan
    samples[:2, 0, 0, 1, 4] = np.inf
    samples[0, 0, 0, 1, 5] = -np.inf
    found = quantiles(backend, samples.copy(), (0.1, 0.5, 0.8))
    assert np.isnan(found[0, :, 1, 3]).all()
    assert np.isnan(found).sum() == 3
    assert found[0, 2, 1, 4] == np.inf
    assert np.isfinite(found[0, :2, 1, 4]).all()
    assert found[0, 0, 1, 5] == -np.inf


def test_quantiles_of_large_values_and_zeros(backend):
    samples = np.zeros((3, 1, 1, 1, 3), np.float32)
    samples[..., 0] = np.array([-3e38, 3e38, 3e38]).reshape(3, 1, 1, 1)
    samples[..., 1] = -0.0
    samples[..., 2] = np.array([3e-45, 1e-45, 1e-40]).reshape(3, 1, 1, 1)
    found = quantiles(backend, samples, (0.25, 0.5))
    assert found[0, 0, 0, 0] == 0
    assert found[0, 1, 0].view(np.uint32).tolist()[1] == 0
    assert found[0, 1, 0, 2] == np.float32(3e-45)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, n) for n in (20, 3, 3, 4, 70)]),
    at=st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_the_same_bits_as_numpys(backend, shape, at):
    from backends import Backend

    samples = np.random.default_rng(sum(shape)).normal(5, 9, shape).astype(np.float32)
    found = quantiles(backend, samples.copy(), at)
    expected = quantiles(Backend(), samples.copy(), at)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_what_does_not_fit_is_refused():
    slab, flags = np.zeros((2, 5, 7), np.float32), np.zeros(2, np.uint8)
    rows, out = slice(1, 4), np.zeros((2, 3, 7), np.uint8)
    with pytest.raises(ValueError, match=r"out must be of the shape \(2, 3, 7\)"):
        ops.answer(slab, 1, rows, out[:1], flags)
    with pytest.raises(ValueError, match="found int64"):
        ops.answer(slab, 1, rows, out.astype(np.int64), flags)
    with pytest.raises(ValueError, match=r"rows must be of the 5 of the slab"):
        ops.answer(slab, 1, slice(3, 6), out, flags)
    with pytest.raises(ValueError, match="out must be of whole numbers for argmax"):
        ops.answer(slab, 1, rows, out[:1].astype(np.float32), flags[:1], argmax=True)
    with pytest.raises(ValueError, match=r"flags must be uint8 of the shape \(2,\)"):
        ops.answer(slab, 1, rows, out, flags[:1])
    with pytest.raises(ValueError, match="slab must be C-contiguous float32"):
        ops.answer(slab.astype(np.float64), 1, rows, out, flags)
    samples = np.zeros((4, 2, 3, 5, 7), np.float32)
    with pytest.raises(ValueError, match=r"out must be of the shape \(2, 6, 5, 7\)"):
        ops.quantiles(samples, np.zeros((2, 3, 5, 7), np.float32), (0.1, 0.9))
    with pytest.raises(ValueError, match="samples must be C-contiguous float32"):
        ops.quantiles(samples[..., :3], np.zeros((2, 3, 5, 3), np.float32), (0.5,))

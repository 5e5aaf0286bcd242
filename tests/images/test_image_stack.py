"""Axes, data types and patches of image stacks, against definitions written out pixel by pixel."""

import itertools
import warnings

import numpy as np
import pytest

from gpu_patch import ImageStack


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    """What these tests prove is the same everywhere; images stay where NumPy can look at them."""
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


LENGTHS = {"S": 2, "T": 3, "C": 2, "Z": 2, "Y": 3, "X": 4}
STORED = ["bool", "uint8", "int8", "uint16", "int16", "float16", "float32"]
CONVERTED = ["float64", "int32", "uint32", "int64", "uint64", "longdouble"]


def numbered(axes, dtype=np.int16):
    """An array whose pixels all differ."""
    shape = [LENGTHS[axis] for axis in axes]
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize(
    "subset", ["".join(s) for n in range(5) for s in itertools.combinations("STCZ", n)]
)
def test_every_order_of_every_subset_of_axes(subset):
    for order in itertools.permutations(subset + "YX"):
        axes = "".join(order)
        data = numbered(axes)
        stack = ImageStack.from_array(data, axes)
        size = {axis: LENGTHS[axis] if axis in axes else 1 for axis in LENGTHS}
        spatial = (size["Z"],) * ("Z" in axes) + (size["Y"], size["X"])
        assert stack.data_shape == (size["S"] * size["T"], size["C"], *spatial)
        assert stack.data_shape == stack.data.shape
        assert stack.original_axes == axes
        assert stack.original_data_shape == data.shape
        assert stack.data.flags.c_contiguous
        for at in itertools.product(*map(range, size.values())):
            place = dict(zip(size, at, strict=True))
            sample = place["S"] * size["T"] + place["T"]  # S outermost
            where = (place["Z"],) * ("Z" in axes) + (place["Y"], place["X"])
            given = data[tuple(place[axis] for axis in axes)]
            assert stack.data[(sample, place["C"], *where)] == given


@pytest.mark.parametrize("dtype", STORED)
def test_stored_types_stay_and_are_not_copied(dtype):
    for axes in ("SCZYX", "SCYX", "YX", "CYX", "TZYX", "ZYX", "STYX"):
        data = numbered(axes, dtype)
        stack = ImageStack.from_array(data, axes)
        assert stack.data.dtype == stack.data_dtype == np.dtype(dtype)
        assert np.shares_memory(stack.data, data)
        assert np.array_equal(stack.data.ravel(), data.ravel())


def test_no_copy_where_the_axes_are_contiguous_in_another_order():
    data = numbered("XYC", np.uint8)
    fortran = np.asfortranarray(data)
    assert np.shares_memory(ImageStack.from_array(fortran, "XYC").data, fortran)
    assert not np.shares_memory(ImageStack.from_array(data, "XYC").data, data)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("view", ["strided", "reversed", "transposed", "readonly", "unaligned"])
def test_views_give_the_same_pixels(dtype, view):
    data = numbered("CYX", dtype)
    made = {
        "strided": lambda: np.repeat(np.repeat(data, 2, axis=1), 3, axis=2)[:, ::2, ::3],
        "reversed": lambda: data[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
        "transposed": lambda: data.transpose(2, 0, 1).copy().transpose(1, 2, 0),
        "readonly": lambda: np.frombuffer(data.tobytes(), dtype).reshape(data.shape),
        "unaligned": lambda: np.frombuffer(b"\0" + data.tobytes(), dtype, offset=1).reshape(
            data.shape
        ),
    }[view]()
    stack = ImageStack.from_array(made, "CYX")
    assert stack.data.dtype == np.dtype(dtype)
    assert np.array_equal(stack.data[0], data)
    expected = data[1:, 1:, 1:3].astype(np.float32)
    assert np.array_equal(stack.extract_patch(0, [1], (1, 1), (2, 2)), expected)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float16", "float32"])
def test_stored_types_of_the_other_byte_order_become_native(dtype):
    data = numbered("CYX", np.dtype(dtype).newbyteorder())
    stack = ImageStack.from_array(data, "CYX")
    assert stack.data.dtype == np.dtype(dtype)
    assert stack.data.dtype.isnative
    assert stack.data_dtype == data.dtype
    assert np.array_equal(stack.data[0], data)


@pytest.mark.parametrize("dtype", CONVERTED)
@pytest.mark.parametrize("swapped", [False, True])
def test_other_types_become_float32(dtype, swapped):
    kind = np.dtype(dtype).newbyteorder() if swapped else np.dtype(dtype)
    data = numbered("CYX", kind)
    stack = ImageStack.from_array(data, "CYX")
    assert stack.data.dtype == np.float32
    assert stack.data.dtype.isnative
    assert stack.data_dtype == kind
    assert stack.metadata["dtype"] == str(kind)
    assert np.array_equal(stack.data[0], data)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64", ">i4", ">u8"])
@pytest.mark.parametrize("sign", [1, -1])
def test_warning_only_where_integers_lose_precision(dtype, sign):
    if sign < 0 and np.dtype(dtype).kind == "u":
        sign = 1
    data = np.zeros((3, 4), dtype)
    data[1, 2] = sign * 2**24
    ImageStack.from_array(data, "YX")
    data[1, 2] += sign
    with pytest.warns(UserWarning, match=r"2\^24.*lose precision") as caught:
        ImageStack.from_array(data, "YX")
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("largest", "step"),
    [(2**24 + 99, 2), (2**25, 2), (2**25 + 99, 4), (100_000_045, 8), (-(2**31), 128)],
)
def test_the_warning_says_how_many_grey_levels_are_lost(largest, step):
    data = np.zeros((3, 4), np.int64)
    data[2, 1] = largest
    near = abs(largest) - np.arange(8 * step)
    assert len(set(near.astype(np.float32))) in (8, 9)
    wanted = rf"near {abs(largest)} only multiples of {step} are kept, {step - 1} of {step} "
    with pytest.warns(UserWarning, match=wanted):
        ImageStack.from_array(data, "YX")


def test_extreme_integers():
    for dtype in (np.int64, np.uint64):
        limits = np.iinfo(dtype)
        data = np.array([[limits.min, limits.max]], dtype)
        with pytest.warns(UserWarning, match="lose precision"):
            stack = ImageStack.from_array(data, "YX")
        assert np.array_equal(stack.data.ravel(), data.ravel().astype(np.float32))


def test_no_warning_for_floats_and_stored_types():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageStack.from_array(np.full((3, 4), 2.0**30 + 1), "YX")
        ImageStack.from_array(np.full((3, 4), 65535, np.uint16), "YX")


def test_lists_of_numbers():
    stack = ImageStack.from_array([[1, 2], [3, 4]], "YX")
    assert stack.data.tolist() == [[[[1, 2], [3, 4]]]]
    assert stack.data.dtype == np.float32


@pytest.mark.parametrize(("dtype", "itemsize"), [("bool", 1), ("uint16", 2), ("float64", 4)])
def test_nbytes_are_those_of_what_is_kept(dtype, itemsize):
    assert ImageStack.from_array(numbered("TCYX", dtype), "TCYX").nbytes == 72 * itemsize


def test_metadata_and_attributes():
    stack = ImageStack.from_array(numbered("XTCY", np.uint16), "XTCY", device="cpu")
    expected = {
        "source": "array",
        "dtype": "uint16",
        "data_shape": (3, 2, 3, 4),
        "original_data_shape": (4, 3, 2, 3),
        "additional_metadata": {},
    }
    assert stack.metadata == expected
    changed = stack.metadata
    changed["additional_metadata"]["mine"] = changed["data_shape"] = 1
    assert stack.metadata == expected
    assert stack.source == "array"
    assert stack.device == "cpu"
    assert all(type(n) is int for n in stack.data_shape + stack.original_data_shape)
    assert "(3, 2, 3, 4)" in repr(stack)
    assert "uint16" in repr(stack)


def plain_patch(data, sample, channels, coords, size):
    """The definition: a pixel at a time, zero outside."""
    channels = range(data.shape[1]) if channels is None else channels
    patch = np.zeros((len(channels), *size), np.float32)
    for c, *offset in np.ndindex(*patch.shape):
        at = [x + o for x, o in zip(coords, offset, strict=True)]
        if all(0 <= x < n for x, n in zip(at, data.shape[2:], strict=True)):
            patch[(c, *offset)] = data[(sample, channels[c], *at)]
    return patch


CHANNELS = [None, [0], [1], [2, 0], [1, 1], (2, 1, 0), np.array([0, 2])]


@pytest.mark.parametrize("dtype", [*STORED, "float64", ">u2"])
@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (2, 3, 4, 6, 5), (1, 3, 1, 9)])
def test_patches_are_zero_beyond_the_image(dtype, shape):
    rng = np.random.default_rng(len(shape))
    data = rng.integers(0, 100, shape).astype(dtype)
    stack = ImageStack.from_array(data, "SCYX" if len(shape) == 4 else "SCZYX")
    for trial in range(60):
        size = rng.integers(1, 9, len(shape) - 2).tolist()
        coords = rng.integers(-9, 10, len(shape) - 2)
        sample = int(rng.integers(shape[0]))
        channels = CHANNELS[trial % len(CHANNELS)]
        patch = stack.extract_patch(sample, channels, coords, size)
        expected = plain_patch(data, sample, channels, coords.tolist(), size)
        assert patch.dtype == np.float32
        assert np.array_equal(patch, expected)


def test_patch_of_the_whole_image_and_far_away():
    data = numbered("SCYX", np.uint16)
    stack = ImageStack.from_array(data, "SCYX")
    assert np.array_equal(stack.extract_patch(1, None, (0, 0), (3, 4)), data[1])
    assert np.array_equal(stack.extract_patch(-2, None, [0, 0], [3, 4]), data[0])
    for far in ((10**9, 0), (0, -(10**9)), (2**40, -(2**40)), (3, 0), (0, -4)):
        assert not stack.extract_patch(1, None, far, (3, 4)).any()


def test_special_values_survive():
    data = np.array([[np.nan, np.inf, -np.inf, -0.0, 65504, 1e-8]], np.float16)
    patch = ImageStack.from_array(data, "YX").extract_patch(0, None, (0, -1), (1, 8))
    assert patch.tobytes() == np.pad(data, [(0, 0), (1, 1)]).astype(np.float32).tobytes()
    truth = ImageStack.from_array(np.array([[True, False]]), "YX")
    assert truth.extract_patch(0, None, (0, 0), (1, 2)).tolist() == [[[1.0, 0.0]]]


def test_patches_are_not_the_image():
    data = numbered("YX", np.float32)
    stack = ImageStack.from_array(data, "YX")
    patch = stack.extract_patch(0, None, (0, 0), (3, 4))
    patch += 1
    assert np.array_equal(stack.data[0, 0], numbered("YX", np.float32))

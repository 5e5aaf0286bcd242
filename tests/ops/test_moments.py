"""Mean and standard deviation of samples that come one at a time."""

import numpy as np
import pytest
import reference

from gpu_patch import device as devices
from gpu_patch import ops
from gpu_patch.ops.moments import add_sample


def placed(array, device):
    return devices.place(array, array.dtype, device)[0]


def moments_of(samples, device="cpu"):
    _, n_tiles, n_channels, *size = samples.shape
    undefined = np.full((n_tiles, 2 * n_channels, *size), np.nan, np.float32)
    moments = placed(undefined, device)
    for number, values in enumerate(samples, 1):
        add_sample(placed(values, device), moments, number, len(samples))
    return reference.on_host(moments)


# 5000 values: more than one block of the kernel
@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (1, 1, 50, 100), (2, 3, 4, 5, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("n_samples", [2, 3, 10])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_they_are_those_of_all_samples_at_once(shape, n_samples, dtype, device):
    samples = np.random.default_rng(1).normal(100, 3, (n_samples, *shape)).astype(dtype)
    found = moments_of(samples, device)
    exact = samples.astype(np.float64)
    mean, spread = np.split(found, 2, axis=1)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(spread, exact.std(axis=0, ddof=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found, moments_of(samples))


def test_equal_samples_have_no_spread(device):
    values = np.full((4, 1, 1, 3, 3), 0.1, np.float32)
    mean, spread = np.split(moments_of(values, device), 2, axis=1)
    assert (mean == np.float32(0.1)).all()
    assert (spread == 0).all()


@pytest.mark.parametrize(
    ("values", "moments", "numbers", "error", "words"),
    [
        ((2, 3, 4, 4), (2, 6, 4, 4), (0, 2), ValueError, ["number", "0 and 2"]),
        ((2, 3, 4, 4), (2, 6, 4, 4), (3, 2), ValueError, ["number", "3 and 2"]),
        ((2, 3, 4, 4), (2, 6, 4, 4), (1, 1), ValueError, ["at least 2"]),
        ((2, 3, 4, 4), (2, 3, 4, 4), (1, 2), ValueError, ["(2, 6, 4, 4)", "(2, 3, 4, 4)"]),
    ],
)
def test_wrong_arguments(values, moments, numbers, error, words):
    with pytest.raises(error) as raised:
        add_sample(np.zeros(values, np.float32), np.zeros(moments, np.float32), *numbers)
    for word in words:
        assert word in str(raised.value)


def test_wrong_types_and_layouts():
    values, moments = np.zeros((1, 2, 4, 4), np.float32), np.zeros((1, 4, 4, 4), np.float32)
    with pytest.raises(ValueError, match="float64"):
        add_sample(values.astype(np.float64), moments, 1, 2)
    with pytest.raises(ValueError, match="C-contiguous"):
        add_sample(values.transpose(0, 1, 3, 2), moments, 1, 2)
    with pytest.raises(ValueError, match="moments must be C-contiguous"):
        add_sample(values, moments.transpose(0, 1, 3, 2), 1, 2)
    with pytest.raises(TypeError, match="values must be NumPy or CuPy arrays, found list"):
        add_sample([1], moments, 1, 2)


def test_it_is_an_operation_of_the_package():
    assert ops.add_sample is add_sample

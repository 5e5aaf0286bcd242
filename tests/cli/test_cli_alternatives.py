"""What the bench measures beside gpu_patch does the same job: here with NumPy, SciPy and torch."""

import numpy as np
import pytest

from gpu_patch import ops
from gpu_patch.cli.bench import baselines
from gpu_patch.constructors.plan import Plan, Read, Specs
from gpu_patch.sources import ChannelSources

PATCHES = [(16, 12), (4, 8, 6)]
N_SCALES = 3


def make_plan(patch_size, image, n_samples=6):
    """Patches anywhere in an image, the first at its very corner."""
    rng = np.random.default_rng(0)
    last = np.array(image.shape[2:]) - patch_size
    coords = rng.integers(0, last, (n_samples, 1, len(last)), endpoint=True)
    coords[0] = 0
    coords[1] = last
    sample_idx = rng.integers(0, len(image), (n_samples, 1))
    sources = ChannelSources(np.zeros_like(sample_idx), sample_idx, coords, np.array([1, 0]))
    weights = rng.random((n_samples, 2)).astype(np.float32)
    read = Read(ops.ImageSet([image]), sources, N_SCALES, "reflect")
    return Plan(
        read, None, is_mixture=True, weights=weights, patch_size=patch_size, specs=Specs([])
    )


def random_image(patch_size):
    size = [5 * p + 3 for p in patch_size]
    return np.random.default_rng(1).integers(0, 4096, (2, 2, *size), np.uint16)


def smooth_image(patch_size):
    """Waves that are long beside what the coarsest scale can show."""
    *_, y, x = np.indices([5 * p + 3 for p in patch_size])
    waves = [np.sin(y / 11 + c) * np.cos(x / 13 + sample) for sample in range(2) for c in range(2)]
    return (2000 + 1500 * np.stack(waves)).reshape(2, 2, *y.shape).astype(np.uint16)


def assert_similar(found, image, plan, tolerance):
    """Compare with gpu_patch; differences are parts of the largest value."""
    expected, target = ops.lateral_context(
        [image], plan.sources, plan.weights, plan.patch_size, N_SCALES, mode="reflect"
    )
    inputs, found_target = (np.asarray(array) for array in found)
    assert inputs.dtype == found_target.dtype == np.float32
    np.testing.assert_array_equal(found_target, target)
    np.testing.assert_allclose(inputs[:, 0], expected[:, 0], rtol=1e-6)
    assert inputs.shape == expected.shape
    assert np.abs(inputs - expected).max() <= tolerance * expected.max()


@pytest.mark.parametrize("patch_size", PATCHES)
def test_matmul_is_the_same(patch_size):
    image = random_image(patch_size)
    plan = make_plan(patch_size, image)
    assert_similar(baselines.matmul(np, image, N_SCALES)(plan), image, plan, 1e-5)


@pytest.mark.parametrize("patch_size", PATCHES)
def test_ndimage_is_the_same(patch_size):
    ndimage = pytest.importorskip("scipy.ndimage")
    image = random_image(patch_size)
    plan = make_plan(patch_size, image)
    assert_similar(baselines.per_patch(np, ndimage, image, N_SCALES)(plan), image, plan, 1e-5)


# another filter lets more of what is finer than its pixels through: a tenth of noise
@pytest.mark.parametrize(("make_image", "tolerance"), [(smooth_image, 0.01), (random_image, 0.1)])
@pytest.mark.parametrize("patch_size", PATCHES)
def test_interpolation_is_nearly_the_same(patch_size, make_image, tolerance):
    torch = pytest.importorskip("torch")
    image = make_image(patch_size)
    plan = make_plan(patch_size, image)
    run = baselines.interpolate(torch, torch.from_dlpack(image), N_SCALES)
    assert_similar(run(plan), image, plan, tolerance)

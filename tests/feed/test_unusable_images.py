"""Images that statistics refuse, or remark on: not finite, of one value, empty, with outliers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tifffile
from pixels import distinct

from gpu_patch import (
    BasicPatchConstr,
    FixedRandomPatching,
    ImageStack,
    IndependentTargetsMsPatchConstr,
    MultiChannelTargetMsPatchConstr,
    PairedInputTargetMsPatchConstr,
    PatchExtractor,
    RandomPatching,
    SequentialPatching,
    StratifiedPatching,
    open_images,
)
from gpu_patch.feed import MaxFilter, compute_normalization, filter_background

COMPUTED = ("mean_std", "min_max", "quantile")
VALUES = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf}


def extractor(*arrays, axes="SCYX"):
    return PatchExtractor(
        [ImageStack(a, axes, source=f"image_{i}", device="cpu") for i, a in enumerate(arrays)]
    )


def floats(shape, seed=0):
    return distinct(shape, "float32", seed)


# ---- not finite --------------------------------------------------------------------------------


@pytest.mark.parametrize("by_chunk", [False, True])
@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("value", VALUES)
def test_the_file_the_sample_and_the_pixel_are_named(value, name, by_chunk, tmp_path):
    for i in range(4):
        pixels = floats((3, 2, 21, 26), i)
        if i == 2:
            pixels[1, 1, 20, 3] = VALUES[value]
        axes = {"axes": "TCYX"}
        tifffile.imwrite(tmp_path / f"img{i}.tif", pixels, metadata=axes, photometric="minisblack")
    images = open_images(tmp_path, device="cpu", by_chunk=by_chunk)
    constructor = BasicPatchConstr(SequentialPatching(images.shapes, (8, 9)), images)
    with pytest.raises(ValueError, match="img2") as raised:
        compute_normalization(constructor, name)
    for word in ("input images", value.split()[-1], "(20, 3)", "channel 1", "sample 1", "stack 2"):
        assert word in str(raised.value)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", [RandomPatching, StratifiedPatching])
def test_pixels_that_this_epoch_misses_count_too(kind, value):
    """Another epoch's patches would bring them into training."""
    pixels = floats((1, 2, 50, 61))
    images = extractor(floats((2, 2, 20, 31)), pixels)
    constructor = BasicPatchConstr(kind(images.shapes, (9, 10), seed=0), images, seed=3)
    covered = np.zeros((50, 61), bool)
    for index in constructor.get_patch_indices(1):
        (spec,) = constructor.construct_batch([index]).specs
        y, x = spec["coords"]
        covered[y : y + 9, x : x + 10] = True
    missed = np.argwhere(~covered)
    for y, x in (missed[0], missed[-1]):
        was = pixels[0, 1, y, x]
        images.image_stacks[1].data[0, 1, y, x] = VALUES[value]
        for name in COMPUTED:
            with pytest.raises(ValueError, match=rf"\({y}, {x}\), channel 1, sample 0 of image_1"):
                compute_normalization(constructor, name)
        images.image_stacks[1].data[0, 1, y, x] = was
    compute_normalization(constructor)


def test_missed_pixels_of_images_by_chunk(tmp_path):
    for i in range(3):
        pixels = floats((2, 70, 90), i)
        if i == 1:
            pixels[1, 69, 89] = np.inf
        tifffile.imwrite(
            tmp_path / f"img{i}.tif",
            pixels,
            tile=(16, 16),
            metadata={"axes": "TYX"},
            photometric="minisblack",
        )
    images = open_images(tmp_path, device="cpu", by_chunk=True)
    constructor = BasicPatchConstr(RandomPatching(images.shapes, (9, 8), 0), images, seed=0)
    for name in COMPUTED:
        with pytest.raises(ValueError, match=r"infinity at pixel \(69, 89\), .* 1 of .*img1"):
            compute_normalization(constructor, name)


def test_what_no_patch_may_ever_touch_does_not_count():
    pixels = floats((1, 1, 40, 40))
    pixels[..., :10, :10] = np.nan
    images = extractor(pixels)
    strategy = StratifiedPatching(images.shapes, (10, 10), seed=0)
    constructor = BasicPatchConstr(strategy, images, seed=0)
    with pytest.raises(ValueError, match="found NaN at pixel"):
        compute_normalization(constructor)
    strategy.exclude_patches(0, 0, [(0, 0)])
    compute_normalization(constructor)
    fixed = FixedRandomPatching(images.shapes, (3, 3), seed=5)
    placed = [spec["coords"] for spec in map(fixed.get_patch_spec, range(fixed.n_patches))]
    free = [i for i, (y, x) in enumerate(placed) if max(y, x) >= 10]
    compute_normalization(BasicPatchConstr(fixed, images), indices=free)


def test_missed_pixels_of_one_structure():
    arrays = [floats((1, 1, 40, 50)), floats((2, 1, 33, 29), 1)]
    arrays[1][1, 0, 32, 28] = np.inf
    structures = [extractor(array) for array in arrays]
    strategies = [RandomPatching(each.shapes, (6, 6), 0) for each in structures]
    made = IndependentTargetsMsPatchConstr(strategies, structures, 2, "reflect", None, seed=0)
    with pytest.raises(
        ValueError, match=r"target images.* infinity at pixel \(32, 28\), .*sample 1"
    ):
        compute_normalization(made)


def test_missed_pixels_of_targets():
    inputs, targets = floats((1, 1, 40, 50)), floats((1, 3, 40, 50), 1)
    targets[0, 2, 39, 49] = np.nan
    images = extractor(inputs), extractor(targets)
    strategy = RandomPatching(images[0].shapes, (6, 6), 0)
    made = PairedInputTargetMsPatchConstr(strategy, *images, 2, "reflect", seed=1)
    with pytest.raises(ValueError, match=r"target images.*channel 2"):
        compute_normalization(made)
    compute_normalization(made, skip_target=True)


def test_how_many_samples_more():
    pixels = floats((5, 1, 16, 16))
    pixels[[1, 3, 4], 0, 2, 2] = np.nan
    images = extractor(pixels)
    constructor = BasicPatchConstr(SequentialPatching(images.shapes, (8, 8)), images)
    with pytest.raises(ValueError, match=r"sample 1 of image_0 .*and in 2 more samples"):
        compute_normalization(constructor)


# ---- of one value ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("value", [0, 0.3, 1e9 + 77])
def test_a_constant_channel_is_named(name, value):
    pixels = floats((2, 3, 30, 31))
    pixels[:, 1] = value
    images = extractor(pixels)
    strategy = SequentialPatching(images.shapes, (7, 7))
    constructor = BasicPatchConstr(strategy, images, channels=[2, 1])
    with pytest.raises(ValueError, match="channel 1 of the input images holds a single value") as e:
        compute_normalization(constructor, name)
    for word in ("input_", "all 2 samples", "sample 0 of image_0"):
        assert word in str(e.value)
    compute_normalization(constructor, name, per_channel=False)


def test_a_constant_structure_of_a_mixture():
    pixels = floats((1, 2, 30, 31))
    pixels[:, 1] = 7
    images = extractor(pixels)
    strategy = SequentialPatching(images.shapes, (7, 7))
    made = MultiChannelTargetMsPatchConstr(strategy, images, 2, "reflect", None, 0.0, seed=0)
    with pytest.raises(ValueError, match=r"target_stds\[1\].*channel 1 .* value, 7, in sample 0"):
        compute_normalization(made)
    compute_normalization(made, skip_target=True)


def test_constant_mixtures():
    images = extractor(np.full((1, 2, 30, 31), 7, np.uint8))
    strategy = SequentialPatching(images.shapes, (7, 7))
    made = MultiChannelTargetMsPatchConstr(strategy, images, 2, "reflect", None, 0.0, seed=0)
    with pytest.raises(ValueError, match=r"input_maxes\[0\].*the input holds a single value"):
        compute_normalization(made, "min_max", skip_target=True)


def test_quantiles_that_coincide_say_which_way_to_go():
    pixels = np.zeros((1, 1, 64, 64), np.uint16)
    pixels[0, 0, :4, :5] = 900  # half a percent
    images = extractor(pixels)
    constructor = BasicPatchConstr(SequentialPatching(images.shapes, (16, 16)), images)
    with pytest.raises(ValueError, match=r"both 0: .*upper that is nearer to 1"):
        compute_normalization(constructor, "quantile")
    made = compute_normalization(constructor, "quantile", upper=0.999)
    assert made.input_statistics == ((0.0,), (900.0,))


# ---- empty samples -----------------------------------------------------------------------------


def frames(dtype="float32"):
    made = np.random.default_rng(0).normal(1000, 50, (10, 1, 64, 70)).astype(dtype)
    made[[1, 4, 5, 8]] = 0
    return made


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_empty_samples_are_remarked_on(dtype, name):
    images = extractor(frames(dtype)[:1], frames(dtype))
    constructor = BasicPatchConstr(SequentialPatching(images.shapes, (16, 16)), images)
    with pytest.warns(UserWarning, match="4 of 11 samples of the input images are empty") as said:
        compute_normalization(constructor, name)
    (warning,) = said
    assert warning.filename == __file__
    assert "sample 1 of image_1 (image stack 1)" in str(warning.message)
    assert "filter_background" in str(warning.message)


def test_the_way_out_of_empty_samples():
    images = extractor(frames())
    strategy = StratifiedPatching(images.shapes, (16, 16), seed=0)
    constructor = BasicPatchConstr(strategy, images, seed=1)
    with pytest.warns(UserWarning, match="4 of 10 samples"):
        spoiled = compute_normalization(constructor)
    filter_background(strategy, images, MaxFilter(10), filtered_patch_prob=0)
    made = compute_normalization(constructor)
    assert made.input_statistics[1][0] == pytest.approx(50, rel=0.02)
    assert spoiled.input_statistics[1][0] > 400


def test_samples_that_are_empty_in_some_channels_alone_are_not():
    pixels = floats((3, 2, 20, 20))
    pixels[1, 0] = 0
    images = extractor(pixels)
    compute_normalization(BasicPatchConstr(SequentialPatching(images.shapes, (5, 5)), images))


# ---- outliers ----------------------------------------------------------------------------------


def hot(dtype="float32"):
    pixels = np.random.default_rng(0).normal(100, 10, (1, 1, 128, 128)).astype(dtype)
    pixels[0, 0, 10, 10] = 1e8
    return pixels


def test_one_hot_pixel_does_not_move_quantiles():
    images = extractor(hot())
    constructor = BasicPatchConstr(SequentialPatching(images.shapes, (64, 64)), images)
    found = compute_normalization(constructor, "quantile").input_statistics
    np.testing.assert_array_equal(
        np.ravel(found), np.quantile(hot().astype(np.float64), [0.01, 0.99])
    )


def test_careamics_estimate_is_there_by_name_and_warned_of():
    images = extractor(hot())
    constructor = BasicPatchConstr(SequentialPatching(images.shapes, (64, 64)), images)
    with pytest.warns(UserWarning, match=r"input_lower_quantile_values\[0\] is -") as said:
        made = compute_normalization(constructor, "quantile", quantile_method="careamics")
    assert said[0].filename == __file__
    assert made.input_statistics[0][0] < hot().min() - 10
    even = extractor(hot().clip(0, 200))
    constructor = BasicPatchConstr(SequentialPatching(even.shapes, (64, 64)), even)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        near, exact = (
            compute_normalization(constructor, "quantile", quantile_method=method)
            for method in ("careamics", "exact")
        )
    assert near != exact
    np.testing.assert_allclose(near.input_statistics, exact.input_statistics, atol=0.05)


def test_methods_have_names():
    images = extractor(hot())
    constructor = BasicPatchConstr(SequentialPatching(images.shapes, (64, 64)), images)
    with pytest.raises(ValueError, match="quantile_method must be one of 'exact', 'careamics'"):
        compute_normalization(constructor, "quantile", quantile_method="fast")

"""`split_validation`: what training can read, by brute force over every pixel."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import make_sample

import gpu_patch
from gpu_patch import (
    FixedPatching,
    FixedRandomPatching,
    RandomPatching,
    SequentialPatching,
    StratifiedPatching,
    TiledPatching,
    WholeSamplePatching,
    geometry,
    split_constructor,
    split_validation,
)
from gpu_patch.geometry import border_index, border_range, window_start
from gpu_patch.patching.identity import identity

KINDS = ("random", "fixed_random", "sequential", "tiled", "stratified", "fixed", "whole")
MODES = geometry.PADDING_MODES
NEARLY_1 = np.nextafter(1, 0)


def a_strategy(kind, shapes, size, seed=0):
    if kind == "random":
        return RandomPatching(shapes, size, seed)
    if kind == "fixed_random":
        return FixedRandomPatching(shapes, size, seed)
    if kind == "sequential":
        return SequentialPatching(shapes, size, [p // 3 for p in size])
    if kind == "tiled":
        return TiledPatching(shapes, size, [p // 2 for p in size])
    if kind == "whole":
        return WholeSamplePatching(shapes)
    if kind == "stratified":
        strategy = StratifiedPatching(shapes, size, seed)
        cells = strategy.get_all_grid_coords()[0, 0]
        strategy.exclude_patches(0, 0, cells[1:2])
        strategy.set_region_probs(0, 0, dict.fromkeys(cells[-1:], 0.0))
        return strategy
    rng = np.random.default_rng(seed)
    specs = []
    for i, shape in enumerate(shapes):
        for _ in range(30):  # some leave the image, some are smaller
            coords = rng.integers(-1, np.array(shape[2:]) - 2)
            own = np.array(size) - (rng.random() < 0.3)
            specs.append(
                {
                    "data_idx": i,
                    "sample_idx": int(rng.integers(shape[0])),
                    "coords": coords.tolist(),
                    "patch_size": np.maximum(own, 1).tolist(),
                }
            )
    return FixedPatching(specs)


def read(coords, size, shape, scale, n_scales, mode):
    """Pixels that a scale of a patch reads, as indices along each axis."""
    axes = zip(coords, size, shape, strict=True)
    return np.ix_(*(read_along(*axis, scale, n_scales, mode) for axis in axes))


@cache
def read_along(x, p, n, scale, n_scales, mode):
    """The same of one axis."""
    cut = border_range(window_start(x, p, n_scales), p << n_scales, n, mode)
    window = window_start(x, p, scale) + np.arange(p << scale)
    return border_index(window, *cut, mode) if cut[0] < cut[1] else window[:0]


def target(coords, size, shape):
    axes = [
        np.arange(max(x, 0), min(x + p, n)) for x, p, n in zip(coords, size, shape, strict=True)
    ]
    return np.ix_(*axes)


def all_places(strategy):
    """Every place that patches of a strategy may have: (image, sample, coords, size)."""
    if hasattr(strategy, "start_boxes"):
        keys = [(i, s) for i, shape in enumerate(strategy.data_shapes) for s in range(shape[0])]
        for number, key in enumerate(keys):
            for first, n in strategy.start_boxes(number).tolist():
                for offset in itertools.product(*map(range, n)):
                    yield *key, tuple(np.add(first, offset).tolist()), strategy.patch_size
    else:
        for i in range(strategy.n_patches):
            spec = strategy.get_patch_spec(i)
            yield spec["data_idx"], spec["sample_idx"], spec["coords"], spec["patch_size"]


def assert_no_leak(split, shapes, n_scales, mode, strict):
    training, validation = split
    assert training.n_patches > 0
    assert validation.n_patches > 0
    held = {(i, s): np.zeros(shape[2:], bool) for i, shape in enumerate(shapes)
            for s in range(shape[0])}  # fmt: skip
    lies = {key: np.zeros(mask.shape, np.uint8) for key, mask in held.items()}
    places = list(all_places(training))
    for image, sample, coords, size in places:
        lies[image, sample][target(coords, size, shapes[image][2:])] = 1
    for image, sample, coords, size in all_places(validation):
        shape = shapes[image][2:]
        pixels = (
            read(coords, size, shape, n_scales - 1, n_scales, mode)
            if strict
            else target(coords, size, shape)
        )
        held[image, sample][pixels] = True
        lies[image, sample][target(coords, size, shape)] = 2
    for image, sample, coords, size in places:
        for scale in range(n_scales):
            pixels = read(coords, size, shapes[image][2:], scale, n_scales, mode)
            assert not held[image, sample][pixels].any(), (image, sample, coords)
    for (image, sample), expected in lies.items():
        np.testing.assert_array_equal(split.map(image, sample), expected)
    found = np.bincount(np.concatenate([m.ravel() for m in lies.values()]), minlength=3)
    np.testing.assert_allclose(
        split.parts, [found[1] / found.sum(), found[2] / found.sum(), found[0] / found.sum()]
    )


SHAPES_2D = [(2, 1, 27, 40), (1, 1, 54, 31)]
SHAPES_3D = [(2, 1, 9, 22, 31), (1, 1, 12, 18, 17)]


@pytest.mark.parametrize(
    ("mode", "strict"),
    # what validation reads as context hides at the borders which mode is taken
    [("reflect", False), ("wrap", False), ("periodic", False), ("periodic", True)],
)
@pytest.mark.parametrize(("shapes", "size"), [(SHAPES_2D, (7, 6)), (SHAPES_3D, (3, 4, 5))])
@pytest.mark.parametrize("kind", KINDS)
def test_training_reads_nothing_of_validation(kind, shapes, size, mode, strict):
    for n_scales in (1, 3):
        split = split_validation(
            a_strategy(kind, shapes, size), 2, multiscale_count=n_scales, padding_mode=mode,
            data_shapes=shapes, strict=strict, seed=1,
        )  # fmt: skip
        assert split.validation.n_patches == 2 or kind == "whole"
        assert_no_leak(split, shapes, n_scales, mode, strict)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS[:-1]),
    shapes=st.lists(
        st.tuples(st.integers(1, 2), st.just(1), st.integers(8, 60), st.integers(8, 60)),
        min_size=1, max_size=3,
    ),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    n_scales=st.integers(1, 3),
    mode=st.sampled_from(MODES),
    strict=st.booleans(),
    wanted=st.one_of(st.integers(1, 20), st.floats(0.02, 0.6)),
    seed=st.integers(0, 5),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_any_images(kind, shapes, size, n_scales, mode, strict, wanted, seed):
    try:
        split = split_validation(
            a_strategy(kind, shapes, size, seed), wanted, multiscale_count=n_scales,
            padding_mode=mode, data_shapes=shapes, strict=strict, seed=seed,
        )  # fmt: skip
    except ValueError as error:
        if "What would fit" in str(error):
            return
        raise
    assert_no_leak(split, shapes, n_scales, mode, strict)
    if isinstance(wanted, int):
        assert split.validation.n_patches == wanted


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_training_validation_and_test(kind, mode):
    """Split twice: no pixel of the test patches is read by either of the others."""
    shapes, size, options = [(2, 1, 41, 40), (1, 1, 90, 61)], (7, 6), {"padding_mode": mode}
    options |= {"data_shapes": shapes, "multiscale_count": 2}
    n_test, n_validation = (1, 1) if kind == "whole" else (2, 3)
    first = split_validation(a_strategy(kind, shapes, size), n_test, seed=1, **options)
    rest, test = first
    second = split_validation(rest, n_validation, seed=2, **options)
    training, validation = second
    assert_no_leak(second, shapes, 2, mode, strict=True)
    for side in (training, validation):
        assert set(all_places(side)) <= set(all_places(rest))
        assert side.n_patches > 0
    held = {key: np.zeros(shapes[key[0]][2:], bool) for key in ((0, 0), (0, 1), (1, 0))}
    for image, sample, coords, own in all_places(test):
        held[image, sample][read(coords, own, shapes[image][2:], 1, 2, mode)] = True
    for side in second:
        for image, sample, coords, own in all_places(side):
            assert not held[image, sample][read(coords, own, shapes[image][2:], 1, 2, mode)].any()
    assert second.parts.trained + second.parts.validated < first.parts.trained + 1e-9


def test_a_split_keeps_the_density_of_patches():
    strategy = RandomPatching([(1, 1, 640, 640)], (8, 8), 0)
    training, validation = split_validation(strategy, 16, multiscale_count=2, seed=0)
    again, _ = split_validation(training, 16, multiscale_count=2, seed=0)
    densities = [s.n_patches / len(list(all_places(s))) for s in (training, again)]
    assert densities[0] == pytest.approx(densities[1], rel=1e-3)
    # a list of places as well, which keeps their order
    some, one = split_validation(validation, 1, data_shapes=strategy.data_shapes, seed=0)
    assert (some.n_patches, one.n_patches) == (15, 1)


@pytest.mark.parametrize("kind", ["random", "stratified"])
def test_draws_stay_in_the_places_that_are_left(kind):
    """All of these come up, and no others."""
    shapes = [(2, 1, 20, 24), (1, 1, 16, 30)]
    training, _ = split_validation(a_strategy(kind, shapes, (5, 4)), 4, multiscale_count=2, seed=3)
    expected = {place[:3] for place in all_places(training)}
    index = np.tile(np.arange(training.n_patches), 1500)
    uniforms = np.random.default_rng(0).random((training.n_uniforms, len(index)))
    uniforms[:, :50], uniforms[:, 50:100] = 0, NEARLY_1
    found = training.locate(index, uniforms)
    drawn = set(zip(found.data_idx.tolist(), found.sample_idx.tolist(),
                    map(tuple, found.coords.tolist()), strict=True))  # fmt: skip
    assert drawn <= expected
    assert len(drawn) > 0.9 * len(expected)
    specs = [training.get_patch_spec(i) for i in range(training.n_patches)]
    assert {(s["data_idx"], s["sample_idx"], s["coords"]) for s in specs} <= expected
    for image in range(2):
        own = training.get_patch_indices(image)
        assert {specs[i]["data_idx"] for i in own} <= {image}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["random", "stratified", "sequential"])
def test_patches_themselves_are_free_of_what_is_held_out(kind, mode):
    """NaN in all pixels that validation reads: made by the constructors, none is trained on."""
    pixels = np.random.default_rng(0).random((2, 90, 110)).astype(np.float32)
    shapes, size, n_scales = [(1, 2, 90, 110)], (8, 8), 3
    split = split_validation(
        a_strategy(kind, shapes, size), 6, multiscale_count=n_scales, padding_mode=mode, seed=0
    )
    for _, _, coords, own in all_places(split.validation):
        at = read(coords, own, (90, 110), n_scales - 1, n_scales, mode)
        pixels[(slice(None), *at)] = np.nan
    images = gpu_patch.PatchExtractor(
        [gpu_patch.ImageStack.from_array(pixels, "CYX", device="cpu")]
    )
    made = [
        gpu_patch.MultiChannelTargetMsPatchConstr(
            strategy, images, n_scales, mode, None, 0.5, seed=0
        )
        for strategy in split
    ]
    for epoch in range(3):
        batch = made[0].construct_batch(range(made[0].n_patches), epoch=epoch)
        assert np.isfinite(batch.input).all()
        assert np.isfinite(batch.target).all()
    batch = made[1].construct_batch(range(made[1].n_patches))
    assert np.isnan(batch.input).all()
    assert np.isnan(batch.target).all()


def images_of(pixels, axes="YX"):
    stack = gpu_patch.ImageStack.from_array(pixels, axes, device="cpu")
    return gpu_patch.PatchExtractor([stack])


def test_mode_ii_splits_each_structure_by_itself():
    rng = np.random.default_rng(0)
    arrays = [rng.random(shape).astype(np.float32) for shape in ((120, 100), (80, 140))]

    def constructor():
        extractors = [images_of(pixels) for pixels in arrays]
        strategies = [StratifiedPatching(e.shapes, (8, 8), 0) for e in extractors]
        return gpu_patch.IndependentTargetsMsPatchConstr(
            strategies, extractors, 2, "reflect", None, seed=0
        )

    for pixels, split in zip(arrays, split_constructor(constructor(), 4, seed=1)[2], strict=True):
        for _, _, coords, own in all_places(split.validation):
            pixels[read(coords, own, pixels.shape, 1, 2, "reflect")] = np.nan
    training, validation, _ = split_constructor(constructor(), 4, seed=1)
    for epoch in range(3):
        batch = training.construct_batch(range(training.n_patches), epoch=epoch)
        assert np.isfinite(batch.input).all()
    assert np.isnan(validation.construct_batch(range(4)).input).all()
    assert training.rng is not validation.rng


@pytest.mark.parametrize("kind", ["basic", "multichannel", "independent", "paired", "pred"])
def test_constructors_keep_all_else(kind):
    whole = make_sample(kind).constructor
    training, validation, splits = split_constructor(whole, 1, seed=0)
    assert type(training) is type(validation) is type(whole)
    assert validation.n_patches == 1
    assert training.n_patches < whole.n_patches
    for made in (training, validation):
        assert made.seed == whole.seed
        # in mode II those of the structure with the most patches, which may be another now
        assert made.input_shapes == whole.input_shapes or kind == "independent"
        assert vars(made).keys() == vars(whole).keys()
    assert len(splits) == (3 if kind == "independent" else 1)
    with pytest.raises(TypeError, match="constructor must be one of gpu_patch's"):
        split_constructor(3, 1, seed=0)


def test_whole_images_come_first():
    shapes = [(1, 1, 32, 32)] * 10
    split = split_validation(RandomPatching(shapes, (8, 8)), 0.2, multiscale_count=4, seed=0)
    assert split.parts.lost == 0
    assert split.parts.validated == pytest.approx(0.2)
    series = [(10, 1, 32, 32)]
    split = split_validation(RandomPatching(series, (8, 8)), 0.2, multiscale_count=4, seed=0)
    assert split.parts.lost == 0
    assert {split.validation.get_patch_spec(i)["sample_idx"] for i in range(32)} == {8, 9}
    # the rest of an exact number is a block in the next one
    split = split_validation(RandomPatching(series, (8, 8)), 36, multiscale_count=1, seed=0)
    assert split.validation.n_patches == 36
    assert {split.validation.get_patch_spec(i)["sample_idx"] for i in range(36)} == {7, 8, 9}


def test_blocks_are_compact_and_in_corners():
    split = split_validation(
        RandomPatching([(1, 1, 1024, 1024)], (64, 64)), 16, multiscale_count=3, seed=0
    )
    starts = np.array([split.validation.get_patch_spec(i)["coords"] for i in range(16)])
    low, high = starts.min(axis=0), starts.max(axis=0) + 64
    assert (high - low).prod() == 16 * 64 * 64
    assert all(a == 0 or b == 1024 for a, b in zip(low, high, strict=True))
    # 4 × 4 patches in a corner, a ring of three on two sides of it
    assert split.parts.lost == pytest.approx((7 * 7 - 16) / 256)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_in_every_run(kind):
    shapes = [(3, 1, 60, 70), (2, 1, 50, 40)]
    first, second = (
        split_validation(a_strategy(kind, shapes, (8, 8)), 2, data_shapes=shapes, seed=5)
        for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        assert identity(a) == identity(b)
    assert identity(first.training) != identity(first.validation)


def test_the_strategy_that_is_split_stays_as_it_is():
    strategy = StratifiedPatching([(1, 1, 64, 64)], (8, 8), seed=2)
    before = identity(strategy), strategy.rng.bit_generator.state
    split_validation(strategy, 5, seed=0)
    assert (identity(strategy), strategy.rng.bit_generator.state) == before


def test_too_little_data():
    strategy = RandomPatching([(1, 1, 256, 256)], (64, 64))
    wanted = (
        r"asks for 4 validation patches of \(64, 64\), of 16 places, with windows of \(512, 512\)"
    )
    with pytest.raises(ValueError, match=f"{wanted}.*would fit: multiscale_count=2, or images"):
        split_validation(strategy, 4, multiscale_count=4, seed=0)
    with pytest.raises(ValueError, match="fit: at most 12,"):
        split_validation(strategy, 16, seed=0)


@pytest.mark.parametrize(
    ("wanted", "options", "error", "message"),
    [
        (0, {}, ValueError, "fraction_or_count must be"),
        (1.0, {}, ValueError, "must be a fraction between 0 and 1"),
        (float("nan"), {}, ValueError, "must be a fraction between 0 and 1"),
        ("a", {}, TypeError, "fraction_or_count"),
        (2, {"padding_mode": "zero"}, ValueError, "padding_mode must be one of"),
        (2, {"multiscale_count": 0}, ValueError, "multiscale_count"),
        (2, {"seed": -1}, ValueError, "seed"),
    ],
)
def test_wrong_arguments(wanted, options, error, message):
    strategy = RandomPatching([(1, 1, 64, 64)], (8, 8))
    with pytest.raises(error, match=message):
        split_validation(strategy, wanted, **{"seed": 0} | options)


def test_strategies_that_cannot_be_split():
    specs = [{"data_idx": 0, "sample_idx": 0, "coords": (i, 0), "patch_size": (4, 4)}
             for i in range(20)]  # fmt: skip
    with pytest.raises(ValueError, match="data_shapes must be given for a FixedPatching"):
        split_validation(FixedPatching(specs), 2, seed=0)
    with pytest.raises(TypeError, match="patching must be a strategy of gpu_patch"):
        split_validation(3, 2, seed=0)

"""What is wrong with an argument is said by name, changing nothing (docs/specification.md, 8)."""

import numpy as np
import pytest
from worlds import PATCH, SHAPES, SPEC, check, constructor, evaluated, images, named, strategy

from gpu_patch import FixedPatching, RandomPatching, StratifiedPatching
from gpu_patch.checks import probability

T, V = TypeError, ValueError
ALL = "basic multichannel independent paired pred"
CONTEXT = "multichannel independent paired pred"
VOLUME = {**SPEC, "coords": (1, 2, 3), "patch_size": (4, 4, 4)}
GRIDS = "random fixed_random sequential tiled stratified"


def placed_for_other_images(w):
    return strategy(w, "random", data_shapes=w.actin.shapes)


def placed_for_more_images(w):
    return strategy(w, "tiled", data_shapes=w.one.shapes * 2)


def placed_for_volumes(w):
    return strategy(w, "whole", data_shapes=w.volume.shapes)


def fixed(**changes):
    """Makes a strategy of one patch, the world's with some entries changed."""

    def make(w):
        return FixedPatching([{**SPEC, **changes}])

    return make


def other_shapes(*shapes):
    """Makes images of these samples and spatial shapes."""

    def make(w):
        return images(1, np.uint8, shapes)

    return make


def pair_with(second):
    """Makes the strategies of mode II, the second by a function of the world."""

    def make(w):
        return [w.random, second(w)]

    return make


def of_two_channels(w):
    return w.two


def of_smaller_patches(w):
    return RandomPatching(w.actin.shapes, (4, 4))


def without_patches(w):
    made = StratifiedPatching(w.actin.shapes, PATCH, 0)
    for (data_idx, sample_idx), cells in made.get_all_grid_coords().items():
        made.exclude_patches(data_idx, sample_idx, cells)
    return made


NO_EXTRACTOR = [
    (None, T, "PatchExtractor", "None"),
    (5, T, "PatchExtractor", "5"),
    (lambda w: w.stack, T, "PatchExtractor", "ImageStack"),
    (lambda w: w.two.image_stacks, T, "PatchExtractor", "list"),
]

CONSTRUCTOR_ARGUMENTS = [
    *named(
        ALL,
        "seed",
        [
            (-1, V, "seed", "-1", "at least 0"),
            (2**64, V, "seed", str(2**64), "at most"),
            (1.0, V, "seed", "1.0", "whole number"),
            ("1", T, "seed", "'1'", "whole number"),
            (True, T, "seed", "True", "whole number"),
        ],
    ),
    *named(
        CONTEXT,
        "multiscale_count",
        [
            (0, V, "multiscale_count", "0", "at least 1"),
            (-2, V, "multiscale_count", "-2", "at least 1"),
            (100, V, "multiscale_count", "100", "at most"),
            (2.0, V, "multiscale_count", "2.0", "whole number"),
            ("3", T, "multiscale_count", "'3'", "whole number"),
            (None, T, "multiscale_count", "None", "whole number"),
        ],
    ),
    *named(
        CONTEXT,
        "padding_mode",
        [
            ("constant", V, "padding_mode", "'constant'", "'reflect', 'wrap', 'periodic'"),
            ("zero", V, "padding_mode", "'zero'", "'reflect'"),
            ("Reflect", V, "padding_mode", "'Reflect'", "'reflect'"),
            (None, T, "padding_mode", "None", "'reflect'"),
            (1, T, "padding_mode", "1", "'reflect'"),
        ],
    ),
    *named(
        "multichannel independent",
        "alpha_ranges",
        [
            ([(0, 1)], V, "alpha_ranges", "1", "2"),
            ([(0, 1)] * 3, V, "alpha_ranges", "3", "2"),
            ([(0, 1), (0.7, 0.3)], V, "alpha_ranges[1]", "(0.7, 0.3)", "low ≤ high"),
            ([(0, 1), (0, np.nan)], V, "alpha_ranges[1]", "nan", "finite"),
            ([(-np.inf, 1), (0, 1)], V, "alpha_ranges[0]", "inf", "finite"),
            ([(1e300, 1e300), (0, 1)], V, "alpha_ranges[0]", "1e+300", "finite"),
            ([(0, 1), (1, 2, 3)], V, "alpha_ranges[1]", "(1, 2, 3)", "(low, high)"),
            ([(0, 1), ()], V, "alpha_ranges[1]", "()", "(low, high)"),
            ([0.3, 0.7], T, "alpha_ranges[0]", "0.3", "(low, high)"),
            ([(0, 1), (0, None)], T, "alpha_ranges[1]", "None", "(low, high)"),
            (["12", "34"], T, "alpha_ranges[0]", "'12'", "(low, high)"),
            ([("0.1", "0.2"), (0, 1)], T, "alpha_ranges[0]", "'0.1'", "(low, high)"),
            (0.5, T, "alpha_ranges", "0.5", "(low, high)"),
            ("ab", T, "alpha_ranges", "'ab'", "(low, high)"),
        ],
    ),
    *named(
        "multichannel independent",
        "rng",
        [
            (42, T, "rng", "42", "numpy.random.Generator"),
            (np.random, T, "rng", "module", "numpy.random.Generator"),
            (np.random.PCG64(0), T, "rng", "PCG64", "numpy.random.Generator"),
        ],
    ),
    *named(
        "multichannel",
        "uncorrelated_channel_prob",
        [
            (1.5, V, "uncorrelated_channel_prob", "1.5", "[0, 1]"),
            (-0.1, V, "uncorrelated_channel_prob", "-0.1", "[0, 1]"),
            (np.nan, V, "uncorrelated_channel_prob", "nan", "[0, 1]"),
            ("0.5", T, "uncorrelated_channel_prob", "'0.5'", "[0, 1]"),
            (None, T, "uncorrelated_channel_prob", "None", "[0, 1]"),
            (1j, T, "uncorrelated_channel_prob", "1j", "[0, 1]"),
            (np.complex128(0.5), T, "uncorrelated_channel_prob", "0.5", "[0, 1]"),
        ],
    ),
    *named(
        "basic multichannel",
        "channels",
        [
            ([2], V, "channels[0]", "2", "at most 1"),
            ([0, -1], V, "channels[1]", "-1", "at least 0"),
            ([0, 0.0], V, "channels[1]", "0.0", "whole number"),
            ([], V, "channels", "empty", "None for all"),
            ([True], T, "channels[0]", "True", "whole number"),
            ([None], T, "channels[0]", "None", "whole number"),
            (1, T, "channels", "1", "sequence"),
            ("01", T, "channels", "'01'", "sequence"),
        ],
    ),
    *named(
        "basic multichannel paired pred",
        "patching_strategy",
        [
            (None, T, "patching_strategy", "None", "n_patches, get_patch_spec"),
            (lambda w: RandomPatching, T, "patching_strategy", "class", "get_patch_indices"),
            (np.zeros(3), T, "patching_strategy", "lacks n_patches", "get_patch_indices"),
            (placed_for_other_images, V, "patching_strategy", "(3, 1, 16, 14)", "20, 18)"),
            (placed_for_more_images, V, "patching_strategy", "4 image stacks", "2"),
            (placed_for_volumes, V, "patching_strategy", "(1, 1, 4, 9, 9)", "20, 18)"),
            (fixed(data_idx=2), V, "patching_strategy", "data_idx 2", "2 image stacks"),
            (fixed(sample_idx=2), V, "patching_strategy", "sample_idx 2", "2 samples"),
            (fixed(**VOLUME), V, "patching_strategy", "(4, 4, 4)", "2 spatial axes"),
        ],
    ),
    *named("basic paired pred", "input_extractor", NO_EXTRACTOR),
    *named("multichannel paired", "target_extractor", NO_EXTRACTOR),
    *named("basic", "target_extractor", NO_EXTRACTOR[1:]),
    *named(
        "paired pred",
        "input_extractor",
        [(of_two_channels, V, "input_extractor", "2 channels", "1 channel")],
    ),
    *named(
        "basic paired",
        "target_extractor",
        [
            (other_shapes(SHAPES[0]), V, "target_extractor", "same samples", "[(2, 1, 20, 18)]"),
            (other_shapes(SHAPES[0], (1, 25, 13)), V, "target_extractor", "same", "25, 13)"),
            (other_shapes((3, 20, 18), SHAPES[1]), V, "target_extractor", "same", "(3, 1, 20"),
        ],
    ),
    *named(
        "independent",
        "target_extractors",
        [
            (None, T, "target_extractors", "None", "sequence of PatchExtractor"),
            (lambda w: w.one, T, "target_extractors", "PatchExtractor(", "sequence"),
            (lambda w: [w.one, 5], T, "target_extractors[1]", "5", "PatchExtractor"),
            (lambda w: [w.one], V, "target_extractors", "2 and 1", "one entry per structure"),
            ([], V, "target_extractors", "2 and 0", "one entry per structure"),
            (lambda w: [w.one, w.two], V, "target_extractors[1]", "2 channels", "1 channel"),
            (lambda w: [w.one, w.volume], V, "target_extractors", "2D and 3D", "all be 2D"),
            (lambda w: [w.actin] * 2, V, "patching_strategies[0]", "2 image stacks", "has 1"),
        ],
    ),
    *named(
        "independent",
        "patching_strategies",
        [
            (None, T, "patching_strategies", "None", "sequence of patching strategies"),
            (lambda w: w.random, T, "patching_strategies", "RandomPatching", "sequence"),
            (lambda w: [w.random, 5], T, "patching_strategies[1]", "5", "get_patch_spec"),
            (lambda w: [w.random], V, "patching_strategies", "1 and 2", "one entry per structure"),
            (lambda w: [w.random] * 2, V, "patching_strategies[1]", "2 image stacks", "has 1"),
            (pair_with(of_smaller_patches), V, "patch_size", "(4, 6)", "(4, 4)"),
            (pair_with(fixed(patch_size=(4, 4))), V, "patch_size", "(4, 6)", "(4, 4)"),
            (pair_with(without_patches), V, "patching_strategies[1]", "0 patches", "at least 1"),
        ],
    ),
]


@pytest.mark.parametrize(("name", "argument", "value", "error", "words"), CONSTRUCTOR_ARGUMENTS)
def test_wrong_constructor_argument(name, argument, value, error, words):
    check(lambda w: constructor(w, name, **{argument: evaluated(value, w)}), error, words)


STRATEGY_ARGUMENTS = [
    *named(
        GRIDS + " whole",
        "data_shapes",
        [
            ([], V, "data_shapes", "empty", "SC(Z)YX"),
            ([(1, 20, 18)], V, "data_shapes[0]", "(1, 20, 18)", "SCYX or SCZYX"),
            ([(1,) * 6], V, "data_shapes[0]", "(1, 1, 1, 1, 1, 1)", "SCYX or SCZYX"),
            ([(1, 1, 9, 9), (1, 1, 4, 9, 9)], V, "data_shapes", "(1, 1, 4, 9, 9)", "all be 2D"),
            ([(1, 1, 0, 9)], V, "data_shapes[0][2]", "0", "at least 1"),
            ([(1, 1, 9, 9), (1, 1, 9, 9.5)], V, "data_shapes[1][3]", "9.5", "whole number"),
            (None, T, "data_shapes", "None", "sequence"),
            ((1, 1, 20, 18), T, "data_shapes[0]", "1", "sequence"),
            ("abcd", T, "data_shapes", "abcd", "sequence"),
        ],
    ),
    *named(
        GRIDS,
        "patch_size",
        [
            ((4,), V, "patch_size", "(4,)", "2 entries"),
            ((4, 4, 4), V, "patch_size", "(4, 4, 4)", "2 entries"),
            ((4, 0), V, "patch_size[1]", "0", "at least 1"),
            ((-4, 4), V, "patch_size[0]", "-4", "at least 1"),
            ((4, 4.0), V, "patch_size[1]", "4.0", "whole number"),
            (4, T, "patch_size", "4", "sequence"),
            ((4, "4"), T, "patch_size[1]", "'4'", "whole number"),
            ((4, True), T, "patch_size[1]", "True", "whole number"),
            (None, T, "patch_size", "None", "sequence"),
        ],
    ),
    *named(
        "sequential tiled",
        "overlaps",
        [
            ((4, 0), V, "overlaps[0]", "4", "smaller than patch_size[0] = 4"),
            ((0, 9), V, "overlaps[1]", "9", "smaller than patch_size[1] = 6"),
            ((0, -1), V, "overlaps[1]", "-1", "at least 0"),
            ((0.5, 0), V, "overlaps[0]", "0.5", "whole number"),
            ((1,), V, "overlaps", "(1,)", "2 entries"),
            (2, T, "overlaps", "2", "sequence"),
            ("22", T, "overlaps", "'22'", "sequence"),
        ],
    ),
    *named("tiled", "overlaps", [(None, T, "overlaps", "None", "sequence")]),
    *named(
        "random fixed_random stratified",
        "seed",
        [
            (-1, V, "seed", "-1", "at least 0"),
            (1.5, V, "seed", "1.5", "whole number"),
            ("a", T, "seed", "'a'", "whole number"),
            ([1, 2], T, "seed", "[1, 2]", "whole number"),
            (np.random.default_rng(0), T, "seed", "Generator", "whole number"),
        ],
    ),
    *named(
        "fixed",
        "fixed_patch_specs",
        [
            ([], V, "fixed_patch_specs", "empty", "at least one"),
            ([SPEC, {}], V, "fixed_patch_specs[1]", "{}", "data_idx"),
            ([{**SPEC, "coords": (1,)}], V, "fixed_patch_specs[0]", "(1,)", "2 entries"),
            ([{**SPEC, "data_idx": -1}], V, "fixed_patch_specs[0]", "-1", "at least 0"),
            ([{**SPEC, "data_idx": 2**70}], V, "fixed_patch_specs[0]", "data_idx", str(2**70)),
            ([{**SPEC, "patch_size": (0, 4)}], V, "fixed_patch_specs[0]", "0", "at least 1"),
            ([{**SPEC, "data_idx": "0"}], T, "fixed_patch_specs[0]", "'0'", "whole number"),
            ([SPEC, VOLUME], V, "fixed_patch_specs", "(4, 4, 4)", "all be 2D"),
            ([SPEC, 5], T, "fixed_patch_specs[1]", "5", "dict"),
            ([None], T, "fixed_patch_specs[0]", "None", "dict"),
            (SPEC, T, "fixed_patch_specs", "{'data_idx'", "sequence"),
            (None, T, "fixed_patch_specs", "None", "sequence"),
        ],
    ),
]


@pytest.mark.parametrize(("name", "argument", "value", "error", "words"), STRATEGY_ARGUMENTS)
def test_wrong_strategy_argument(name, argument, value, error, words):
    check(lambda w: strategy(w, name, **{argument: value}), error, words)


def test_a_bool_of_numpy_is_a_probability_where_pythons_is():
    assert probability("prob", np.True_) == probability("prob", True) == 1.0

"""Wrong arguments of methods, wrong answers of strategies (docs/specification.md, 8)."""

import numpy as np
import pytest
from worlds import PATCH, SPEC, GivenPatching, check, named, run, with_strategy

from gpu_patch import RandomPatching, StratifiedPatching

T, V, I = TypeError, ValueError, IndexError  # noqa: E741
ALL = "basic multichannel independent paired pred"
STRATEGIES = "random fixed_random sequential tiled stratified whole fixed"


class MethodPatching(GivenPatching):
    """A user's strategy whose author took `n_patches` for a method."""

    n_patches = property(lambda self: self.get_patch_spec, lambda self, value: None)


class OutsidePatching(RandomPatching):
    """A user's variant of ours that names a sample that does not exist."""

    def get_patch_spec(self, index):
        return {**super().get_patch_spec(index), "sample_idx": 99}


METHODS = [
    *named(
        ALL,
        "construct_patch",
        [
            ([10**6], I, "index", "1000000", "patches"),
            ([-(10**6)], I, "index", "-1000000", "patches"),
            ([2**70], I, "index", str(2**70), "patches"),
            ([1.0], T, "index", "1.0", "whole number"),
            (["1"], T, "index", "'1'", "whole number"),
            ([None], T, "index", "None", "whole number"),
            ([True], T, "index", "True", "whole number"),
            ([[0, 1]], T, "index", "[0, 1]", "whole number"),
        ],
    ),
    *named(
        ALL,
        "construct_batch",
        [
            ([[0, 10**6]], I, "indices", "1000000", "patches"),
            ([[0, -(10**6)]], I, "indices", "-1000000", "patches"),
            ([[0, 2**63]], I, "indices", str(2**63), "patches"),
            ([[0, 2**64]], I, "indices", str(2**64), "patches"),
            ([[]], V, "indices", "empty", "at least one"),
            ([range(0)], V, "indices", "empty", "at least one"),
            ([[[0, 1]]], V, "indices", "(1, 2)", "one-dimensional"),
            ([[[0], [1, 2]]], V, "indices", "[[0], [1, 2]]", "one-dimensional"),
            ([3], T, "indices", "3", "sequence"),
            ([None], T, "indices", "None", "sequence"),
            (["01"], T, "indices", "'01'", "sequence"),
            ([{0, 1}], T, "indices", "{0, 1}", "sequence"),
            ([2.0], T, "indices", "2.0", "sequence"),
            ([[0, "1"]], T, "indices", "'1'", "whole numbers"),
            ([[0, None]], T, "indices", "None", "whole numbers"),
            ([[0.0, 1.0]], T, "indices", "[0.0, 1.0]", "whole numbers"),
            ([[True, False]], T, "indices", "True", "whole numbers"),
            ([[0], {"epoch": -1}], V, "epoch", "-1", "at least 0"),
            ([[0], {"epoch": 2**32}], V, "epoch", str(2**32), "at most"),
            ([[0], {"epoch": 1.0}], V, "epoch", "1.0", "whole number"),
            ([[0], {"epoch": "1"}], T, "epoch", "'1'", "whole number"),
            ([[0], {"epoch": None}], T, "epoch", "None", "whole number"),
            ([[0], {"dtype": np.float64}], V, "dtype", "float64", "float32 or float16"),
            ([[0], {"dtype": "uint8"}], V, "dtype", "uint8", "float32 or float16"),
            ([[0], {"dtype": "half-size"}], T, "dtype", "half-size", "float32 or float16"),
        ],
    ),
    *named(
        f"{ALL} {STRATEGIES}",
        "get_patch_indices",
        [
            ([2], I, "data_idx", "2", "image stacks"),
            ([-3], I, "data_idx", "-3", "image stacks"),
            ([0.0], T, "data_idx", "0.0", "whole number"),
            (["0"], T, "data_idx", "'0'", "whole number"),
            ([None], T, "data_idx", "None", "whole number"),
        ],
    ),
    *named(
        STRATEGIES,
        "get_patch_spec",
        [
            ([10**6], I, "index", "1000000", "patches"),
            ([-(10**6)], I, "index", "-1000000", "patches"),
            ([1.0], T, "index", "1.0", "whole number"),
            (["1"], T, "index", "'1'", "whole number"),
            ([False], T, "index", "False", "whole number"),
        ],
    ),
    *named(
        "basic multichannel paired pred",
        "get_input_image_metadata",
        [
            ([None], T, "patch_spec", "None", "dict"),
            ([5], T, "patch_spec", "5", "dict"),
            ([{}], V, "patch_spec", "{}", "data_idx"),
            ([{"data_idx": 9}], I, "patch_spec['data_idx']", "9", "image stacks"),
            ([{"data_idx": "0"}], T, "patch_spec['data_idx']", "'0'", "whole number"),
        ],
    ),
    *named(
        "basic multichannel paired",
        "get_target_image_metadata",
        [
            ([None], T, "patch_spec", "None", "dict"),
            ([{}], V, "patch_spec", "{}", "data_idx"),
            ([{"data_idx": -9}], I, "patch_spec['data_idx']", "-9", "image stacks"),
        ],
    ),
    *named(
        "stratified",
        "exclude_patches",
        [
            ([2, 0, [(0, 0)]], I, "data_idx", "2", "image stacks"),
            ([1, 1, [(0, 0)]], I, "sample_idx", "1", "samples"),
            (["0", 0, [(0, 0)]], T, "data_idx", "'0'", "whole number"),
            ([0, 0.0, [(0, 0)]], T, "sample_idx", "0.0", "whole number"),
            ([0, 0, [(0, 0), (5, 0)]], V, "grid_coords", "(5, 0)", "(5, 3)"),
            ([0, 0, [(0, 0), (0, -1)]], V, "grid_coords", "-1", "at least 0"),
            ([0, 0, [(0, 0), (1, 0.5)]], V, "grid_coords", "0.5", "whole number"),
            ([0, 0, [(0, 0), (1,)]], V, "grid_coords", "(1,)", "2 entries"),
            ([0, 0, [(0, 0), None]], T, "grid_coords", "None", "sequence"),
            ([0, 0, (1, 1)], T, "grid_coords", "1", "sequence"),
            ([0, 0, 5], T, "grid_coords", "5", "sequence"),
            ([0, 0, None], T, "grid_coords", "None", "sequence"),
        ],
    ),
    *named(
        "stratified",
        "set_region_probs",
        [
            ([2, 0, {(0, 0): 0.5}], I, "data_idx", "2", "image stacks"),
            ([0, -3, {(0, 0): 0.5}], I, "sample_idx", "-3", "samples"),
            ([0, 0, {(1, 1): 0.5, (0, 0): 1.5}], V, "probs[(0, 0)]", "1.5", "[0, 1]"),
            ([0, 0, {(1, 1): 0.5, (0, 0): -0.5}], V, "probs[(0, 0)]", "-0.5", "[0, 1]"),
            ([0, 0, {(1, 1): 0.5, (0, 0): np.nan}], V, "probs[(0, 0)]", "nan", "[0, 1]"),
            ([0, 0, {(1, 1): 0.5, (0, 9): 0.5}], V, "probs", "(0, 9)", "(5, 3)"),
            ([0, 0, {(1, 1): 0.5, (0,): 0.5}], V, "probs", "(0,)", "2 entries"),
            ([0, 0, {(1, 1): 0.5, 0: 0.5}], T, "probs", "0", "sequence"),
            ([0, 0, {(1, 1): 0.5, (0, 0): "1"}], T, "probs[(0, 0)]", "'1'", "[0, 1]"),
            ([0, 0, {(1, 1): 0.5, (0, 0): None}], T, "probs[(0, 0)]", "None", "[0, 1]"),
            ([0, 0, [0.5]], T, "probs", "[0.5]", "dict"),
            ([0, 0, None], T, "probs", "None", "dict"),
        ],
    ),
    *named(
        "stack",
        "extract_patch",
        [
            ([2, None, (0, 0), (4, 4)], I, "sample_idx", "2", "2 samples"),
            ([-3, None, (0, 0), (4, 4)], I, "sample_idx", "-3", "2 samples"),
            ([0.0, None, (0, 0), (4, 4)], T, "sample_idx", "0.0", "whole number"),
            ([0, [2], (0, 0), (4, 4)], V, "channels[0]", "2", "at most 1"),
            ([0, [-1], (0, 0), (4, 4)], V, "channels[0]", "-1", "at least 0"),
            ([0, [], (0, 0), (4, 4)], V, "channels", "empty", "None for all"),
            ([0, 1, (0, 0), (4, 4)], T, "channels", "1", "sequence"),
            ([0, None, (0,), (4, 4)], V, "coords", "(0,)", "2 entries"),
            ([0, None, (0, 0.5), (4, 4)], V, "coords[1]", "0.5", "whole number"),
            ([0, None, 3, (4, 4)], T, "coords", "3", "sequence"),
            ([0, None, (0, 0), (4, 0)], V, "patch_size[1]", "0", "at least 1"),
            ([0, None, (0, 0), (4, 4, 4)], V, "patch_size", "(4, 4, 4)", "2 entries"),
            ([0, None, (0, 0), None], T, "patch_size", "None", "sequence"),
        ],
    ),
    *named(
        "two",
        "extract_patch",
        [
            ([2, 0, (0, 0), (4, 4)], I, "data_idx", "2", "2 image stacks"),
            (["0", 0, (0, 0), (4, 4)], T, "data_idx", "'0'", "whole number"),
            ([1, 1, (0, 0), (4, 4)], I, "sample_idx", "1", "1 samples"),
        ],
    ),
    *named(
        "two",
        "extract_channel_patch",
        [
            ([-3, 0, None, (0, 0), (4, 4)], I, "data_idx", "-3", "2 image stacks"),
            ([0, 0, [0, 2], (0, 0), (4, 4)], V, "channels[1]", "2", "at most 1"),
        ],
    ),
]


@pytest.mark.parametrize(("name", "method", "arguments", "error", "words"), METHODS)
def test_wrong_argument_of_a_method(name, method, arguments, error, words):
    keywords = {}
    if method == "construct_batch" and isinstance(arguments[-1], dict):
        *arguments, keywords = arguments
    check(lambda w: getattr(getattr(w, name), method)(*arguments, **keywords), error, words)


UNCORRELATED = {
    **SPEC,
    "principal_channel": 0,
    "all_data_idx": [0, 0],
    "all_sample_idx": [0, 0],
    "all_coords": [(0, 0), (1, 1)],
}


@pytest.mark.parametrize("what", ["input", "target"])
@pytest.mark.parametrize(
    ("name", "spec", "error", "words"),
    [
        ("independent", None, T, ["None", "dict"]),
        ("independent", SPEC, T, ["data_idx", "all_data_idx"]),
        ("independent", {**UNCORRELATED, "all_data_idx": [0]}, V, ["all_data_idx", "[0]", "2"]),
        ("independent", {**UNCORRELATED, "all_data_idx": 5}, T, ["all_data_idx", "5"]),
        ("multichannel", {**UNCORRELATED, "all_data_idx": 5}, T, ["all_data_idx", "5"]),
        ("independent", {**UNCORRELATED, "all_data_idx": [0, 7]}, I, ["all_data_idx", "7"]),
        ("multichannel", {**UNCORRELATED, "all_data_idx": [0, 7]}, I, ["all_data_idx", "7"]),
        ("multichannel", {**UNCORRELATED, "principal_channel": 5}, I, ["principal_channel", "5"]),
        (
            "multichannel",
            {key: value for key, value in UNCORRELATED.items() if key != "principal_channel"},
            *(V, ["principal_channel"]),
        ),
    ],
)
def test_wrong_uncorrelated_spec(name, spec, error, words, what):
    check(
        lambda w: getattr(getattr(w, name), f"get_{what}_image_metadata")(spec),
        *(error, ["patch_spec", *words]),
    )


WRONG_SPECS = [
    *[(value, T, "dict", repr(value)) for value in (None, 5, "abc", [("data_idx", 0)])],
    ({}, V, "{}", "data_idx", "coords"),
    ({**SPEC, "data_idx": 9}, V, "data_idx 9", "image stack"),
    ({**SPEC, "data_idx": -1}, V, "data_idx", "-1", "at least 0"),
    ({**SPEC, "data_idx": 0.0}, V, "data_idx", "0.0", "whole number"),
    ({**SPEC, "data_idx": "0"}, T, "data_idx", "'0'", "whole number"),
    ({**SPEC, "sample_idx": 7}, V, "sample_idx 7", "samples"),
    ({**SPEC, "sample_idx": -1}, V, "sample_idx", "-1", "at least 0"),
    ({**SPEC, "coords": (1,)}, V, "coords", "(1,)", "2 entries"),
    ({**SPEC, "coords": (1, 2, 3)}, V, "coords", "(1, 2, 3)", "2 entries"),
    ({**SPEC, "coords": (1.5, 2)}, V, "coords", "1.5", "whole number"),
    ({**SPEC, "data_idx": 2**70}, V, "data_idx", str(2**70)),
    ({**SPEC, "coords": (2**70, 2)}, V, "coords", str(2**70)),
    ({**SPEC, "patch_size": (2**70, 6)}, V, "patch_size", str(2**70)),
    ({**SPEC, "coords": None}, T, "coords", "None", "sequence"),
    ({**SPEC, "patch_size": (0, 6)}, V, "patch_size", "0", "at least 1"),
    ({**SPEC, "patch_size": 4}, T, "patch_size", "4", "sequence"),
    ({**SPEC, "patch_size": (), "coords": ()}, V, "patch_size", "()", "2 spatial axes"),
    ({**SPEC, "patch_size": (4,) * 3, "coords": (0,) * 3}, V, "(4, 4, 4)", "2 spatial"),
]
each_way = pytest.mark.parametrize("how", ["patch", "batch"])
each_constructor = pytest.mark.parametrize("name", ALL.split())


@each_way
@each_constructor
@pytest.mark.parametrize(("spec", "error", "words"), [(s, e, w) for s, e, *w in WRONG_SPECS])
def test_wrong_spec_of_a_users_strategy(spec, error, words, name, how):
    check(lambda w: run(with_strategy(w, name, GivenPatching(spec)), how), error, words)


@each_way
@pytest.mark.parametrize("name", ALL.split()[1:])
def test_context_that_misses_the_image(name, how):
    # the cut that upstream pads is empty then: no border rule has anything to repeat
    far = GivenPatching({**SPEC, "coords": (1000, 0)})
    words = ["strateg", "coords (1000, 0)", "spatial shape"]
    check(lambda w: run(with_strategy(w, name, far), how), V, words)


@each_way
@each_constructor
@pytest.mark.parametrize(
    ("strategy", "error", "word"),
    [
        (GivenPatching(n_patches="5"), T, "'5'"),
        (GivenPatching(n_patches=None), T, "None"),
        (GivenPatching(n_patches=5.5), V, "5.5"),
        (GivenPatching(n_patches=-3), V, "-3"),
        (MethodPatching(), T, "method"),
    ],
    ids=["string", "none", "fraction", "negative", "method"],
)
def test_wrong_n_patches_of_a_users_strategy(strategy, error, word, name, how):
    check(lambda w: run(with_strategy(w, name, strategy), how), error, ["n_patches", word])


@each_way
@each_constructor
def test_wrong_spec_of_a_users_subclass_of_ours(name, how):
    def call(w):
        shapes = w.actin.shapes if name == "independent" else w.one.shapes
        run(with_strategy(w, name, OutsidePatching(shapes, PATCH, 0)), how)

    check(call, V, ["sample_idx 99", "samples"])


@each_way
def test_partner_that_runs_out_of_patches(how):
    def call(w):
        partner = StratifiedPatching(w.actin.shapes, PATCH, 0)
        made = with_strategy(w, "independent", partner)
        for (data_idx, sample_idx), cells in partner.get_all_grid_coords().items():
            partner.exclude_patches(data_idx, sample_idx, cells)
        run(made, how)

    check(call, V, ["patching_strategies[1]", "0 patches", "at least 1"])

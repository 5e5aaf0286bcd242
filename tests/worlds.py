"""One object of every kind, made the same each time, and what a failing call may do to them."""

from __future__ import annotations

from functools import cache
from types import FunctionType, SimpleNamespace

import numpy as np
import pytest
from builders import CONSTRUCTORS

import gpu_patch
from gpu_patch import (
    FixedPatching,
    FixedRandomPatching,
    ImageStack,
    PatchExtractor,
    RandomPatching,
    SequentialPatching,
    StratifiedPatching,
    TiledPatching,
    WholeSamplePatching,
)

PATCH = (4, 6)
SHAPES = [(2, 20, 18), (1, 13, 25)]
"""Samples and spatial shapes of the world's images; those of mode II's second structure differ."""
SPEC = {"data_idx": 0, "sample_idx": 1, "coords": (3, 2), "patch_size": PATCH}

STRATEGIES = {
    "random": (RandomPatching, {"seed": 1}),
    "fixed_random": (FixedRandomPatching, {"seed": 2}),
    "sequential": (SequentialPatching, {"overlaps": (1, 2)}),
    "tiled": (TiledPatching, {"overlaps": (2, 2)}),
    "stratified": (StratifiedPatching, {"seed": 3}),
    "whole": (WholeSamplePatching, {}),
    "fixed": (FixedPatching, {}),
}


class GivenPatching:
    """A user's strategy: any number of patches, all at one place."""

    def __init__(self, spec=SPEC, n_patches=5):
        self.spec, self.n_patches = spec, n_patches

    def get_patch_spec(self, index):
        return self.spec

    def get_patch_indices(self, data_idx):
        return []


def images(n_channels, dtype, shapes=SHAPES):
    """Image stacks in which neighbours differ."""
    return PatchExtractor(
        [
            ImageStack.from_array(
                (np.arange(s * n_channels * np.prod(size)) * 37 % 251)
                .reshape(s, n_channels, *size)
                .astype(dtype),
                "SCYX" if len(size) == 2 else "SCZYX",
                device="cpu",
            )
            for s, *size in shapes
        ]
    )


def world():
    """Images, a strategy of each kind and a constructor of each kind."""
    w = SimpleNamespace(two=images(2, np.uint16), one=images(1, np.uint8))
    w.actin = images(1, np.float32, [(3, 16, 14)])
    w.volume = images(1, np.uint8, [(1, 4, 9, 9)])
    w.stack = w.two.image_stacks[0]
    w.strategies = {name: strategy(w, name) for name in STRATEGIES}
    vars(w).update(w.strategies)
    w.constructors = {name: constructor(w, name) for name in CONSTRUCTORS}
    vars(w).update(w.constructors)
    return w


def strategy(w, name, **changes):
    """A strategy for the world's images, with some arguments changed."""
    kind, arguments = STRATEGIES[name]
    if name == "fixed":
        arguments = {"fixed_patch_specs": [SPEC, {**SPEC, "data_idx": 1, "sample_idx": 0}]}
    else:
        arguments = {"data_shapes": w.one.shapes, **arguments}
    if name not in ("fixed", "whole"):
        arguments["patch_size"] = PATCH
    return kind(**{**arguments, **changes})


def constructor(w, name, **changes):
    """A constructor of the world's images and strategies, with some arguments changed."""
    scales = {"multiscale_count": 3, "padding_mode": "reflect"}
    drawn = {"rng": np.random.default_rng(5), "alpha_ranges": [(0.1, 0.5), (0.5, 0.9)]}
    placed = {"patching_strategy": w.random}
    arguments = {
        "basic": {**placed, "input_extractor": w.two, "target_extractor": w.one, "channels": [1]},
        "multichannel": {**placed, **scales, **drawn, "target_extractor": w.two}
        | {"uncorrelated_channel_prob": 0.5, "channels": [1, 0]},
        "independent": {**scales, **drawn, "target_extractors": [w.one, w.actin]}
        | {"patching_strategies": [w.random, RandomPatching(w.actin.shapes, PATCH, 4)]},
        "paired": {**placed, **scales, "input_extractor": w.one, "target_extractor": w.two},
        "pred": {**scales, "patching_strategy": w.tiled, "input_extractor": w.one},
    }[name]
    return getattr(gpu_patch, CONSTRUCTORS[name])(**{"seed": 11, **arguments, **changes})


def with_strategy(w, name, made):
    """A constructor that has its strategy, in mode II its second one, from the user."""
    if name == "independent":
        return constructor(w, name, patching_strategies=[w.random, made])
    return constructor(w, name, patching_strategy=made)


def run(made, how):
    """Make a patch alone, or in a batch."""
    return made.construct_patch(0) if how == "patch" else made.construct_batch([1, 0])


def state(thing):
    """Where the generator of a strategy or a constructor stands."""
    rng = getattr(thing, "rng", None)
    return None if rng is None else rng.bit_generator.state


def patches(made, indices):
    """What `construct_patch` gives for some indices, one after the other."""
    return [
        (inputs.tobytes(), None if target is None else target.tobytes(), spec)
        for inputs, target, spec in map(made.construct_patch, indices)
    ]


def results(w):
    """What every object of a world gives from here on, and where its generator stands."""
    everything = [*w.strategies.values(), *w.constructors.values()]
    found = [[state(thing) for thing in everything]]
    for made in w.strategies.values():
        specs = [made.get_patch_spec(i) for i in (0, 1, -1)]
        found.append((made.n_patches, specs, [list(made.get_patch_indices(i)) for i in (0, -1)]))
    for made in w.constructors.values():
        batch = made.construct_batch([0, 7, -2], epoch=3)
        found.append((patches(made, (0, -1)), batch.input.tobytes(), list(batch.specs)))
    found.append([state(thing) for thing in everything])
    found.append([stack.data.tobytes() for stack in (*w.two.image_stacks, *w.one.image_stacks)])
    return found


@cache
def untouched():
    """What a world gives that nobody has touched."""
    return results(world())


def check(call, error, words):
    """`call` fails with exactly `error`, whose message has `words`, and changes nothing."""
    w = world()
    with pytest.raises(error) as raised:
        call(w)
    assert raised.type is error
    missing = [word for word in words if word not in str(raised.value)]
    assert not missing, f"{raised.value!r} does not say {missing}"
    assert results(w) == untouched()


def named(names, argument, rows):
    """One pytest case for each name and row (value, error, *words)."""
    return [
        pytest.param(name, argument, value, error, words, id=f"{name}-{argument}-{i}")
        for name in names.split()
        for i, (value, error, *words) in enumerate(rows)
    ]


def evaluated(value, w):
    """A row's value; functions make theirs from the world."""
    return value(w) if isinstance(value, FunctionType) else value

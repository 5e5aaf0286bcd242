"""A call that fails midway leaves every generator where it was (docs/specification.md, 8)."""

import numpy as np
import pytest
from builders import CONSTRUCTORS
from worlds import PATCH, SPEC, images, patches, state, with_strategy, world

from gpu_patch import (
    BasicPatchConstr,
    FixedPatching,
    IndependentTargetsMsPatchConstr,
    MultiChannelTargetMsPatchConstr,
    RandomPatching,
    StratifiedPatching,
)


class Stumbling:
    """Random places, but call number `at` (from 0) fails or gives a wrong spec instead."""

    def __init__(self, shapes, at=None, how=ZeroDivisionError):
        self.inner = RandomPatching(shapes, PATCH, 7)
        self.calls, self.at, self.how = 0, at, how

    @property
    def n_patches(self):
        return self.inner.n_patches

    def get_patch_indices(self, data_idx):
        return self.inner.get_patch_indices(data_idx)

    def get_patch_spec(self, index):
        self.calls += 1
        if self.calls - 1 != self.at:
            return self.inner.get_patch_spec(index)
        if isinstance(self.how, dict):
            return {**self.inner.get_patch_spec(index), **self.how}
        raise self.how("stumbled")


class StumblingVariant(Stumbling, RandomPatching):
    """The same as somebody's subclass of ours, whose own generator has moved when it fails."""

    def __init__(self, shapes, at=None, how=ZeroDivisionError):
        RandomPatching.__init__(self, shapes, PATCH, 7)
        self.calls, self.at, self.how = 0, at, how

    n_patches = RandomPatching.n_patches
    get_patch_indices = RandomPatching.get_patch_indices
    inner = property(lambda self: super(Stumbling, self))


FAULTS = [
    (ZeroDivisionError, ZeroDivisionError),
    (KeyboardInterrupt, KeyboardInterrupt),
    ({"data_idx": 5}, ValueError),
    ({"sample_idx": 9}, ValueError),
    ({"coords": (9999, 0)}, ValueError),
    ({"patch_size": (3, 3)}, ValueError),
    ({"coords": None}, TypeError),
]


def mode_one(strategy):
    extractor = images(3, np.uint8)
    return MultiChannelTargetMsPatchConstr(
        *(strategy, extractor, 2, "reflect", [(0, 1)] * 3, 1.0),
        rng=np.random.default_rng(3),
        seed=0,
    )


@pytest.mark.parametrize("kind", [Stumbling, StumblingVariant])
@pytest.mark.parametrize(("how", "error"), FAULTS)
def test_mode_one_when_the_second_place_fails(kind, how, error):
    # three channels, always from different places: calls 0, 1, 2 are the first patch's
    shapes = images(3, np.uint8).shapes
    made = mode_one(kind(shapes, at=1, how=how))
    strategy = made.patching_strategy
    before = state(made), state(strategy)
    with pytest.raises(error):
        made.construct_patch(4)
    assert strategy.calls >= 2
    assert (state(made), state(strategy)) == before
    strategy.at = None
    if kind is Stumbling:
        strategy.inner = RandomPatching(shapes, PATCH, 7)
    assert patches(made, (4, 0, -1)) == patches(mode_one(kind(shapes)), (4, 0, -1))


def mode_two(*strategies):
    return IndependentTargetsMsPatchConstr(
        *(strategies, [images(1, np.uint8)] * 3, 2, "reflect", [(0, 1)] * 3),
        rng=np.random.default_rng(3),
        seed=0,
    )


def ours_around(middle):
    """Strategies of mode II: the first and the last are ours and draw from generators."""
    shapes = images(1, np.uint8).shapes
    return RandomPatching(shapes, PATCH, 1), middle, StratifiedPatching(shapes, PATCH, 2)


@pytest.mark.parametrize(("how", "error"), FAULTS)
def test_mode_two_when_the_second_call_fails(how, error):
    shapes = images(1, np.uint8).shapes
    strategies = ours_around(Stumbling(shapes, at=1, how=how))
    made = mode_two(*strategies)
    untouched = mode_two(*ours_around(Stumbling(shapes)))
    assert patches(made, [2]) == patches(untouched, [2])
    before = [state(thing) for thing in (made, *strategies)]
    for _ in range(2):
        strategies[1].calls = 1
        with pytest.raises(error):
            made.construct_patch(3)
        assert [state(thing) for thing in (made, *strategies)] == before
    strategies[1].inner.rng.bit_generator.state = state(untouched.patching_strategies[1].inner)
    assert patches(made, (3, 0, -1)) == patches(untouched, (3, 0, -1))


@pytest.mark.parametrize("name", CONSTRUCTORS)
@pytest.mark.parametrize(("how", "error"), FAULTS[2:4])
def test_strategy_that_drew_a_place_outside_its_images(name, how, error):
    w = world()
    shapes = w.actin.shapes if name == "independent" else w.one.shapes
    strategy = StumblingVariant(shapes, at=0, how=how)
    made = with_strategy(w, name, strategy)
    things = made, strategy, w.random
    before = [state(thing) for thing in things]
    with pytest.raises(error):
        made.construct_patch(1)
    assert strategy.calls == 1
    assert [state(thing) for thing in things] == before


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_patch_that_does_not_fit_into_memory(name):
    # 2^60 bytes: no address space has them
    w = world()
    size = (1 << 29, 1 << 29)
    huge = FixedPatching([{**SPEC, "coords": (0, 0), "patch_size": size}] * 99)
    if name == "independent":
        strategies = [huge, FixedPatching(huge.fixed_patch_specs)]
        made = IndependentTargetsMsPatchConstr(strategies, [w.one, w.actin], 2, "wrap", None)
    else:
        made = with_strategy(w, name, huge)
    before = state(made)
    with pytest.raises(MemoryError, match=r"allocate|asked"):
        made.construct_patch(3)
    with pytest.raises(MemoryError, match=r"allocate|asked"):
        made.construct_batch([3, 4])
    assert state(made) == before


@pytest.mark.parametrize("arguments", [{"dtype": np.int8}, {"epoch": -1}])
def test_batch_with_a_users_strategy_that_has_a_generator(arguments):
    # called index by index, so its generator moves; a batch that fails puts it back too
    made = BasicPatchConstr(StumblingVariant(images(1, np.uint8).shapes), images(1, np.uint8))
    before = state(made.patching_strategy)
    with pytest.raises(ValueError, match=next(iter(arguments))):
        made.construct_batch([0, 1], **arguments)
    made.patching_strategy.calls, made.patching_strategy.at = 0, 1
    with pytest.raises(ZeroDivisionError):
        made.construct_batch([0, 1])
    assert state(made.patching_strategy) == before


def test_exclusion_and_probabilities_of_a_list_with_one_wrong_cell():
    made, untouched = (StratifiedPatching([(1, 1, 20, 18)], PATCH, 3) for _ in range(2))
    for strategy in (made, untouched):
        strategy.exclude_patches(0, 0, [(1, 1)])
        strategy.set_region_probs(0, 0, {(4, 2): 0.25})
    with pytest.raises(ValueError, match="outside the grid"):
        made.exclude_patches(0, 0, [(0, 0), (3, 3)])
    with pytest.raises(ValueError, match="outside the grid"):
        made.set_region_probs(0, 0, {(0, 0): 0.5, (3, 3): 0.5})
    assert made.get_included_grid_coords() == untouched.get_included_grid_coords()
    assert made.n_patches == untouched.n_patches
    assert [made.get_patch_spec(i) for i in range(made.n_patches)] == [
        untouched.get_patch_spec(i) for i in range(untouched.n_patches)
    ]


def test_image_without_patches_has_no_indices():
    # it is one of the constructor's images, so asking for it is no error
    extractor = images(1, np.uint8)
    for strategy in (RandomPatching(extractor.shapes[:1], PATCH), FixedPatching([SPEC])):
        made = BasicPatchConstr(strategy, extractor)
        assert list(made.get_patch_indices(1)) == []
        assert list(made.get_patch_indices(-1)) == []
        assert list(made.get_patch_indices(-2)) == list(range(strategy.n_patches))

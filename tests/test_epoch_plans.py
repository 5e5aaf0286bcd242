"""Batches are planned as rows of their epoch's plan, and are what each sample's own plan says."""

import pickle
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from samples import KINDS, make_sample

from gpu_patch import Augmentation, MultiChannelTargetMsPatchConstr, RandomPatching
from gpu_patch.constructors import tabulated
from gpu_patch.constructors.execute import execute
from gpu_patch.feed import Normalization

STRATEGIES = ("random", "fixed_random", "sequential", "tiled", "fixed", "stratified")
TURNS = Augmentation(rotate=False)


@pytest.fixture
def planned(monkeypatch):
    """How many samples are planned at a time."""
    found = []
    plan_batch = MultiChannelTargetMsPatchConstr._plan_batch

    def spy(self, index, epoch):
        found.append(len(index))
        return plan_batch(self, index, epoch)

    monkeypatch.setattr(MultiChannelTargetMsPatchConstr, "_plan_batch", spy)
    monkeypatch.setattr(tabulated, "_BLOCK_SIZE", 12)
    return found


def constructor(kind="multichannel", strategy="random", **options):
    return make_sample(kind, strategy, 2, **options).constructor


def normalization(kind, n_channels=3):
    """With numbers of its own for each channel."""
    n_inputs = n_channels if kind == "basic" else 1
    means, stds = np.arange(1.0, 4), np.arange(2.0, 5)
    return Normalization.mean_std(means[:n_inputs], stds[:n_inputs], 5.0, 7.0)


def direct(constructor, index, epoch, normalization=None, augmentation=None):
    """The plan that these samples have by themselves."""
    index = np.array(index)
    plan = constructor._plan_batch(index, epoch)
    return constructor._finished(plan, index, epoch, normalization, augmentation)


def assert_equal_plans(found, expected):
    for one, other in zip(found.reads, expected.reads, strict=True):
        assert (one.n_scales, one.mode) == (other.n_scales, other.mode)
        assert one.images is other.images
        for own, wanted in zip(one.sources, other.sources, strict=True):
            shape = np.broadcast_shapes(own.shape, wanted.shape)
            np.testing.assert_array_equal(
                np.broadcast_to(own, shape), np.broadcast_to(wanted, shape)
            )
    ours, theirs = (plan.epilogue and plan.epilogue.columns for plan in (found, expected))
    for own, wanted in zip(
        [found.weights, *(ours or ())], [expected.weights, *(theirs or ())], strict=True
    ):
        assert (own is None) == (wanted is None)
        if own is not None:
            assert (own.dtype, own.shape) == (wanted.dtype, wanted.shape)
            np.testing.assert_array_equal(own, wanted)
    assert list(found.specs) == list(expected.specs)
    assert found.n_channels == expected.n_channels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("block_size", [5, 1000])
def test_rows_are_the_plans_of_samples(monkeypatch, kind, strategy, block_size):
    monkeypatch.setattr(tabulated, "_BLOCK_SIZE", block_size)
    made = constructor(kind, strategy)
    rng, n = np.random.default_rng(0), made.n_patches
    options = [{}, {"normalization": normalization(kind)}, {"augmentation": TURNS}]
    options.append(options[1] | options[2])
    for some in options:
        for epoch in [3] * (2 + -(-n // block_size)) + [4, 3]:
            index = rng.integers(0, n, 4)
            found = made.plan_batch(index, epoch=epoch, **some)
            assert_equal_plans(found, direct(made, index, epoch, **some))


def test_samples_are_planned_beside_a_batch(planned):
    made = constructor()
    assert made.n_patches == 69
    for epoch in [0] * 9 + [1, 1, 0, 0]:
        made.plan_batch([1, 2, 3], epoch=epoch)
    assert planned == [3, 15, 15, 15, 15, 15, 12, 3, 15, 3, 15]


def test_large_batches_and_epochs_are_planned_alone(planned, monkeypatch):
    made = constructor()
    for _ in range(4):
        made.plan_batch(range(12))
    monkeypatch.setattr(tabulated, "_MOST_PATCHES", made.n_patches - 1)
    for _ in range(4):
        made.plan_batch([0])
    assert planned == [12] * 4 + [1] * 4
    monkeypatch.setattr(tabulated, "_MOST_PATCHES", made.n_patches)
    for _ in range(2):
        made.plan_batch([0])
    assert planned[8:] == [1, 13]


def test_places_with_more_to_say_are_planned_alone(planned):
    made = constructor(strategy="tiled")
    for _ in range(5):
        made.plan_batch([0, 1])
    assert planned == [2, 14, 2, 2, 2]


class Plain:
    """What may change in place, and is known by where it is."""

    def __init__(self, **values):
        vars(self).update(values)


@dataclass(frozen=True)
class Frozen:
    """What cannot change but for what is within, and so has no hash."""

    input_scale: np.ndarray
    input_offset: np.ndarray
    target_scale: None
    target_offset: None


@pytest.mark.parametrize("kind", [SimpleNamespace, Plain, Frozen])
def test_what_changes_in_place_is_planned_anew(kind):
    made = constructor(strategy="stratified")
    somebodys = kind(
        input_scale=np.ones(1, np.float32),
        input_offset=np.zeros(1, np.float32),
        target_scale=None,
        target_offset=None,
    )
    index = np.arange(3)
    for step in range(3):
        for _ in range(30):
            found = made.plan_batch(index, normalization=somebodys)
            assert_equal_plans(found, direct(made, index, 0, somebodys))
        cell = made.patching_strategy.get_included_grid_coords()[0, 0][0]
        made.patching_strategy.set_region_probs(0, 0, {cell: 0.25 * step})
        assert_equal_plans(
            made.plan_batch(index, normalization=somebodys), direct(made, index, 0, somebodys)
        )
        somebodys.input_offset[:] += 1
        made.seed += step


@pytest.mark.parametrize(
    ("setting", "value"),
    [("uncorrelated_channel_prob", 0.0), ("multiscale_count", 1), ("padding_mode", "wrap")],
)
def test_settings_that_change_within_an_epoch_are_heeded(setting, value):
    made, index = constructor(), range(8)
    before = [made.plan_batch(index, epoch=3) for _ in range(3)]  # the last ones are rows
    setattr(made, setting, value)
    expected = direct(made, index, 3)
    for _ in range(3):
        found = made.plan_batch(index, epoch=3)
        assert_equal_plans(found, expected)
        assert list(found.specs) == list(expected.specs)
    changed = [(read.n_scales, read.mode) for read in found.reads]
    was = [(read.n_scales, read.mode) for read in before[-1].reads]
    assert changed != was or list(found.specs) != list(before[-1].specs)


def test_indices_may_be_used_again():
    made, index = constructor(), np.arange(4)
    for _ in range(20):
        plan = made.plan_batch(index)
    expected = list(plan.specs)
    index[:] = 7
    assert list(plan.specs) == expected


def test_specs_travel_without_those_of_the_epoch():
    made = constructor()
    for _ in range(20):
        specs = made.plan_batch([5, 0, 9]).specs
    copy = pickle.loads(pickle.dumps(specs))
    assert list(copy) == list(specs)
    assert [len(places.data_idx) for places in copy.places] == [3] * len(copy.places)
    np.testing.assert_array_equal(specs.principal.coords, [spec["coords"] for spec in specs])
    for ours, spec in zip(specs.by_channel(3), specs, strict=True):
        assert ours["all_coords"] == spec.get("all_coords", [spec["coords"]] * 3)


def test_a_constructor_travels_without_its_plans():
    made = constructor(strategy="random")
    made.plan_batch([5, 0, 9])
    before = len(pickle.dumps(made))
    for _ in range(20):
        made.plan_batch([5, 0, 9])
    assert len(pickle.dumps(made)) == before


def test_patches_of_own_sizes_are_planned_alone():
    made = constructor("basic", "whole")
    for _ in range(3):
        for i in range(made.n_patches):
            assert_equal_plans(made.plan_batch([i]), direct(made, [i], 0))


def test_rows_are_nobody_elses():
    made = constructor()
    for _ in range(20):
        made.plan_batch([0, 1])
    for own in (made.plan_batch([0, 1]) for _ in range(2)):
        assert_equal_plans(own, direct(made, [0, 1], 0))
        own.weights[...] = -1
        own.sources.coords[...] = -1
    assert isinstance(made.patching_strategy, RandomPatching)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_their_samples_alone(kind):
    made, index = constructor(kind), np.array([7, 0, 3, 3])
    options = [{}, {"normalization": normalization(kind)}, {"augmentation": TURNS}]
    options.append(options[1] | options[2])
    for dtype in ("float32", "float16"):
        for some in options:
            for epoch in (0, 1):
                inputs, targets = execute(direct(made, index, epoch, **some), dtype)
                for _ in range(3):  # alone, beside others, and as rows of all
                    found = made.construct_batch(index, epoch=epoch, dtype=dtype, **some)
                    np.testing.assert_array_equal(found.input, inputs)
                    assert (found.target is None) == (targets is None)
                    if targets is not None:
                        np.testing.assert_array_equal(found.target, targets)


def test_operations_are_prepared_once_for_an_epoch(monkeypatch):
    prepared = []
    init = tabulated.Execution.__init__
    monkeypatch.setattr(
        tabulated.Execution,
        "__init__",
        lambda self, *arguments: (prepared.append(arguments[1:]), init(self, *arguments))[1],
    )
    made = constructor()
    for dtype in ("float32", np.float32, "float16", np.dtype("float32")):
        for _ in range(3):
            made.construct_batch([1, 2], dtype=dtype)
    # alone and beside others, then by the types of their results
    assert prepared == [(np.float32, None)] * 3 + [(np.float16, None)]

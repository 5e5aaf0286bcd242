"""Batches that are normalised and turned, or lack structures: all else about them stays."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import reference
import samples
from builders import KINDS
from reference import finished, on_host
from samples import make_images, make_sample

import gpu_patch
from gpu_patch import Augmentation

INDICES = [3, 0, 17, 5, 5, 11, 20, 8]
CONTEXT = tuple(kind for kind in KINDS if kind != "basic")


@pytest.fixture(autouse=True)
def square_patches(monkeypatch):
    monkeypatch.setattr(samples, "PATCH_SIZE", {2: (6, 6), 3: (3, 4, 4)})


def channels(kind):
    """Channels of input and target that a normalisation tells apart."""
    inputs = 3 if kind == "basic" else 1
    return inputs, {"basic": 2, "paired": 2, "pred": 0}.get(kind, 3)


def normalization(kind, *, targets=True, one=False):
    """Numbers that differ in everything."""
    n_inputs, n_targets = (1, 1) if one else channels(kind)
    numbers = {
        "input_scale": np.linspace(0.01, 0.03, n_inputs),
        "input_offset": np.linspace(-2, 7, n_inputs),
        "target_scale": np.linspace(0.5, 0.1, n_targets or 1),
        "target_offset": np.linspace(3, -5, n_targets or 1),
    }
    found = {name: values.astype(np.float32) for name, values in numbers.items()}
    if not targets:
        found |= {"target_scale": None, "target_offset": None}
    return SimpleNamespace(**found)


def orientations(sample, epoch, indices, augmentation=None):
    """How samples are turned, from the documented counters."""
    n = sample.constructor.n_patches
    uniforms = [
        [
            reference.uniform(sample.seed, epoch, i % n, reference.AUGMENTATION, 0, k)
            for i in indices
        ]
        for k in range(4)
    ]
    return (augmentation or Augmentation()).orientations(np.array(uniforms))


def expected(batch, found, turns):
    """A plain batch, finished afterwards in float64."""
    n = len(turns)

    def part(array, scale, offset):
        scale, offset = (
            np.broadcast_to(v, (n, len(v))).astype(np.float64) for v in (scale, offset)
        )
        return finished(on_host(array).astype(np.float64), scale, offset, turns)

    one = np.ones(1)
    target_scale, target_offset = (
        (one, 0 * one) if found.target_scale is None else (found.target_scale, found.target_offset)
    )
    target = None
    if batch.target is not None:
        target = part(batch.target, target_scale, target_offset)
    return part(batch.input, found.input_scale, found.input_offset), target


def assert_near(found, wanted, largest=0):
    if wanted is None:
        assert found is None
        return
    found = on_host(found)
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-6 * max(np.abs(wanted).max(), largest)


@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_finished(kind, n_dims, targets, one, device):
    sample = make_sample(kind, n_dims=n_dims, device=device)
    numbers = normalization(kind, targets=targets, one=one)
    options = {"normalization": numbers, "augmentation": Augmentation()}
    plain = sample.constructor.construct_batch(INDICES, epoch=2)
    found = sample.constructor.construct_batch(INDICES, epoch=2, **options)
    turns = orientations(sample, 2, INDICES)
    assert len(set(turns.tolist())) > 2
    inputs, target = expected(plain, numbers, turns)
    assert_near(found.input, inputs)
    assert_near(found.target, target)
    assert list(found.specs) == list(plain.specs)


@pytest.mark.parametrize("kind", KINDS)
def test_either_may_be_asked_for_alone(kind, device):
    sample = make_sample(kind, device=device)
    plain = sample.constructor.construct_batch(INDICES)
    nothing = np.zeros(len(INDICES), np.uint8)
    numbers = normalization(kind)
    found = sample.constructor.construct_batch(INDICES, normalization=numbers)
    for array, wanted in zip(found, expected(plain, numbers, nothing), strict=False):
        assert_near(array, wanted)
    found = sample.constructor.construct_batch(INDICES, augmentation=Augmentation())
    identity = SimpleNamespace(
        input_scale=np.ones(1), input_offset=np.zeros(1), target_scale=None, target_offset=None
    )
    turns = orientations(sample, 0, INDICES)
    for array, wanted in zip(found, expected(plain, identity, turns), strict=False):
        if wanted is None:
            assert array is None
        else:
            reference.assert_same(array, wanted.astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_float16_is_the_rounded_float32(kind, device):
    constructor = make_sample(kind, device=device).constructor
    options = {"normalization": normalization(kind), "augmentation": Augmentation()}
    found = constructor.construct_batch(INDICES, dtype=np.float16, **options)
    wanted = constructor.construct_batch(INDICES, **options)
    with np.errstate(over="ignore"):
        for array, other in zip(found[:2], wanted[:2], strict=True):
            if other is not None:
                reference.assert_same(array, on_host(other).astype(np.float16))


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batch_nor_order_nor_history_matters(kind, device):
    options = {"normalization": normalization(kind), "augmentation": Augmentation()}
    absent = (
        {"absent_prob": 0.4, "background": 7} if kind in ("multichannel", "independent") else {}
    )
    sample = make_sample(kind, device=device, **absent)
    constructor = pickle.loads(pickle.dumps(sample.constructor))
    whole = sample.constructor.construct_batch(INDICES, epoch=5, **options)
    for i in range(3):
        constructor.construct_batch(INDICES[i : i + 2], epoch=i, augmentation=Augmentation())
    for at in ([2], [4, 1, 1], list(range(8))[::-1]):
        some = constructor.construct_batch([INDICES[i] for i in at], epoch=5, **options)
        for one, other in zip(some[:2], whole[:2], strict=True):
            if other is not None:
                reference.assert_filtered(one, on_host(other)[at])
                np.testing.assert_array_equal(on_host(one)[:, 0], on_host(other)[at][:, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_says_what_the_batch_is(kind):
    sample = make_sample(kind)
    numbers = normalization(kind)
    constructor = sample.constructor
    assert constructor.plan_batch(INDICES).epilogue is None
    plan = constructor.plan_batch(
        INDICES, epoch=1, normalization=numbers, augmentation=Augmentation()
    )
    n_inputs, n_targets = channels(kind)
    assert plan.epilogue.input_scale.shape == (len(INDICES), n_inputs)
    assert plan.epilogue.target_offset.shape == (len(INDICES), n_targets)
    np.testing.assert_array_equal(plan.epilogue.orientation, orientations(sample, 1, INDICES))


@pytest.mark.parametrize("kind", KINDS)
def test_patches_that_are_not_square_cannot_be_turned(kind, monkeypatch, device):
    monkeypatch.setattr(samples, "PATCH_SIZE", {2: (6, 5)})
    constructor = make_sample(kind, device=device).constructor
    with pytest.raises(ValueError, match=r"square in XY.*\(6, 5\)"):
        constructor.construct_batch([0], augmentation=Augmentation())
    sample = make_sample(kind, device=device)
    flips = Augmentation(rotate=False)
    found = constructor.construct_batch(INDICES, augmentation=flips)
    turns = orientations(sample, 0, INDICES, flips)
    assert set(turns.tolist()) == {0, 4, 6}
    plain = on_host(constructor.construct_batch(INDICES).input)
    ones = np.ones((len(INDICES), 1), np.float32)
    reference.assert_same(found.input, finished(plain, ones, 0 * ones, turns))


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_arguments_are_named_and_change_nothing(kind):
    constructor = make_sample(kind).constructor
    before = constructor.construct_batch(INDICES)
    n_inputs, _ = channels(kind)
    wrong = normalization(kind)
    wrong.input_scale = np.ones(n_inputs + 1, np.float32)
    with pytest.raises(ValueError, match=r"normalization\.input_scale"):
        constructor.construct_batch(INDICES, normalization=wrong)
    with pytest.raises(TypeError, match="normalization must have"):
        constructor.construct_batch(INDICES, normalization="mean_std")
    with pytest.raises(TypeError, match="augmentation must be an Augmentation or None, found True"):
        constructor.construct_batch(INDICES, augmentation=True)
    samples.assert_equal_batches(constructor.construct_batch(INDICES), before)


# ---------------------------------------------------------------------------------------------
# Structures that are absent

MIXING = ("multichannel", "independent")
EVERYTHING = range(24)


def absent(sample, epoch, indices, probabilities):
    """Which channels samples lack, from the documented counters."""
    drawn = [
        [reference.uniform(sample.seed, epoch, i, reference.ABSENT, c) for c in range(3)]
        for i in indices
    ]
    return np.array(drawn) < probabilities


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", MIXING)
def test_absent_structures_are_background(kind, n_dims, device):
    # mode I counts the channels of the images, of which it takes 2, 0, 1
    probabilities, levels = [0.2, 0.5, 0.8], [10.0, 0.0, -30.0]
    own = [2, 0, 1] if kind == "multichannel" else [0, 1, 2]
    sample = make_sample(
        kind, n_dims=n_dims, device=device, absent_prob=probabilities, background=levels
    )
    batch = sample.constructor.construct_batch(EVERYTHING, epoch=1)
    gone = absent(sample, 1, EVERYTHING, np.array(probabilities)[own])
    assert gone.any(axis=0).all()
    assert not gone.all(axis=0).any()
    plain = make_sample(kind, n_dims=n_dims, device=device).constructor
    assert list(batch.specs) == list(plain.construct_batch(EVERYTHING, epoch=1).specs)
    for i, spec in enumerate(batch.specs):
        weights = sample.weights(1, i)
        inputs, target = sample.expected(spec, np.where(gone[i], 0, weights))
        level = np.array(levels)[own]
        inputs += (weights * level)[gone[i]].sum()
        target[gone[i]] = level[gone[i]].reshape(-1, *(1,) * n_dims)
        assert_near(batch.input[i], inputs, 100)
        reference.assert_same(batch.target[i], target)


@pytest.mark.parametrize("kind", MIXING)
def test_absence_comes_before_normalization_and_turns(kind, device):
    sample = make_sample(kind, device=device, absent_prob=0.5, background=[3, 200, 50])
    numbers = normalization(kind)
    plain = sample.constructor.construct_batch(EVERYTHING)
    found = sample.constructor.construct_batch(
        EVERYTHING, normalization=numbers, augmentation=Augmentation()
    )
    turns = orientations(sample, 0, EVERYTHING)
    for array, wanted in zip(found, expected(plain, numbers, turns), strict=False):
        assert_near(array, wanted)


@pytest.mark.parametrize("kind", MIXING)
def test_without_absence_nothing_changes(kind, device):
    plain = make_sample(kind, device=device).constructor
    before = plain.construct_batch(EVERYTHING)
    for options in ({"absent_prob": None, "background": 9}, {"absent_prob": 0, "background": 9}):
        constructor = make_sample(kind, device=device, **options).constructor
        samples.assert_equal_batches(constructor.construct_batch(EVERYTHING), before)
    assert plain.plan_batch([0]).epilogue is None


@pytest.mark.parametrize("kind", MIXING)
def test_all_structures_may_be_absent_at_once(kind, device):
    sample = make_sample(kind, device=device, ranges=None, absent_prob=1.0, background=6)
    batch = sample.constructor.construct_batch([0, 1])
    np.testing.assert_allclose(on_host(batch.input), 6, rtol=1e-6)
    assert (on_host(batch.target) == 6).all()


@pytest.mark.parametrize("kind", MIXING)
def test_single_patches_have_all_structures(kind, device):
    lacking = make_sample(kind, device=device, absent_prob=1.0, background=6).constructor
    plain = make_sample(kind, device=device).constructor
    for a, b in zip(lacking.construct_patch(2), plain.construct_patch(2), strict=True):
        np.testing.assert_equal(on_host(a), on_host(b))


@pytest.mark.parametrize("kind", MIXING)
def test_shares_of_absence_are_the_probabilities(kind):
    sample = make_sample(kind, absent_prob=[0.1, 0.5, 0.9])
    plans = [sample.constructor.plan_batch(EVERYTHING, epoch=e) for e in range(100)]
    gone = np.concatenate([plan.epilogue.target_scale == 0 for plan in plans])
    own = [0.9, 0.1, 0.5] if kind == "multichannel" else [0.1, 0.5, 0.9]
    assert np.abs(gone.mean(axis=0) - own).max() < 5 * 0.5 / np.sqrt(len(gone))
    # independently of each other
    assert np.abs(np.corrcoef(gone.T) - np.eye(3)).max() < 5 / np.sqrt(len(gone))


@pytest.mark.parametrize("kind", MIXING)
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"absent_prob": 1.2}, ValueError, ["absent_prob", "1.2", "[0, 1]"]),
        ({"absent_prob": [0, 0.5, -1]}, ValueError, ["absent_prob[2]", "-1"]),
        ({"absent_prob": [0, 0.5]}, ValueError, ["absent_prob", "3", "[0, 0.5]"]),
        ({"absent_prob": "often"}, TypeError, ["absent_prob", "'often'"]),
        ({"background": "dark"}, TypeError, ["background", "'dark'", "number"]),
        ({"background": np.inf}, ValueError, ["background", "inf", "finite"]),
        ({"background": [0, 1, None]}, TypeError, ["background[2]", "None"]),
        ({"background": [0] * 4}, ValueError, ["background", "3", "[0, 0, 0, 0]"]),
    ],
)
def test_wrong_absence_is_named(kind, options, error, words):
    with pytest.raises(error) as raised:
        make_sample(kind, **options)
    assert all(word in str(raised.value) for word in words)


def test_a_large_background_does_not_cost_precision(device):
    """Constant images tell: what is absent is exactly its background."""
    extractor = samples.make_extractor(make_images([(1, 20, 20)], 2, ["uint16"], 0), device)
    strategy = gpu_patch.RandomPatching(extractor.shapes, (6, 6))
    constructor = gpu_patch.MultiChannelTargetMsPatchConstr(
        strategy, extractor, 2, "reflect", None, 0, seed=0, absent_prob=[0, 1], background=60_000
    )
    target = on_host(constructor.construct_batch([0, 1]).target)
    assert (target[:, 1] == 60_000).all()
    assert (target[:, 0] != 60_000).any()

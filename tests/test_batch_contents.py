"""What a batch holds: the pixels that its specs name, mixed by the documented draws."""

from itertools import product
from math import prod

import numpy as np
import pytest
import reference
from builders import KINDS
from reference import LOCATION, PARTNER, UNCORRELATED, on_host, uniform
from samples import (
    MODES,
    PATCH_SIZE,
    RANGES,
    STRATEGIES,
    assert_batch_is,
    assert_patch,
    fixed_specs,
    make_extractor,
    make_images,
    make_sample,
    make_strategy,
)

from gpu_patch import FixedPatching, IndependentTargetsMsPatchConstr

CASES = [
    pytest.param(kind, strategy, n_dims, MODES[i % len(MODES)], id=f"{kind}-{strategy}-{n_dims}D")
    for i, (kind, strategy, n_dims) in enumerate(
        (kind, strategy, n_dims) for kind in KINDS for strategy in STRATEGIES for n_dims in (2, 3)
    )
]


def some_indices(constructor, n=6):
    return np.random.default_rng(1).integers(0, constructor.n_patches, n).tolist()


@pytest.mark.parametrize(("kind", "strategy", "n_dims", "mode"), CASES)
def test_specs_and_weights_say_what_is_in_a_batch(device, kind, strategy, n_dims, mode):
    sample = make_sample(kind, strategy, n_dims, mode=mode, device=device)
    indices = some_indices(sample.constructor)
    batch = sample.constructor.construct_batch(indices, epoch=11)
    assert_batch_is(sample, batch, indices, 11)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["multichannel", "independent"])
def test_no_ranges_are_equal_weights(kind, probability, mode, device):
    sample = make_sample(kind, mode=mode, ranges=None, probability=probability, device=device)
    indices = some_indices(sample.constructor)
    assert_batch_is(sample, sample.constructor.construct_batch(indices), indices, 0)


@pytest.mark.parametrize("n_structures", [1, 2])
def test_mode_ii_takes_any_number_of_structures(n_structures, device):
    sample = make_sample("independent", n_structures=n_structures, device=device)
    indices = some_indices(sample.constructor)
    assert_batch_is(sample, sample.constructor.construct_batch(indices), indices, 0)


@pytest.mark.parametrize("channels", [(1,), (2, 1), (0, 0, 2), (1, 2, 0, 1)])
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_mode_i_takes_some_channels_with_their_ranges(channels, probability, device):
    sample = make_sample("multichannel", channels=channels, probability=probability, device=device)
    indices = some_indices(sample.constructor)
    batch = sample.constructor.construct_batch(indices, epoch=2)
    assert batch.target.shape[1] == len(channels)
    assert_batch_is(sample, batch, indices, 2)


# ---------------------------------------------------------------------------------------------
# Draws: where RandomPatching puts patches, worked out from the counters


def random_place(strategy, index, uniforms):
    """(data_idx, sample_idx, coords) of RandomPatching, given numbers in [0, 1) per axis."""
    for data_idx, shape in enumerate(strategy.data_shapes):
        sizes = list(zip(shape[2:], strategy.patch_size, strict=True))
        per_sample = prod(-(-n // p) for n, p in sizes)
        if index < shape[0] * per_sample:
            starts = [int(u * (n - p + 1)) for u, (n, p) in zip(uniforms, sizes, strict=True)]
            return data_idx, index // per_sample, tuple(starts)
        index -= shape[0] * per_sample
    raise AssertionError("no such index")


def indices_of_channels(sample, epoch, index):
    """Patch index of each channel, or of all where they come from one place."""

    def partner(channel, strategy):
        drawn = uniform(sample.seed, epoch, index, PARTNER, channel)
        return int(drawn * strategy.n_patches)

    if sample.kind == "independent":
        found = [partner(c, strategy) for c, strategy in enumerate(sample.strategies)]
        found[sample.constructor.principal_channel] = index
        return found
    if sample.kind == "multichannel" and uniform(sample.seed, epoch, index, UNCORRELATED, 0) < 0.5:
        return [index, partner(1, sample.strategies[0]), partner(2, sample.strategies[0])]
    return [index]


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_random_places_follow_the_documented_draws(kind, n_dims):
    sample, epoch = make_sample(kind, n_dims=n_dims), 6
    principal = getattr(sample.constructor, "principal_channel", 0)
    specs = sample.constructor.construct_batch(range(20), epoch=epoch).specs
    for index, spec in enumerate(specs):
        places = []
        for channel, own in enumerate(indices_of_channels(sample, epoch, index)):
            strategy = sample.strategies[channel if kind == "independent" else 0]
            uniforms = [
                uniform(sample.seed, epoch, index, LOCATION, channel, d) for d in range(n_dims)
            ]
            places.append(random_place(strategy, own, uniforms))
        assert (spec["data_idx"], spec["sample_idx"], spec["coords"]) == places[principal]
        assert spec["patch_size"] == PATCH_SIZE[n_dims]
        if len(places) == 1:
            assert len(spec) == 4
        else:
            assert spec["principal_channel"] == principal
            assert spec["all_data_idx"] == [place[0] for place in places]
            assert spec["all_sample_idx"] == [place[1] for place in places]
            assert spec["all_coords"] == [place[2] for place in places]


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("name", ["sequential", "tiled", "fixed_random"])
def test_places_that_are_not_drawn_are_the_definition(name, n_dims):
    sample = make_sample("pred", name, n_dims)
    constructor, size = sample.constructor, PATCH_SIZE[n_dims]
    rng, expected = np.random.default_rng(3), []  # the seed that samples gives
    for data_idx, shape in enumerate(constructor.input_shapes):
        for sample_idx in range(shape[0]):
            place = {"data_idx": data_idx, "sample_idx": sample_idx}
            if name == "fixed_random":
                last = [max(0, n - p) for n, p in zip(shape[2:], size, strict=True)]
                for _ in range(prod(-(-n // p) for n, p in zip(shape[2:], size, strict=True))):
                    coords = rng.integers(np.zeros_like(last), last, endpoint=True, dtype=int)
                    expected.append({**place, "coords": tuple(coords.tolist())})
                continue
            overlaps = sample.strategies[0].overlaps
            grid = reference.sequential_starts if name == "sequential" else reference.tiles
            axes = [grid(n, p, o) for n, p, o in zip(shape[2:], size, overlaps, strict=True)]
            total = prod(map(len, axes)) * shape[0]
            for tile in product(*axes):
                if name == "sequential":
                    expected.append({**place, "coords": tile})
                else:
                    names = ("coords", "crop_coords", "crop_size", "stitch_coords")
                    columns = dict(zip(names, zip(*tile, strict=True), strict=True))
                    expected.append({**place, **columns, "total_tiles": total})
    found = constructor.construct_batch(range(constructor.n_patches)).specs
    assert list(found) == [{**spec, "patch_size": size} for spec in expected]
    assert [constructor.construct_patch(i)[2] for i in range(len(found))] == list(found)


def twins(strategy):
    """Mode II with equal images and equally seeded strategies for all structures."""
    images = make_images([(1, 60, 70)], 1, ["uint16"], 0)
    extractors = [make_extractor(images) for _ in range(3)]
    strategies = [make_strategy(strategy, e.shapes, (6, 7), seed=5) for e in extractors]
    return IndependentTargetsMsPatchConstr(strategies, extractors, 2, "reflect", None, seed=1)


def strangers(strategy):
    """Mode I with all patches uncorrelated."""
    return make_sample("multichannel", strategy, probability=1.0).constructor


@pytest.mark.parametrize("make", [twins, strangers])
@pytest.mark.parametrize("strategy", ["random", "stratified", "fixed_random"])
def test_channels_get_places_of_their_own(make, strategy):
    specs = make(strategy).construct_batch(range(20)).specs
    shared = 0
    for spec in specs:
        places = zip(spec["all_data_idx"], spec["all_sample_idx"], spec["all_coords"], strict=True)
        shared += 3 - len(set(places))
    assert shared <= 1  # of 60, by chance


def test_weights_fill_their_ranges(device):
    sample = make_sample("multichannel", ranges=RANGES, device=device)
    constructor, alphas = sample.constructor, []
    for epoch in range(30):
        batch = constructor.construct_batch(range(constructor.n_patches), epoch=epoch)
        target = on_host(batch.target)
        pixels = target.reshape(*target.shape[:2], -1).astype(np.float64)
        mixed = on_host(batch.input)[:, 0].reshape(len(pixels), -1)
        alphas += [
            np.linalg.lstsq(p.T, m, rcond=None)[0] for p, m in zip(pixels, mixed, strict=True)
        ]
    alphas = np.array(alphas)
    n = len(alphas)
    for c, channel in enumerate((2, 0, 1)):
        low, high = RANGES[channel]
        found = alphas[:, c]
        assert found.min() >= low - 1e-3
        assert found.max() <= high + 1e-3
        if low < high:
            shares = np.histogram((found - low) / (high - low), bins=10, range=(-0.001, 1.001))[0]
            assert np.abs(shares / n - 0.1).max() < 5 * np.sqrt(0.09 / n)
    assert np.abs(np.corrcoef(alphas[:, 0], alphas[:, 1])[0, 1]) < 5 / np.sqrt(n)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.75, 1.0])
def test_the_uncorrelated_share_is_the_probability(probability):
    constructor = make_sample("multichannel", probability=probability).constructor
    found = [
        "all_coords" in spec
        for epoch in range(40)
        for spec in constructor.construct_batch(range(constructor.n_patches), epoch=epoch).specs
    ]
    error = np.sqrt(probability * (1 - probability) / len(found))
    assert abs(np.mean(found) - probability) <= 4 * error


# ---------------------------------------------------------------------------------------------
# Single patches


@pytest.mark.parametrize(("kind", "strategy", "n_dims", "mode"), CASES)
def test_single_patches_hold_what_their_specs_say(device, kind, strategy, n_dims, mode):
    sample = make_sample(kind, strategy, n_dims, mode=mode, ranges=None, device=device)
    for index in some_indices(sample.constructor, 4):
        inputs, target, spec = sample.constructor.construct_patch(index)
        expected_input, expected_target = sample.expected(spec, sample.weights(0, index))
        assert_patch(sample, inputs, expected_input)
        if expected_target is None:
            assert target is None
        else:
            reference.assert_same(target, expected_target)


@pytest.mark.parametrize("strategy", ["fixed", "sequential", "tiled", "fixed_random", "whole"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "independent"])
def test_patches_and_batches_agree_where_nothing_is_drawn(kind, strategy, device):
    constructor = make_sample(
        kind, strategy, ranges=None, probability=0.0, device=device
    ).constructor
    indices = some_indices(constructor)
    batch = constructor.construct_batch(indices)
    for i, index in enumerate(indices):
        inputs, target, spec = constructor.construct_patch(index)
        reference.assert_filtered(inputs, on_host(batch.input[i]))
        assert spec == batch.specs[i]
        if target is None:
            assert batch.target is None
        else:
            reference.assert_same(target, batch.target[i])


def test_patches_and_batches_of_mode_ii_agree_where_nothing_is_drawn(device):
    def one_place(shapes, patch_size):
        return FixedPatching(fixed_specs(shapes, patch_size)[-1:])

    constructor = make_sample(
        "independent", patching=one_place, ranges=None, device=device
    ).constructor
    inputs, target, spec = constructor.construct_patch(0)
    batch = constructor.construct_batch([0])
    reference.assert_filtered(inputs, on_host(batch.input[0]))
    reference.assert_same(target, batch.target[0])
    assert spec == batch.specs[0]


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_principal_input_is_the_native_scale(kind, n_dims, device):
    constructor = make_sample(kind, n_dims=n_dims, device=device).constructor
    batch = constructor.construct_batch([0, 1, 2])
    inputs, _, _ = constructor.construct_patch(0)
    if kind == "basic":
        assert constructor.get_principal_input(inputs) is inputs
        assert constructor.get_principal_input(batch.input) is batch.input
    else:
        reference.assert_same(constructor.get_principal_input(inputs), inputs[:1])
        found = constructor.get_principal_input(batch.input)
        reference.assert_same(found, np.ascontiguousarray(on_host(batch.input)[:, :1]))

"""StratifiedPatching covers evenly, never touches what is excluded, and moves little.

The strategy draws a patch from uniform numbers. Midpoints of a fine grid of them, in place of
random ones, give the expected number of patches at every start exactly: on the line of starts
all steps are multiples of 1 / (pixels of a patch), and within a box all sizes divide the grid.
"""

from __future__ import annotations

import itertools
from math import ceil, lcm, prod
from typing import NamedTuple

import numpy as np
import pytest

from gpu_patch import (
    BasicPatchConstr,
    ImageStack,
    PatchExtractor,
    RandomPatching,
    StratifiedPatching,
)


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    """What these tests prove is the same everywhere; images stay where NumPy can look at them."""
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


class Scenario(NamedTuple):
    """Images, excluded cells and probabilities of cells, by (data_idx, sample_idx)."""

    shapes: list[tuple[int, ...]]
    patch_size: tuple[int, ...]
    excluded: dict
    probs: dict

    def make(self, seed=0):
        strategy = StratifiedPatching(self.shapes, self.patch_size, seed)
        for sample, cells in self.excluded.items():
            strategy.exclude_patches(*sample, cells)
        for sample, probs in self.probs.items():
            strategy.set_region_probs(*sample, probs)
        return strategy

    def samples(self):
        """((data_idx, sample_idx), spatial shape) of every sample."""
        for data_idx, (n_samples, _, *size) in enumerate(self.shapes):
            for sample_idx in range(n_samples):
                yield (data_idx, sample_idx), tuple(size)


def ring(n, m):
    """The outermost cells of a grid."""
    cells = itertools.product(range(n), range(m))
    return [(i, j) for i, j in cells if i in (0, n - 1) or j in (0, m - 1)]


def block(*ranges):
    return list(itertools.product(*ranges))


FIRST = (0, 0)
SCENARIOS = {
    "multiples of the patch": Scenario([(1, 1, 20, 24)], (4, 3), {}, {}),
    "no multiples": Scenario([(1, 1, 22, 25)], (4, 3), {}, {}),
    "ragged": Scenario([(2, 1, 17, 13), (1, 1, 9, 22)], (4, 3), {}, {}),
    "patch of one pixel": Scenario([(1, 1, 5, 6)], (1, 1), {FIRST: [(2, 3)]}, {}),
    "a cell": Scenario([(1, 1, 29, 26)], (4, 3), {FIRST: [(3, 4)]}, {}),
    "a corner": Scenario([(1, 1, 22, 25)], (4, 3), {FIRST: [(5, 8), (0, 0)]}, {}),
    "a hole": Scenario([(1, 1, 39, 32)], (4, 3), {FIRST: block((4, 5), (5, 6))}, {}),
    "a column": Scenario([(1, 1, 29, 32)], (4, 3), {FIRST: block(range(8), [5])}, {}),
    "stripes": Scenario([(1, 1, 22, 26)], (4, 3), {FIRST: block(range(6), (1, 3, 5, 7))}, {}),
    "the ring": Scenario([(1, 1, 30, 25)], (4, 3), {FIRST: ring(8, 9)}, {}),
    "one of two samples": Scenario(
        [(2, 1, 20, 18)], (4, 3), {(0, 1): block(range(5), range(6))}, {}
    ),
    "probabilities": Scenario(
        [(1, 1, 37, 28)], (4, 3), {}, {FIRST: dict.fromkeys(block(range(3, 7), range(3, 7)), 0.5)}
    ),
    "probability zero": Scenario(
        [(1, 1, 37, 28)], (4, 3), {FIRST: [(4, 4)]}, {FIRST: {(5, 5): 0, (5, 6): 0.5, (0, 0): 0}}
    ),
    "probability zero along the border": Scenario(
        [(1, 1, 32, 27)], (4, 3), {}, {FIRST: dict.fromkeys(ring(8, 9), 0) | {(3, 4): 0.5}}
    ),
    "probability zero along the border and a hole": Scenario(
        [(1, 1, 30, 25)], (4, 3), {FIRST: [(3, 4)]}, {FIRST: dict.fromkeys(ring(8, 9), 0)}
    ),
    "probability zero everywhere": Scenario(
        [(2, 1, 30, 25)], (4, 3), {}, {FIRST: dict.fromkeys(block(range(8), range(9)), 0)}
    ),
    "volume": Scenario([(1, 1, 9, 11, 8)], (2, 3, 2), {}, {}),
    "volume with a hole": Scenario([(1, 1, 10, 17, 12)], (2, 3, 2), {FIRST: [(4, 5, 5)]}, {}),
    "lower than the patch": Scenario([(1, 1, 3, 25)], (4, 3), {}, {}),
    "smaller than the patch": Scenario([(2, 1, 3, 2)], (4, 3), {}, {}),
    "as large as the patch": Scenario([(1, 1, 4, 3)], (4, 3), {}, {}),
    "volume of one plane": Scenario([(1, 1, 1, 14, 13)], (2, 3, 3), {FIRST: [(0, 2, 2)]}, {}),
}
SMALL = ("lower than the patch", "smaller than the patch", "as large as the patch")
NOTHING_AWAY = [SCENARIOS[name] for name in ("stripes", "volume of one plane", *SMALL)]
scenarios = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


def midpoints(n):
    return (np.arange(n) + 0.5) / n


def exact_starts_by_index(scenario):
    """For every patch index its sample, and how likely it starts at each pixel."""
    strategy, patch = scenario.make(), scenario.patch_size
    line = 4 * prod(patch)  # probabilities are multiples of 1/4
    grid = [midpoints(n) for n in (line, *(lcm(*range(1, p + 1)) for p in patch))]
    uniforms = np.stack([axis.ravel() for axis in np.meshgrid(*grid)])
    sizes = dict(scenario.samples())
    for index in range(strategy.n_patches):
        places = strategy.locate(np.full(uniforms.shape[1], index), uniforms)
        (data_idx,), (sample_idx,) = set(places.data_idx.tolist()), set(places.sample_idx.tolist())
        likely = np.zeros(sizes[data_idx, sample_idx])
        np.add.at(likely, tuple(places.coords.T), 1 / uniforms.shape[1])
        yield (data_idx, sample_idx), likely


def exact_starts(scenario):
    """Expected number of patches of an epoch at every start of every sample."""
    found = {sample: np.zeros(size) for sample, size in scenario.samples()}
    for sample, likely in exact_starts_by_index(scenario):
        found[sample] += likely
    return found


def per_pixel(values, scenario, sample, size):
    """Values of cells as values of pixels."""
    cells = np.full([-(-n // p) for n, p in zip(size, scenario.patch_size, strict=True)], 1.0)
    for cell, value in values.items():
        cells[cell] = value
    for axis, p in enumerate(scenario.patch_size):
        cells = cells.repeat(p, axis)
    return cells[tuple(map(slice, size))]


def ideal_starts(scenario, sample, size):
    """The definition: prob(cell of the start) / pixels of a patch, 0 if it touches a hole."""
    free = per_pixel(dict.fromkeys(scenario.excluded.get(sample, ()), 0), scenario, sample, size)
    rate = per_pixel(scenario.probs.get(sample, {}), scenario, sample, size)
    rate /= prod(scenario.patch_size)
    for start in np.ndindex(*size):
        ends = [s + p for s, p in zip(start, scenario.patch_size, strict=True)]
        inside = all(
            e <= max(n, p) for e, n, p in zip(ends, size, scenario.patch_size, strict=True)
        )
        if not inside or not free[tuple(map(slice, start, ends))].all():
            rate[start] = 0
    return rate


def coverage(starts, patch_size):
    """How often each pixel is covered by patches at these starts."""
    for axis, p in enumerate(patch_size):
        pad = [(0, 0)] * starts.ndim
        pad[axis] = (p - 1, 0)
        padded = np.pad(starts, pad)
        starts = np.lib.stride_tricks.sliding_window_view(padded, p, axis).sum(-1)
    return starts


def away(scenario, sample, size):
    """Pixels at least a patch away from borders and from cells where no patch may start."""
    zero = [cell for cell, prob in scenario.probs.get(sample, {}).items() if prob == 0]
    holes = [*scenario.excluded.get(sample, ()), *zero]
    free = per_pixel(dict.fromkeys(holes, 0), scenario, sample, size)
    found = np.zeros(size, bool)
    for pixel in np.ndindex(*size):
        first = [x - p for x, p in zip(pixel, scenario.patch_size, strict=True)]
        last = [x + p for x, p in zip(pixel, scenario.patch_size, strict=True)]
        inside = min(first) >= 0 and all(x < n for x, n in zip(last, size, strict=True))
        found[pixel] = (
            inside and free[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))].all()
        )
    return found


@scenarios
def test_expected_coverage_is_one_away_from_borders_and_holes(scenario):
    starts, n_tested = exact_starts(scenario), 0
    for sample, size in scenario.samples():
        ideal = coverage(ideal_starts(scenario, sample, size), scenario.patch_size)
        if not scenario.probs:
            assert np.abs(ideal[away(scenario, sample, size)] - 1).max(initial=0) < 1e-12
        which = away(scenario, sample, size)
        found = coverage(starts[sample], scenario.patch_size)
        assert np.abs(found - ideal)[which].max(initial=0) < 1e-6
        n_tested += which.sum()
    assert n_tested > 0 or scenario in NOTHING_AWAY


@scenarios
def test_what_is_missing_to_whole_patches_goes_to_borders_and_holes(scenario):
    starts = exact_starts(scenario)
    for sample, size in scenario.samples():
        ideal = ideal_starts(scenario, sample, size)
        extra = starts[sample] - ideal
        assert extra.min() > -1e-9
        assert not (extra > 1e-9)[ideal == 0].any()
        total = starts[sample].sum()
        assert total == pytest.approx(ceil(ideal.sum() - 1e-9), abs=1e-9)
        assert -1e-9 < extra.sum() < 1
        # a patch that starts there touches no pixel away from borders and holes
        touched = coverage(extra > 1e-9, scenario.patch_size) > 0
        assert not (touched & away(scenario, sample, size)).any()


@scenarios
def test_number_of_patches_is_the_mass_of_the_free_starts(scenario):
    strategy = scenario.make()
    counts = [
        (sample, ceil(ideal_starts(scenario, sample, size).sum() - 1e-9))
        for sample, size in scenario.samples()
    ]
    assert strategy.n_patches == sum(count for _, count in counts)
    assert type(strategy.n_patches) is int
    expected = [sample for sample, count in counts for _ in range(count)]
    specs = [strategy.get_patch_spec(i) for i in range(strategy.n_patches)]
    assert [(spec["data_idx"], spec["sample_idx"]) for spec in specs] == expected
    for data_idx in range(len(scenario.shapes)):
        indices = list(strategy.get_patch_indices(data_idx))
        assert indices == [i for i, sample in enumerate(expected) if sample[0] == data_idx]


def extractor(scenario):
    axes = "SCYX" if len(scenario.patch_size) == 2 else "SCZYX"
    arrays = [np.zeros(shape, np.uint8) for shape in scenario.shapes]
    return PatchExtractor([ImageStack.from_array(array, axes) for array in arrays])


def drawn_coverage(scenario, strategy, n_epochs):
    """Coverage of every sample in each of many epochs of batches, (E, ...)."""
    made = BasicPatchConstr(strategy, extractor(scenario), seed=17)
    found = {sample: np.zeros((n_epochs, *size)) for sample, size in scenario.samples()}
    for epoch in range(n_epochs):
        for spec in made.construct_batch(range(strategy.n_patches), epoch=epoch).specs:
            box = map(slice, spec["coords"], np.add(spec["coords"], spec["patch_size"]))
            found[spec["data_idx"], spec["sample_idx"]][(epoch, *box)] += 1
    return found


def mean_and_variance(scenario):
    """Exact mean and variance of the coverage; the patches of an epoch are independent."""
    found = {sample: np.zeros((2, *size)) for sample, size in scenario.samples()}
    for sample, likely in exact_starts_by_index(scenario):
        covered = coverage(likely, scenario.patch_size)
        found[sample] += covered, covered * (1 - covered)
    return found


def deviation(variance, n_epochs):
    """Of a mean of epochs; the grid of uniforms is only nearly exact at borders and holes."""
    return np.sqrt(np.maximum(variance, 0.02) / n_epochs)


@pytest.mark.parametrize(
    "name", ["no multiples", "ragged", "a hole", "probabilities", "volume with a hole"]
)
def test_batches_cover_as_expected(name):
    n_epochs, scenario = 300, SCENARIOS[name]
    drawn = drawn_coverage(scenario, scenario.make(), n_epochs)
    exact = mean_and_variance(scenario)
    for sample, size in scenario.samples():
        expected, variance = exact[sample]
        difference = np.abs(drawn[sample].mean(0) - expected)
        assert (difference / deviation(variance, n_epochs)).max() < 5
        found = drawn[sample].var(0).mean() / variance.mean()
        assert abs(found - 1) < 0.1
        if not scenario.probs:
            assert np.abs(expected - 1)[away(scenario, sample, size)].max(initial=0) < 1e-6


def test_single_patches_cover_as_expected():
    n_epochs, scenario = 300, SCENARIOS["a cell"]
    strategy = scenario.make(seed=4)
    found = np.zeros((n_epochs, *scenario.shapes[0][2:]))
    for epoch in range(n_epochs):
        for index in range(strategy.n_patches):
            y, x = strategy.get_patch_spec(index)["coords"]
            found[epoch, y : y + 4, x : x + 3] += 1
    expected, variance = mean_and_variance(scenario)[FIRST]
    difference = np.abs(found.mean(0) - expected)
    assert (difference / deviation(variance, n_epochs)).max() < 5


@pytest.mark.parametrize("name", [n for n, s in SCENARIOS.items() if s.excluded])
def test_excluded_cells_are_never_touched(name):
    scenario = SCENARIOS[name]
    strategy = scenario.make(seed=8)
    made = BasicPatchConstr(strategy, extractor(scenario), seed=3)
    specs = [strategy.get_patch_spec(i) for _ in range(40) for i in range(strategy.n_patches)]
    for epoch in range(40):
        specs += made.construct_batch(range(strategy.n_patches), epoch=epoch).specs
    patch = np.array(scenario.patch_size)
    for spec in specs:
        first = np.array(spec["coords"]) // patch
        last = (np.array(spec["coords"]) + patch - 1) // patch
        sample = spec["data_idx"], spec["sample_idx"]
        for cell in scenario.excluded.get(sample, ()):
            assert not all(a <= c <= b for a, c, b in zip(first, cell, last, strict=True))


def test_variance_is_far_below_that_of_random_places():
    n_epochs, scenario = 300, Scenario([(1, 1, 64, 64)], (8, 8), {}, {})
    inside = (slice(None), slice(16, 48), slice(16, 48))
    variances = []
    for kind in (StratifiedPatching, RandomPatching):
        strategy = kind(scenario.shapes, scenario.patch_size, 0)
        counts = drawn_coverage(scenario, strategy, n_epochs)[FIRST][inside]
        variances.append(counts.var(0).mean())
    stratified, random = variances
    assert stratified < 0.6 * random


def test_patches_of_an_index_are_neighbours_in_all_epochs():
    scenario = Scenario([(1, 1, 64, 72)], (8, 8), {}, {})
    strategy = scenario.make()
    made = BasicPatchConstr(strategy, extractor(scenario), seed=1)
    batches = [made.construct_batch(range(strategy.n_patches), epoch=e).specs for e in range(60)]
    coords = np.array([[spec["coords"] for spec in batch] for batch in batches])
    assert (np.ptp(coords, axis=0)[:, 0] < 8).mean() > 0.8  # a row of cells, ends of rows apart
    assert np.median(np.ptp(coords, axis=0)[:, 1]) < 24
    assert np.median(coords.std(axis=0)) < 4


def test_an_index_draws_anew_in_each_epoch():
    strategy = SCENARIOS["no multiples"].make(seed=2)
    assert len({strategy.get_patch_spec(7)["coords"] for _ in range(50)}) > 5


def test_probabilities_scale_the_coverage():
    shape, patch, probs = (1, 1, 40, 40), (4, 4), {}
    for factor in (1.0, 0.5, 0.25, 0.0):
        for cell in block(range(3, 7), range(3, 7)):
            probs[cell] = factor
        scenario = Scenario([shape], patch, {}, {FIRST: probs})
        found = coverage(exact_starts(scenario)[FIRST], patch)
        assert np.abs(found[16:27, 16:27] - factor).max() < 1e-9
        assert np.abs(found[4:12, 4:36] - 1).max() < 1e-9


def test_number_of_patches_follows_exclusions_and_probabilities():
    strategy = StratifiedPatching([(2, 1, 32, 32)], (8, 8), 0)
    everywhere = 25 * 25 / 64
    assert strategy.n_patches == 2 * ceil(everywhere)
    strategy.exclude_patches(0, 1, [(0, 0)])  # and the starts that reach into it: 64 less
    assert strategy.n_patches == ceil(everywhere) + ceil(everywhere - 1)
    strategy.exclude_patches(0, 1, [(0, 0)])
    assert strategy.n_patches == ceil(everywhere) + ceil(everywhere - 1)
    strategy.set_region_probs(0, 0, dict.fromkeys(block(range(4), range(4)), 0.5))
    assert strategy.n_patches == ceil(everywhere / 2) + ceil(everywhere - 1)
    strategy.set_region_probs(-1, -2, dict.fromkeys(block(range(4), range(4)), 0))
    assert strategy.n_patches == ceil(everywhere - 1)
    assert list(strategy.get_patch_indices(0)) == list(range(strategy.n_patches))
    assert strategy.get_patch_spec(0)["sample_idx"] == 1


def test_nothing_is_left_where_everything_is_excluded():
    strategy = StratifiedPatching([(1, 1, 20, 18), (2, 1, 9, 9)], (4, 6), 0)
    for (data_idx, sample_idx), cells in strategy.get_all_grid_coords().items():
        strategy.exclude_patches(data_idx, sample_idx, cells)
    assert strategy.n_patches == 0
    assert [list(strategy.get_patch_indices(i)) for i in range(2)] == [[], []]
    assert set(map(tuple, strategy.get_included_grid_coords().values())) == {()}
    with pytest.raises(IndexError, match="0 patches"):
        strategy.get_patch_spec(0)


def test_grid_coordinates():
    strategy = StratifiedPatching([(1, 2, 20, 13), (2, 2, 4, 4)], (8, 6), 0)
    cells = {
        (0, 0): [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)],
        (1, 0): [(0, 0)],
        (1, 1): [(0, 0)],
    }
    assert strategy.get_all_grid_coords() == cells
    assert strategy.get_included_grid_coords() == cells
    strategy.exclude_patches(0, 0, [(1, 1), (0, 2), (1, 1)])
    strategy.exclude_patches(-1, -1, [(0, 0)])
    assert strategy.get_all_grid_coords() == cells
    cells[0, 0] = [cell for cell in cells[0, 0] if cell not in ((1, 1), (0, 2))]
    cells[1, 1] = []
    assert strategy.get_included_grid_coords() == cells
    for included in strategy.get_included_grid_coords().values():
        assert all(type(n) is int for cell in included for n in cell)
    volume = StratifiedPatching([(1, 1, 5, 4, 4)], (4, 4, 4), 0)
    assert volume.get_all_grid_coords() == {(0, 0): [(0, 0, 0), (1, 0, 0)]}


def test_uniforms_just_below_one_stay_in_their_sample():
    # index + u may round up to the next index, which can be another sample's or none
    strategy = StratifiedPatching([(3, 1, 20, 18), (1, 1, 9, 9)], (4, 3), 0)
    expected = [strategy.get_patch_spec(i) for i in range(strategy.n_patches)]
    index = np.arange(strategy.n_patches)
    places = strategy.locate(index, np.full((3, len(index)), np.nextafter(1, 0)))
    for i, spec in enumerate(expected):
        found = places.spec(i)
        assert (found["data_idx"], found["sample_idx"]) == (spec["data_idx"], spec["sample_idx"])
        size = (20, 18) if spec["data_idx"] == 0 else (9, 9)
        assert all(0 <= x <= n - p for x, n, p in zip(found["coords"], size, (4, 3), strict=True))


def test_same_seed_same_places():
    scenario = SCENARIOS["a hole"]
    pair = [scenario.make(seed=6) for _ in range(2)]
    order = np.random.default_rng(0).integers(0, pair[0].n_patches, 50).tolist()
    first, second = ([made.get_patch_spec(i) for i in order] for made in pair)
    assert first == second
    assert first != [scenario.make(seed=7).get_patch_spec(i) for i in order]
    for spec in first:
        assert type(spec["data_idx"]) is type(spec["sample_idx"]) is int
        assert {type(n) for n in (*spec["coords"], *spec["patch_size"])} == {int}


def test_changes_between_epochs_are_seen_by_a_constructor():
    scenario = SCENARIOS["multiples of the patch"]
    strategy = scenario.make()
    made = BasicPatchConstr(strategy, extractor(scenario), seed=3)
    before = made.n_patches
    made.construct_batch(range(before), epoch=0)
    made.construct_batch(range(before), epoch=0)
    strategy.exclude_patches(0, 0, block(range(5), range(4)))
    assert made.n_patches == strategy.n_patches < before
    for epoch in (0, 0, 1):
        specs = made.construct_batch(range(made.n_patches), epoch=epoch).specs
        assert all(spec["coords"][1] >= 12 for spec in specs)
    with pytest.raises(IndexError):
        made.construct_batch([before - 1])

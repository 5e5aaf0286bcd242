"""StratifiedPatching covers evenly, never touches what is excluded, and moves little.

What is expected of starts and coverage is integrated from the strategy's tables; drawing compares
with it.
"""

from __future__ import annotations

import itertools
from math import ceil, prod
from typing import NamedTuple

import numpy as np
import pytest
from coverages import (
    allowed_starts,
    careamics_starts,
    cell_means,
    coverage_of,
    expected_starts,
    included_pixels,
    make,
    masks,
    pieces,
)

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
scenarios = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


def exact_starts_by_index(scenario):
    """For every patch index its sample, and how likely it starts at each pixel."""
    strategy, sizes = scenario.make(), dict(scenario.samples())
    indices = np.arange(strategy.n_patches)
    places = strategy.locate(indices, np.zeros((strategy.n_uniforms, len(indices))))
    samples = list(zip(places.data_idx.tolist(), places.sample_idx.tolist(), strict=True))
    for index, boxes in pieces(strategy):
        likely = np.zeros(sizes[samples[index]])
        for first, size, part in boxes:
            box = tuple(slice(f, f + n) for f, n in zip(first, size, strict=True))
            likely[box] += part / prod(size)
        yield samples[index], likely


def exact_starts(scenario):
    """Expected number of patches of an epoch at every start of every sample."""
    found = {sample: np.zeros(size) for sample, size in scenario.samples()}
    for sample, likely in exact_starts_by_index(scenario):
        found[sample] += likely
    return found


def included_area(scenario, sample, size):
    """The area of included cells in patches, each times its probability."""
    rate = per_pixel(scenario.probs.get(sample, {}), scenario, sample, size)
    rate *= included_pixels(size, scenario.patch_size, scenario.excluded.get(sample, ()))
    reach = (min(n, p) for n, p in zip(size, scenario.patch_size, strict=True))
    return rate.sum() / prod(reach)


def per_pixel(values, scenario, sample, size):
    """Values of cells as values of pixels."""
    cells = np.full([-(-n // p) for n, p in zip(size, scenario.patch_size, strict=True)], 1.0)
    for cell, value in values.items():
        cells[cell] = value
    for axis, p in enumerate(scenario.patch_size):
        cells = cells.repeat(p, axis)
    return cells[tuple(map(slice, size))]


def far_inside(scenario, sample, size):
    """Starts of patches whose pixels are all a patch away from borders and exclusions."""
    found = np.zeros(size, bool)
    excluded = scenario.excluded.get(sample, ())
    free = included_pixels(size, scenario.patch_size, excluded)
    for start in np.ndindex(*size):
        first = [s - p for s, p in zip(start, scenario.patch_size, strict=True)]
        stop = [s + 2 * p for s, p in zip(start, scenario.patch_size, strict=True)]
        inside = min(first) >= 0 and all(x <= n for x, n in zip(stop, size, strict=True))
        found[start] = inside and free[tuple(map(slice, first, stop))].all()
    return found


# ---- how many, and how evenly ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "patch_size", "n_excluded", "count"),
    [  # of careamics 0.3.5
        ((1024, 1024), (64, 64), 178, 78),
        ((1024, 1024), (64, 64), 74, 182),
        ((8, 512, 512), (8, 64, 64), 0, 64),
        ((64, 640), (64, 64), 0, 10),
        ((256, 256), (64, 64), 0, 16),
        ((256, 256), (64, 64), 15, 1),
        ((1000, 700), (64, 48), 0, 228),
    ],
)
def test_an_epoch_has_as_many_patches_as_there_are_included_cells(
    shape, patch_size, n_excluded, count
):
    grid = [-(-n // p) for n, p in zip(shape, patch_size, strict=True)]
    off = np.random.default_rng(4).permutation(list(np.ndindex(*grid)))[:n_excluded]
    strategy = make(shape, patch_size, map(tuple, off.tolist()))
    assert strategy.n_patches == count
    if not any(n % p for n, p in zip(shape, patch_size, strict=True)):
        assert strategy.n_patches == len(strategy.get_included_grid_coords()[0, 0])


@scenarios
def test_number_of_patches_is_the_included_area(scenario):
    strategy = scenario.make()
    counts = []
    for sample, size in scenario.samples():
        area = included_area(scenario, sample, size)
        starts = allowed_starts(size, scenario.patch_size, scenario.excluded.get(sample, ()))
        starts = starts & (per_pixel(scenario.probs.get(sample, {}), scenario, sample, size) > 0)
        counts.append((sample, ceil(area - 1e-9) if starts.any() else 0))
    assert strategy.n_patches == sum(count for _, count in counts)
    assert type(strategy.n_patches) is int
    expected = [sample for sample, count in counts for _ in range(count)]
    specs = [strategy.get_patch_spec(i) for i in range(strategy.n_patches)]
    assert [(spec["data_idx"], spec["sample_idx"]) for spec in specs] == expected
    for data_idx in range(len(scenario.shapes)):
        indices = list(strategy.get_patch_indices(data_idx))
        assert indices == [i for i, sample in enumerate(expected) if sample[0] == data_idx]


@pytest.mark.parametrize("n", [3, 7, 10, 29, 30, 70])
def test_sums_of_tenths_are_not_rounded_up(n):
    strategy = make((10, 10 * n), (10, 10), probs={(0, i): 0.1 for i in range(n)})
    assert strategy.n_patches == ceil(n / 10)


MASKS = list(masks())


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: mask[0])
def test_coverage_is_at_least_as_even_as_that_of_uniform_starts(mask):
    _, shape, patch_size, excluded = mask
    strategy = make(shape, patch_size, excluded)
    mine = coverage_of(expected_starts(strategy, shape), patch_size)
    theirs = coverage_of(careamics_starts(shape, patch_size, excluded), patch_size)
    included = included_pixels(shape, patch_size, excluded)
    assert np.abs(mine[~included]).max(initial=0) < 1e-9
    deviations = [np.sqrt(((covered[included] - 1) ** 2).mean()) for covered in (mine, theirs)]
    assert deviations[0] <= deviations[1] + 1e-9
    # no cell is given up for it
    short = np.minimum(cell_means(theirs, patch_size), 1) - cell_means(mine, patch_size)
    assert short[cell_means(included.astype(float), patch_size) > 0].max() < 0.05
    # once on average, but for what a whole number of patches has too much
    mean, area = mine[included].mean(), included.sum() / prod(patch_size)
    assert 1 - 1e-9 < mean < 1 + 1 / area
    # every start that is allowed is as likely as if all of the image were
    allowed = allowed_starts(shape, patch_size, excluded)
    starts = expected_starts(strategy, shape)
    assert starts[allowed].min() > (1 - 1e-9) / prod(patch_size)
    assert not starts[~allowed].any()


def test_coverage_is_much_more_even_where_cells_are_scattered():
    deviations = []
    for _, shape, patch_size, excluded in MASKS:
        included = included_pixels(shape, patch_size, excluded)
        for starts in (
            expected_starts(make(shape, patch_size, excluded), shape),
            careamics_starts(shape, patch_size, excluded),
        ):
            covered = coverage_of(starts, patch_size)[included]
            deviations.append(np.sqrt(((covered - 1) ** 2).mean()))
    mine, theirs = np.mean(np.reshape(deviations, (-1, 2)), axis=0)
    assert mine < 0.45 * theirs


@scenarios
def test_starts_far_inside_are_equally_likely(scenario):
    if scenario.probs:
        return
    starts = exact_starts(scenario)
    for sample, size in scenario.samples():
        where = far_inside(scenario, sample, size)
        if where.any():
            found = starts[sample][where] * prod(scenario.patch_size)
            assert np.ptp(found) < 1e-9
            assert 1 - 1e-9 < found[0] < 1.2  # more by what rounding up gives
    if scenario is SCENARIOS["multiples of the patch"]:
        assert found.size > 20


def test_a_cell_by_itself_is_a_patch_of_every_epoch():
    shape, patch_size = (65, 76), (10, 12)
    alone = [(0, 0), (2, 5), (5, 0)]
    block_of_cells = block((3, 4, 5, 6), (2, 3))
    excluded = [c for c in np.ndindex(7, 7) if c not in alone and c not in block_of_cells]
    strategy = make(shape, patch_size, excluded)
    assert strategy.n_patches == len(alone) + 7
    certain = [boxes[0][0] for _, boxes in pieces(strategy) if boxes[0][2] > 1 - 1e-12]
    starts = expected_starts(strategy, shape)
    for y, x in alone:
        assert certain.count([10 * y, 12 * x]) == 1
        assert starts[10 * y, 12 * x] == pytest.approx(1, abs=1e-9)
    for _ in range(20):
        specs = map(strategy.get_patch_spec, range(strategy.n_patches))
        coords = [spec["coords"] for spec in specs]
        for y, x in alone:
            assert coords.count((10 * y, 12 * x)) == 1


def test_a_small_cell_at_the_end_counts_though_no_patch_reaches_it():
    strategy = make((20, 26), (10, 10), [(0, 1), (1, 0), (1, 1)])
    assert strategy.get_included_grid_coords()[0, 0] == [(0, 0), (0, 2), (1, 2)]
    assert strategy.n_patches == ceil(1 + 0.6 + 0.6)
    assert {strategy.get_patch_spec(i)["coords"] for i in range(3)} == {(0, 0)}
    strategy.exclude_patches(0, 0, [(0, 0)])  # now nothing can be reached
    assert strategy.n_patches == 0


@pytest.mark.parametrize("end", [1, 5, 9])
def test_a_small_cell_at_the_end_is_covered_with_its_neighbour(end):
    shape, patch_size = (40, 60 + end), (10, 10)
    excluded = [(y, 3) for y in range(4)]
    covered = coverage_of(expected_starts(make(shape, patch_size, excluded), shape), patch_size)
    assert cell_means(covered, patch_size)[:, -1].min() > 0.5


@pytest.mark.parametrize("excluded", [[], [(1, 2)], [(0, 0), (2, 2), (3, 1)]])
@pytest.mark.parametrize("depth", [1, 5, 8])
def test_a_stack_of_one_patch_is_covered_as_its_planes(depth, excluded):
    plane = make((40, 47), (10, 12), excluded)
    stack = make((depth, 40, 47), (8, 10, 12), [(0, *cell) for cell in excluded])
    assert stack.n_patches == plane.n_patches
    starts = expected_starts(stack, (depth, 40, 47))
    np.testing.assert_allclose(starts[0], expected_starts(plane, (40, 47)), rtol=1e-9, atol=1e-12)
    assert not starts[1:].any()


# ---- draws -------------------------------------------------------------------------------------


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
        covered = coverage_of(likely, scenario.patch_size)
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
    for sample, _ in scenario.samples():
        expected, variance = exact[sample]
        difference = np.abs(drawn[sample].mean(0) - expected)
        assert (difference / deviation(variance, n_epochs)).max() < 5
        found = drawn[sample].var(0).mean() / variance.mean()
        assert abs(found - 1) < 0.1


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
    shape, patch, probs = (1, 1, 60, 60), (4, 4), {}
    inside = []
    for factor in (1.0, 0.5, 0.25, 0.0):
        for cell in block(range(4, 11), range(4, 11)):
            probs[cell] = factor
        scenario = Scenario([shape], patch, {}, {FIRST: probs})
        covered = coverage_of(exact_starts(scenario)[FIRST], patch)
        inside.append(covered[20:43, 20:43])
        assert np.ptp(inside[-1]) < 1e-9
        # rounding up to whole patches scales all
        assert 1 - 1e-9 <= covered[8:15, 48:52].mean() < 1.02
    np.testing.assert_allclose([part.mean() for part in inside], [1, 0.5, 0.25, 0], atol=0.01)


def test_probabilities_move_patches_to_where_they_are_likelier():
    shape, patch = (1, 1, 40, 44), (8, 8)
    probs = {FIRST: {(y, x): 0.2 for y in range(5) for x in range(3)}}
    starts = exact_starts(Scenario([shape], patch, {}, probs))[FIRST]
    even = exact_starts(Scenario([shape], patch, {}, {}))[FIRST]
    ratio = np.divide(starts, even, out=np.zeros_like(even), where=even > 0)
    rare, likely = ratio[:33, :24], ratio[:33, 24:37]
    np.testing.assert_allclose(rare / likely.mean(), 0.2, rtol=1e-9)
    np.testing.assert_allclose(likely, likely.mean(), rtol=1e-9)


def test_number_of_patches_follows_exclusions_and_probabilities():
    strategy = StratifiedPatching([(2, 1, 32, 32)], (8, 8), 0)
    assert strategy.n_patches == 32
    strategy.exclude_patches(0, 1, [(0, 0)])
    assert strategy.n_patches == 31
    strategy.exclude_patches(0, 1, [(0, 0)])
    assert strategy.n_patches == 31
    strategy.set_region_probs(0, 0, dict.fromkeys(block(range(4), range(4)), 0.5))
    assert strategy.n_patches == 8 + 15
    strategy.set_region_probs(-1, -2, dict.fromkeys(block(range(4), range(4)), 0))
    assert strategy.n_patches == 15
    assert list(strategy.get_patch_indices(0)) == list(range(strategy.n_patches))
    assert strategy.get_patch_spec(0)["sample_idx"] == 1
    strategy.set_region_probs(0, 0, {(0, 0): 0.1})
    assert strategy.n_patches == 16


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


@pytest.mark.parametrize("uniform", [0, np.nextafter(1, 0)])
def test_the_least_and_the_largest_uniforms_stay_in_their_sample(uniform):
    # index + u may round up to the next index, and sums of masses to just above it
    shapes = [(1, 1, 17, 13), (1, 1, 9, 9)] * 60
    strategy = StratifiedPatching(shapes, (4, 3), 0)
    rng = np.random.default_rng(1)
    for image in range(0, 120, 2):
        strategy.set_region_probs(image, 0, {(y, 1): rng.random() for y in range(4)})
    expected = [strategy.get_patch_spec(i) for i in range(strategy.n_patches)]
    index = np.arange(strategy.n_patches)
    places = strategy.locate(index, np.full((3, len(index)), uniform))
    for i, spec in enumerate(expected):
        found = places.spec(i)
        assert (found["data_idx"], found["sample_idx"]) == (spec["data_idx"], spec["sample_idx"])
        size = shapes[spec["data_idx"]][2:]
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

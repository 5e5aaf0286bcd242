"""What is background, by loops over pixels, and what becomes of strategies without it."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from math import ceil, fsum, isnan, log2, prod, sqrt
from types import SimpleNamespace

import numpy as np
import pytest
from coverages import careamics_starts, coverage_of, expected_starts, included_pixels
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from pixels import DTYPES
from worlds import PATCH, SHAPES, constructor, images, world

import gpu_patch
from gpu_patch import ImageStack, PatchExtractor, StratifiedPatching
from gpu_patch.feed import (
    FilterReport,
    MaskFilter,
    MaxFilter,
    MeanStdFilter,
    PatchFilter,
    ShannonFilter,
    exclude_background,
    filter_background,
    find_background,
    score_maps,
)
from gpu_patch.feed import (
    cells as cells_module,
)

# ---- what the filters are ----------------------------------------------------------------------


def near(cell, at):
    """The largest number within half a cell of a pixel; zeros are outside, and NaN is no number."""
    ranges = []
    for n, position in zip(cell.shape, at, strict=True):
        length = max(1, n // 2)
        ranges.append(range(position - length // 2, position - length // 2 + length))
    found = []
    for place in itertools.product(*ranges):
        inside = all(0 <= p < n for p, n in zip(place, cell.shape, strict=True))
        found.append(float(cell[place]) if inside else 0.0)
    return max((value for value in found if not isnan(value)), default=-np.inf)


def kept_by_max(cell, threshold, coverage):
    n_near = sum(near(cell, at) > threshold for at in np.ndindex(cell.shape))
    return n_near / cell.size >= coverage and any(v >= threshold for v in cell.ravel().tolist())


def mean_and_std(cell):
    values = [float(v) for v in cell.ravel().tolist()]
    mean = fsum(values) / len(values)
    return mean, sqrt(fsum((v - mean) ** 2 for v in values) / len(values))


def entropy(cell):
    values = ["nan" if isnan(v) else v for v in map(float, cell.ravel().tolist())]
    return -fsum(n / len(values) * log2(n / len(values)) for n in Counter(values).values())


def marked(cell):
    return sum(v != 0 for v in cell.ravel().tolist()) / cell.size


# N, then odd, even and single pixels
CELLS = [(5, 7, 6), (4, 1, 3), (3, 5, 1), (2, 1, 1), (3, 8, 9), (3, 4, 5, 3), (2, 2, 1, 7)]
cells_of_all_shapes = pytest.mark.parametrize("shape", CELLS, ids=str)


def some_cells(shape, dtype="float32", n_values=5, seed=0):
    """Cells with repeated values, about half of them 0, negative ones where the type has them."""
    rng = np.random.default_rng([seed, *shape])
    low = 0 if np.dtype(dtype).kind in "ub" else -2
    values = rng.integers(low, low + n_values, shape) * (rng.random(shape) < 0.5)
    return (values * 0.75 if np.dtype(dtype).kind == "f" else values).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@cells_of_all_shapes
def test_maximum(shape, dtype):
    cells = some_cells(shape, dtype)
    # values that occur, which decide by > and ≥, and others between them
    for threshold, coverage in itertools.product(
        [-0.75, -0.1, 0, 0.5, 0.75, 1, 1.5], [0, 0.2, 0.5, 1]
    ):
        found = MaxFilter(threshold, coverage).keeps(cells)
        assert found.dtype == bool
        assert found.tolist() == [kept_by_max(cell, threshold, coverage) for cell in cells]


@cells_of_all_shapes
def test_score_of_maximum_is_the_threshold_below_which_cells_are_kept(shape):
    cells = some_cells(shape, n_values=9)
    for coverage in (0, 0.3, 0.7, 1):
        score = MaxFilter(0, coverage).scores(cells)["threshold"]
        least = max(1, -(-coverage * prod(shape[1:]) // 1))
        for cell, found in zip(cells, score.tolist(), strict=True):
            ordered = sorted((near(cell, at) for at in np.ndindex(cell.shape)), reverse=True)
            assert found == ordered[int(least) - 1]


@pytest.mark.parametrize("dtype", DTYPES)
@cells_of_all_shapes
def test_mean_and_standard_deviation(shape, dtype):
    cells = some_cells(shape, dtype)
    expected = np.array([mean_and_std(cell) for cell in cells])
    scores = MeanStdFilter(0).scores(cells)
    np.testing.assert_allclose(scores["mean_threshold"], expected[:, 0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scores["std_threshold"], expected[:, 1], rtol=1e-12, atol=1e-12)
    for mean, std in itertools.product([-0.1, 0.123, 0.5], [None, 0, 0.456, 0.9]):
        kept = [m >= mean and (std is None or s >= std) for m, s in expected]
        assert MeanStdFilter(mean, std).keeps(cells).tolist() == kept


def test_standard_deviation_far_from_zero():
    cells = np.float32(60000) + np.arange(12, dtype=np.float32).reshape(1, 3, 4) % 2
    scores = MeanStdFilter(0).scores(cells)
    assert (scores["mean_threshold"][0], scores["std_threshold"][0]) == (60000.5, 0.5)


@pytest.mark.parametrize("dtype", DTYPES)
@cells_of_all_shapes
def test_entropy(shape, dtype):
    cells = some_cells(shape, dtype, n_values=40)
    expected = np.array([entropy(cell) for cell in cells])
    found = ShannonFilter(0).scores(cells)["threshold"]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    for threshold in (0, 0.4321, 1.234, 2.5):
        kept = ShannonFilter(threshold).keeps(cells).tolist()
        assert kept == [e >= threshold for e in expected]


@pytest.mark.parametrize("n", [1, 2, 7, 63, 1000])
def test_entropy_of_one_value_and_of_all_different_ones(n):
    cells = np.stack([np.full((1, n), 3.5, np.float32), np.arange(n, dtype=np.float32)[None]])
    found = ShannonFilter(0).scores(cells)["threshold"]
    assert found[0] == 0  # and not a little less, which a threshold of 0 would not keep
    assert found[1] == pytest.approx(log2(n), abs=1e-12)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
@cells_of_all_shapes
def test_mask(shape, dtype):
    cells = some_cells(shape, dtype)
    shares = [marked(cell) for cell in cells]
    assert MaskFilter().scores(cells)["coverage"].tolist() == shares
    for coverage in (0, *shares, 1):
        assert MaskFilter(coverage).keeps(cells).tolist() == [s >= coverage for s in shares]


@pytest.mark.parametrize(("shape", "coverage"), [((1, 4, 4), 1 / 4), ((1, 4, 2, 2), 1 / 8)])
def test_coverage_that_nobody_gives_is_that_of_one_patch_in_a_region(shape, coverage):
    cells = np.zeros(shape, np.float32)
    cells.reshape(-1)[: int(16 * coverage)] = 1
    assert MaskFilter().keeps(cells).tolist() == [True]
    for patch_filter in (MaskFilter, lambda c=None: MaxFilter(0.5, c)):
        assert patch_filter().keeps(cells) == patch_filter(coverage).keeps(cells)
    cells.reshape(-1)[0] = 0
    assert MaskFilter().keeps(cells).tolist() == [False]


def test_nan():
    nan = np.nan
    cells = np.array([[[nan, 5, 0, 0]] * 4, [[nan] * 4] * 4, [[nan, 5, 5, 5]] * 4], np.float32)
    # below every threshold
    for threshold, coverage in itertools.product([-1, 0, 4, 5], [0, 0.25, 0.5, 0.75, 1]):
        kept = MaxFilter(threshold, coverage).keeps(cells).tolist()
        assert kept == [kept_by_max(cell, threshold, coverage) for cell in cells]
    ordered = sorted((near(cells[1], at) for at in np.ndindex(4, 4)), reverse=True)
    assert MaxFilter(0, 1).scores(cells)["threshold"][1] == ordered[-1] == -np.inf
    # background
    assert MeanStdFilter(-100).keeps(cells).tolist() == [False] * 3
    # one value
    expected = [entropy(cell) for cell in cells]
    assert expected[:2] == [1.5, 0]
    np.testing.assert_allclose(ShannonFilter(0).scores(cells)["threshold"], expected, atol=1e-12)
    # marked
    assert MaskFilter().scores(cells)["coverage"].tolist() == [0.5, 1, 1]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: MaxFilter("high"), TypeError, "threshold must be a finite number, found 'high'"),
        (lambda: MaxFilter(np.nan), ValueError, "threshold must be a finite number, found nan"),
        (lambda: MaxFilter(-np.inf), ValueError, "threshold must be a finite number, found -inf"),
        (lambda: MaxFilter(1, 1.5), ValueError, r"coverage must be in \[0, 1\], found 1.5"),
        (lambda: MeanStdFilter(np.inf), ValueError, "mean_threshold must be a finite number"),
        (lambda: MeanStdFilter(0, -1), ValueError, "std_threshold must be .* at least 0, found -1"),
        (lambda: ShannonFilter(-0.1), ValueError, "threshold must be .* at least 0, found -0.1"),
        (lambda: MaskFilter(-0.1), ValueError, r"coverage must be in \[0, 1\], found -0.1"),
        (lambda: MaskFilter("half"), TypeError, r"coverage must be a number in \[0, 1\]"),
    ],
)
def test_parameters_are_checked(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("one", [MaxFilter(0), MeanStdFilter(0), ShannonFilter(0), MaskFilter()])
@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 4, 4, 4), (2, 0, 4)])
def test_cells_are_checked(one, shape):
    with pytest.raises(ValueError, match=r"cells must have the axes N\(Z\)YX .*, found the shape"):
        one.keeps(np.zeros(shape))
    assert one.keeps(np.zeros((0, 4, 4))).shape == (0,)


# ---- what of the images is looked at -----------------------------------------------------------


@pytest.fixture
def computing_device(backend, device, monkeypatch):
    """Where images are; the stand-in for CuPy computes by NumPy."""
    if backend.name == "emulated":
        let_the_fake_compute(sys.modules["cupy"], monkeypatch)
    return device


def let_the_fake_compute(cupy, monkeypatch):
    """Give the stand-in what filters use, from NumPy."""

    def on_device(function):
        def call(*arguments, **options):
            gpu.record("launch", "of CuPy")
            gpu.stream.run()
            plain = {name: pixels(value) for name, value in options.items()}
            made = function(*map(pixels, arguments), **plain)
            if isinstance(made, tuple):
                return tuple(map(fake_cupy._filled, made))
            return fake_cupy._filled(np.asarray(made))

        return call

    def pixels(value):
        if isinstance(value, list):
            return [pixels(item) for item in value]
        return value._pixels if isinstance(value, fake_cupy.FakeArray) else value

    functions = "sort where pad maximum log2 flatnonzero concatenate full ones bincount unique"
    for name in functions.split():
        monkeypatch.setattr(cupy, name, on_device(getattr(np, name)), raising=False)
    operators = "eq ne gt ge and or add sub rsub mul truediv floordiv mod pow neg"
    methods = [f"__{name}__" for name in operators.split()] + ["sum", "mean", "any", "swapaxes"]
    for name in methods:
        method = on_device(getattr(np.ndarray, name))
        monkeypatch.setattr(fake_cupy.FakeArray, name, method, raising=False)


# samples, channels and spatial shapes of ragged stacks: multiples of the patch, one less, one
# more, one patch, less than one
STACKS = {
    (4, 6): [(2, 2, 8, 18), (1, 2, 11, 25), (1, 2, 4, 35), (2, 2, 3, 5), (1, 2, 9, 6)],
    (2, 3, 4): [(1, 2, 5, 9, 8), (2, 2, 2, 4, 11), (1, 2, 1, 3, 3)],
}
FILTERS = [
    MaxFilter(60, 0.5),
    MeanStdFilter(18, 20),
    ShannonFilter(3.3),
    MaskFilter(0.45),
]
patch_sizes = pytest.mark.parametrize("patch_size", STACKS, ids=str)
filters = pytest.mark.parametrize("one", FILTERS, ids=lambda one: type(one).__name__)
windows = pytest.mark.parametrize("regions", [True, False], ids=["regions", "cells"])


def blotches(shape, dtype="uint8", seed=0):
    """Half of the pixels, cell by cell, are dark or 0."""
    rng = np.random.default_rng([seed, *shape])
    block = rng.random((shape[0], shape[1], *(-(-n // 3) for n in shape[2:])))
    for axis, n in enumerate(shape[2:], 2):
        block = block.repeat(3, axis).take(range(n), axis)
    return (block * (block > 0.4) * rng.integers(0, 110, shape)).astype(dtype)


def ragged(patch_size, device="cpu", dtypes=("uint8", "uint16", "float32"), seed=0):
    """Images of ragged stacks, their extractor and a strategy for them."""
    arrays = [
        blotches(shape, dtypes[i % len(dtypes)], seed) for i, shape in enumerate(STACKS[patch_size])
    ]
    axes = "SCYX" if len(patch_size) == 2 else "SCZYX"
    extractor = PatchExtractor([ImageStack.from_array(a, axes, device=device) for a in arrays])
    return SimpleNamespace(
        arrays=arrays,
        extractor=extractor,
        strategy=StratifiedPatching(extractor.shapes, patch_size, seed=3),
    )


def looked_at(array, sample, channel, cell, patch_size, regions):
    """The region that patches starting in a cell touch, zeros outside the image, or the cell."""
    size = [p * (2 if regions else 1) for p in patch_size]
    start = [c * p for c, p in zip(cell, patch_size, strict=True)]
    if not regions:
        size = [min(p, n - f) for p, n, f in zip(size, array.shape[2:], start, strict=True)]
    found = np.zeros(size, np.float64)
    for at in np.ndindex(*size):
        place = tuple(f + a for f, a in zip(start, at, strict=True))
        if all(p < n for p, n in zip(place, array.shape[2:], strict=True)):
            found[at] = array[sample, channel][place]
    return found


def decide(one, cell):
    """Whether a filter keeps a cell, by the loops above."""
    if isinstance(one, MaxFilter):
        return kept_by_max(cell, one.threshold, one.coverage)
    if isinstance(one, MeanStdFilter):
        mean, std = mean_and_std(cell)
        return mean >= one.mean_threshold and std >= one.std_threshold
    if isinstance(one, ShannonFilter):
        return entropy(cell) >= one.threshold
    return marked(cell) >= one.coverage


def all_samples(case):
    for data_idx, array in enumerate(case.arrays):
        for sample_idx in range(array.shape[0]):
            yield data_idx, sample_idx, array


def expected_grids(case, one, channel, regions):
    """For each sample what the filter decides in each cell that a patch can start in, or lie in."""
    patch_size, grids = case.strategy.patch_size, {}
    for data_idx, sample_idx, array in all_samples(case):
        if regions:
            counts = [
                len({start // p for start in range(max(n - p, 0) + 1)})
                for n, p in zip(array.shape[2:], patch_size, strict=True)
            ]
        else:
            counts = [-(-n // p) for n, p in zip(array.shape[2:], patch_size, strict=True)]
        grid = np.zeros(counts, bool)
        for cell in np.ndindex(*counts):
            pixels = looked_at(array, sample_idx, channel, cell, patch_size, regions)
            grid[cell] = decide(one, pixels)
        grids[data_idx, sample_idx] = grid
    return grids


def assert_same_grids(found, expected):
    assert list(found) == list(expected)
    for sample, grid in expected.items():
        assert found[sample].dtype == bool
        np.testing.assert_array_equal(found[sample], grid, err_msg=str(sample))


def assert_undecided(grids):
    """The case can tell: some are kept and some are not."""
    together = np.concatenate([grid.ravel() for grid in grids.values()])
    assert 0.1 < together.mean() < 0.9


@windows
@filters
@patch_sizes
def test_what_is_found(patch_size, one, regions, computing_device):
    case = ragged(patch_size, computing_device)
    for channel in (0, 1):
        found = find_background(
            case.strategy, case.extractor, one, ref_channel=channel, regions=regions
        )
        expected = expected_grids(case, one, channel, regions)
        assert_same_grids(found.kept, expected)
    assert_undecided(expected)


@pytest.mark.parametrize("dtype", DTYPES)
@filters
def test_images_of_every_data_type(dtype, one, computing_device):
    case = ragged((4, 6), computing_device, [dtype])
    found = find_background(case.strategy, case.extractor, one)
    assert_same_grids(found.kept, expected_grids(case, one, 0, regions=True))


@windows
@patch_sizes
def test_any_and_all_of_several_filters(patch_size, regions, computing_device):
    case = ragged(patch_size, computing_device)
    a, b = MaxFilter(60, 0.5), MaskFilter(0.45)

    def combined(*pairs, how):
        grids = [expected_grids(case, one, channel, regions) for one, channel in pairs]
        return {sample: how([grid[sample] for grid in grids]) for sample in grids[0]}

    def find(*arguments, **options):
        return find_background(
            case.strategy, case.extractor, *arguments, regions=regions, **options
        ).kept

    def any_of(grids):
        return np.any(grids, axis=0)

    def all_of(grids):
        return np.all(grids, axis=0)

    cases = [
        (find(a, ref_channel=[1, 0]), combined((a, 1), (a, 0), how=any_of)),
        (find(a, ref_channel=(0, 1), keep="all"), combined((a, 0), (a, 1), how=all_of)),
        (find([a, b], ref_channel=[1, 0]), combined((a, 1), (b, 0), how=any_of)),
        (find([a, b], ref_channel=[1, 0], keep="all"), combined((a, 1), (b, 0), how=all_of)),
        (find([a, b], keep="all"), combined((a, 0), (b, 0), how=all_of)),
        (find([a, b], ref_channel=1, keep="any"), combined((a, 1), (b, 1), how=any_of)),
    ]
    for found, expected in cases:
        assert_same_grids(found, expected)
    n_kept = [sum(int(grid.sum()) for grid in expected.values()) for _, expected in cases]
    assert n_kept[0] > n_kept[1]
    assert n_kept[2] > n_kept[3]


@windows
@filters
def test_chunks_change_nothing_and_are_bounded(one, regions, monkeypatch):
    case = ragged((4, 6))
    expected = find_background(case.strategy, case.extractor, one, regions=regions)
    sizes = []

    def gather(images, rows, size):
        sizes.append(prod(rows.shape) * prod(size) * 4)
        return gpu_patch.ops.gather(images, rows, size)

    monkeypatch.setattr(cells_module, "gather", gather)
    for n_bytes, n_channels in ((1000, 1), (5000, 2), (1, 1)):
        sizes.clear()
        monkeypatch.setattr(cells_module, "_HOST_BYTES", n_bytes)
        found = find_background(
            case.strategy, case.extractor, one, ref_channel=[0] * n_channels, regions=regions
        )
        assert_same_grids(found.kept, expected.kept)
        one_window = 4 * prod((4, 6)) * (4 if regions else 1)
        assert max(sizes) <= max(n_bytes, one_window)
        assert len(sizes) > 1


@pytest.mark.skipif(not available(), reason="needs a C++ compiler")
@filters
def test_only_the_decisions_leave_the_device(one, monkeypatch):
    with fake_cupy.installed() as cupy:
        let_the_fake_compute(cupy, monkeypatch)
        gpu.n_devices = 2
        case = ragged((4, 6), "cuda:1")  # not the current one
        gpu.log.clear()
        report = find_background(case.strategy, case.extractor, one, ref_channel=[0, 1])
        downloaded = sum(action.what for action in gpu.log if action.kind == "download")
        assert downloaded == report.n_cells
        assert {action.device for action in gpu.log} == {1}
    expected = find_background(case.strategy, ragged((4, 6)).extractor, one, ref_channel=[0, 1])
    assert_same_grids(report.kept, expected.kept)


# ---- maps and reports --------------------------------------------------------------------------


def painted(case, values, regions, largest):
    """Each pixel's largest value of the windows it lies in."""
    maps = [np.full((a.shape[0], *a.shape[2:]), largest) for a in case.arrays]
    for (data_idx, sample_idx), grid in values.items():
        for cell in np.ndindex(grid.shape):
            window = tuple(
                slice(c * p, (c + (2 if regions else 1)) * p)
                for c, p in zip(cell, case.strategy.patch_size, strict=True)
            )
            part = maps[data_idx][sample_idx][window]
            np.maximum(part, grid[cell], out=part)
    return maps


@windows
@patch_sizes
def test_maps_show_what_is_kept(patch_size, regions):
    case = ragged(patch_size)
    report = find_background(case.strategy, case.extractor, FILTERS[0], regions=regions)
    expected = painted(case, report.kept, regions, False)
    for found, wanted in zip(report.maps(), expected, strict=True):
        assert found.dtype == bool
        np.testing.assert_array_equal(found, wanted)


@filters
@patch_sizes
def test_maps_of_scores_show_what_any_threshold_would_keep(patch_size, one, computing_device):
    case = ragged(patch_size, computing_device)
    maps = score_maps(case.strategy, case.extractor, one, ref_channel=1)
    assert [list(of_stack) for of_stack in maps] == [list(maps[0])] * len(case.arrays)
    for name in maps[0]:
        grids = {}
        for sample, kept in find_background(case.strategy, case.extractor, one).kept.items():
            grids[sample] = np.zeros(kept.shape)
            for cell in np.ndindex(kept.shape):
                window = looked_at(
                    case.arrays[sample[0]], sample[1], 1, cell, patch_size, regions=True
                )
                grids[sample][cell] = one.scores(window[None])[name][0]
        expected = painted(case, grids, True, -np.inf)
        for found, wanted in zip(maps, expected, strict=True):
            np.testing.assert_allclose(found[name], wanted, rtol=1e-6, atol=1e-12)


def test_a_report_can_be_read():
    case = ragged((4, 6))
    report = find_background(case.strategy, case.extractor, FILTERS[0], regions=False)
    counts = [
        (sum(int(g.sum()) for (d, _), g in report.kept.items() if d == i), n)
        for i, n in enumerate([12, 15, 6, 2, 3])
    ]
    assert report.n_cells == 38
    assert report.n_kept == sum(n_kept for n_kept, _ in counts)
    assert repr(report).splitlines() == [
        f"FilterReport: {report.n_kept} of 38 cells kept",
        *(f"  image stack {i}: {n_kept} of {n}" for i, (n_kept, n) in enumerate(counts)),
    ]


def test_a_report_of_many_images_is_cut():
    kept = {(i, 0): np.array([[True, False]]) for i in range(25)}
    report = FilterReport(kept, [(1, 1, 4, 12)] * 25, (4, 6), True)
    lines = repr(report).splitlines()
    assert lines[0] == "FilterReport: 25 of 50 regions kept"
    assert lines[-2:] == ["  image stack 9: 1 of 2", "  … and 15 more image stacks"]


# ---- what becomes of the strategy --------------------------------------------------------------


def patches_of(strategy, n_epochs=20):
    uniforms = np.random.default_rng(0)
    index = np.tile(np.arange(strategy.n_patches), n_epochs)
    places = strategy.locate(index, uniforms.random((strategy.n_uniforms, len(index))))
    return zip(places.data_idx, places.sample_idx, places.coords.tolist(), strict=True)


def is_within(maps, data_idx, sample_idx, coords, patch_size):
    """Whether all of a patch, as far as there is an image, is marked."""
    window = tuple(slice(c, c + p) for c, p in zip(coords, patch_size, strict=True))
    return bool(maps[data_idx][sample_idx][window].all())


@patch_sizes
def test_no_patch_touches_a_cell_that_is_background(patch_size):
    case = ragged(patch_size)
    before = case.strategy.n_patches
    report = exclude_background(case.strategy, case.extractor, MaskFilter(0.3))
    assert_undecided(report.kept)
    assert case.strategy.n_patches < before
    maps = report.maps()
    assert all(is_within(maps, *place, patch_size) for place in patches_of(case.strategy))
    included = case.strategy.get_included_grid_coords()
    assert included == {
        sample: [tuple(cell) for cell in np.argwhere(grid).tolist()]
        for sample, grid in report.kept.items()
    }


@pytest.mark.parametrize("prob", [None, 0.2, 0, 1])
@patch_sizes
def test_patches_rarely_start_where_their_region_is_background(patch_size, prob):
    case, expected = ragged(patch_size), ragged(patch_size)
    before = case.strategy.n_patches
    options = {} if prob is None else {"filtered_patch_prob": prob}
    report = filter_background(case.strategy, case.extractor, MaskFilter(0.3), **options)
    for sample, grid in expected_grids(case, MaskFilter(0.3), 0, regions=True).items():
        probs = dict.fromkeys(zip(*np.where(~grid), strict=True), 0.1 if prob is None else prob)
        expected.strategy.set_region_probs(*sample, probs)
    assert case.strategy.n_patches == expected.strategy.n_patches
    if prob in (0, 1):
        assert (case.strategy.n_patches < before) == (prob == 0)
    indices = range(case.strategy.n_patches)
    assert [*map(case.strategy.get_patch_spec, indices)] == [
        *map(expected.strategy.get_patch_spec, indices)
    ]
    if prob == 0:
        assert all(
            report.kept[data_idx, sample_idx][tuple(np.array(coords) // patch_size)]
            for data_idx, sample_idx, coords in patches_of(case.strategy)
        )


def discs(shape, radius, n):
    """A mask of discs at random places, as nuclei or colonies."""
    rng = np.random.default_rng([radius, n])
    mask = np.zeros(shape, np.uint8)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for cy, cx in rng.random((n, 2)) * shape:
        mask[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = 1
    return mask


@pytest.mark.parametrize("shape", [(512, 640), (500, 650)])
@pytest.mark.parametrize(("radius", "n"), [(20, 12), (20, 60), (70, 9)])
def test_an_epoch_without_background_goes_over_the_signal_once(radius, n, shape):
    image = ImageStack.from_array(discs(shape, radius, n), "YX", device="cpu")
    extractor, patch_size = PatchExtractor([image]), (32, 32)
    strategy = StratifiedPatching(extractor.shapes, patch_size, seed=0)
    report = exclude_background(strategy, extractor, MaskFilter(0.05), progress=False)
    kept = report.kept[0, 0]
    off = [tuple(cell) for cell in np.argwhere(~kept).tolist()]
    assert 0.05 < kept.mean() < 0.95
    included = included_pixels(shape, patch_size, off)
    assert strategy.n_patches == -(-included.sum() // 32**2)
    theirs = careamics_starts(shape, patch_size, off)
    if shape == (512, 640):  # elsewhere they count an excluded remainder as a whole cell
        assert strategy.n_patches == round(theirs.sum()) == report.n_kept
    errors = [
        ((coverage_of(starts, patch_size)[included] - 1) ** 2).mean() ** 0.5
        for starts in (expected_starts(strategy, shape), theirs)
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("prob", [0.1, 0.5])
def test_rare_background_counts_by_its_probability(prob):
    shape, patch_size = (512, 640), (32, 32)
    image = ImageStack.from_array(discs(shape, 60, 9), "YX", device="cpu")
    extractor = PatchExtractor([image])
    strategy = StratifiedPatching(extractor.shapes, patch_size, seed=0)
    report = filter_background(
        strategy, extractor, MaskFilter(0.05), filtered_patch_prob=prob, progress=False
    )
    rare = {tuple(cell): prob for cell in np.argwhere(~report.kept[0, 0]).tolist()}
    assert 20 < len(rare) < 300
    theirs = careamics_starts(shape, patch_size, probs=rare)
    assert strategy.n_patches == round(theirs.sum())
    assert strategy.n_patches == ceil(320 - (1 - prob) * len(rare) - 1e-9)


def masks(shapes, seed):
    """Masks for the images of `worlds`, with whole cells off."""
    arrays = [blotches((s, 1, *size), "uint8", seed) for s, *size in shapes]
    return PatchExtractor([ImageStack.from_array(a, "SCYX", device="cpu") for a in arrays])


@pytest.mark.parametrize("name", ["basic", "multichannel", "paired", "pred"])
@pytest.mark.parametrize("run", [exclude_background, filter_background])
def test_every_constructor_keeps_to_signal(name, run):
    w = world()
    strategy = StratifiedPatching(w.one.shapes, PATCH, seed=1)
    made = constructor(w, name, patching_strategy=strategy)
    before = made.n_patches
    zero = {"filtered_patch_prob": 0} if run is filter_background else {}
    report = run(strategy, masks(SHAPES, 0), MaskFilter(0.4), **zero)
    assert_undecided(report.kept)
    assert made.n_patches < before
    maps, drawn = report.maps(), []
    for epoch in range(5):
        drawn += made.construct_batch(range(made.n_patches), epoch=epoch).specs
    drawn += [made.construct_patch(i)[2] for i in range(made.n_patches)]
    n_channels = 2 if any("all_coords" in spec for spec in drawn) else 1
    assert n_channels == (2 if name == "multichannel" else 1)
    for spec in drawn:
        plain = [[spec["data_idx"]], [spec["sample_idx"]], [spec["coords"]]]
        places = [spec.get(f"all_{key}") for key in ("data_idx", "sample_idx", "coords")]
        for place in zip(*(plain if places[0] is None else places), strict=True):
            assert is_within(maps, *place, PATCH)


def test_each_source_of_independent_targets_keeps_to_its_own_signal():
    w = world()
    shapes = [SHAPES, [(3, 16, 14)]]
    strategies = [StratifiedPatching(e.shapes, PATCH, seed=1) for e in (w.one, w.actin)]
    made = constructor(w, "independent", patching_strategies=strategies)
    maps = [
        exclude_background(strategy, masks(shape, 1 + i), MaskFilter(0.4)).maps()
        for i, (strategy, shape) in enumerate(zip(strategies, shapes, strict=True))
    ]
    for epoch in range(20):
        for spec in made.construct_batch(range(made.n_patches), epoch=epoch).specs:
            places = zip(
                spec["all_data_idx"], spec["all_sample_idx"], spec["all_coords"], strict=True
            )
            assert all(is_within(m, *p, PATCH) for m, p in zip(maps, places, strict=True))
    assert not all(part.all() for source in maps for part in source)


def test_a_second_filter_adds_to_the_first():
    case, one = ragged((4, 6)), ragged((4, 6))
    first = exclude_background(case.strategy, case.extractor, MaskFilter(0.2))
    second = exclude_background(case.strategy, case.extractor, MaskFilter(0.2), ref_channel=1)
    both = exclude_background(
        one.strategy, one.extractor, MaskFilter(0.2), ref_channel=[0, 1], keep="all"
    )
    assert both.n_kept < min(first.n_kept, second.n_kept)
    assert case.strategy.get_included_grid_coords() == one.strategy.get_included_grid_coords()


# ---- what goes wrong ---------------------------------------------------------------------------


def snapshot(strategy):
    return (
        strategy.n_patches,
        strategy.get_included_grid_coords(),
        strategy.rng.bit_generator.state,
        list(patches_of(strategy, 2)),
    )


@pytest.mark.parametrize("run", [exclude_background, filter_background])
def test_nothing_changes_where_nothing_would_be_left(run):
    case = ragged((4, 6))
    before = snapshot(case.strategy)
    with pytest.raises(ValueError, match=r"no signal in any of the .* cells.*lower its thresholds"):
        run(case.strategy, case.extractor, MaxFilter(1e6))
    assert snapshot(case.strategy) == before


@pytest.mark.parametrize("run", [exclude_background, filter_background])
def test_nothing_changes_where_no_patch_would_fit(run):
    array = np.zeros((8, 12))
    array[:, :6] = 1
    extractor = PatchExtractor([ImageStack.from_array(array, "YX", device="cpu")])
    strategy = StratifiedPatching(extractor.shapes, (4, 6))
    strategy.exclude_patches(0, 0, [(0, 0), (1, 0)])
    before = snapshot(strategy)
    options = {"filtered_patch_prob": 0} if run is filter_background else {}
    with pytest.raises(ValueError, match=r"keeps \d of 4 cells, but no patch fits"):
        run(strategy, extractor, MaskFilter(0.3), **options)
    assert snapshot(strategy) == before


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"patching_strategy": None}, TypeError, "must be a StratifiedPatching, .* found None"),
        ({"extractor": "images"}, TypeError, "extractor must be a PatchExtractor, found 'images'"),
        ({"extractor": images(1, np.uint8)}, ValueError, "patching_strategy was made for"),
        ({"patch_filter": 3}, TypeError, "patch_filter must be a sequence of a PatchFilter"),
        ({"patch_filter": [3]}, TypeError, r"patch_filter\[0\] must be a PatchFilter, found 3"),
        ({"patch_filter": MaxFilter}, TypeError, "patch_filter must be"),
        ({"patch_filter": []}, ValueError, "at least one filter and channel"),
        ({"ref_channel": []}, ValueError, "at least one filter and channel"),
        ({"ref_channel": 2}, ValueError, "ref_channel must be .* at most 1, found 2"),
        ({"ref_channel": [0, -1]}, ValueError, "ref_channel must be .* at least 0 .*, found -1"),
        ({"ref_channel": "a"}, TypeError, "ref_channel must be a whole number"),
        (
            {"patch_filter": [MaskFilter()] * 3, "ref_channel": [0, 1]},
            ValueError,
            "one for each of the 2 channels of ref_channel, found 3",
        ),
        ({"keep": "most"}, ValueError, "keep must be one of 'any', 'all', found 'most'"),
        ({"filtered_patch_prob": 2}, ValueError, "filtered_patch_prob must be in"),
    ],
)
def test_arguments_are_checked(changes, error, words):
    case = ragged((4, 6))
    before = snapshot(case.strategy)
    arguments = {
        "patching_strategy": case.strategy,
        "extractor": case.extractor,
        "patch_filter": MaskFilter(),
    }
    with pytest.raises(error, match=words):
        filter_background(**{**arguments, **changes})
    assert snapshot(case.strategy) == before


# ---- filters of one's own, and progress --------------------------------------------------------


class Brightest(PatchFilter):
    """Compares one score with the parameter of its name, as the base class does."""

    level = 80

    def scores(self, cells):
        return {"level": cells.max(axis=(1, 2))}


def test_a_filter_of_ones_own():
    case = ragged((4, 6))
    found = find_background(case.strategy, case.extractor, Brightest(), regions=False)
    for (data_idx, sample_idx), grid in found.kept.items():
        for cell in np.ndindex(grid.shape):
            window = looked_at(case.arrays[data_idx], sample_idx, 0, cell, (4, 6), regions=False)
            assert grid[cell] == (window.max() >= 80)
    assert_undecided(found.kept)


@pytest.mark.parametrize("progress", [True, False])
def test_progress(progress, monkeypatch):
    shown = []

    class Bar:
        def __init__(self, total, **options):
            shown.append([total])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, n):
            shown[0].append(n)

    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(cells_module, "_HOST_BYTES", 2000)
    case = ragged((4, 6))
    report = exclude_background(case.strategy, case.extractor, MaskFilter(0.3), progress=progress)
    if not progress:
        assert not shown
        return
    ((total, *steps),) = shown
    assert total == report.n_cells == sum(steps)
    assert len(steps) > 5


def test_progress_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    case = ragged((4, 6))
    assert find_background(case.strategy, case.extractor, MaskFilter(0.3)).n_cells

"""What is background to each filter, by loops over pixels, and to filters of one's own."""

from __future__ import annotations

import itertools
from math import log2, prod

import numpy as np
import pytest
from filtering import (
    assert_undecided,
    entropy,
    kept_by_max,
    looked_at,
    marked,
    mean_and_std,
    near,
    ragged,
)
from pixels import DTYPES

from gpu_patch.feed import (
    MaskFilter,
    MaxFilter,
    MeanStdFilter,
    PatchFilter,
    ShannonFilter,
    find_background,
)

# ---- what the filters are ----------------------------------------------------------------------


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


# ---- filters of one's own ----------------------------------------------------------------------


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

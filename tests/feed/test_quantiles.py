"""Quantiles of values that come a few at a time, against NumPy's of all of them at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gpu_patch.feed.careamics_quantiles import N_BINS, Histogram, rebinned
from gpu_patch.feed.quantiles import Selection

LEVELS = (0, 0.001, 0.01, 1 / 3, 0.5, 0.9, 0.99, 1)


def selected(values, pieces, levels=LEVELS, whole=False):
    """Quantiles of an array, taken in so many pieces."""
    selection = Selection(np, levels)

    def take():
        for piece in np.array_split(values.astype(np.float32), pieces):
            selection.update(piece, whole=whole)

    take()
    if selection.needs_second_pass():
        assert not whole
        take()
    return selection.result()


def exact(values, levels=LEVELS):
    return np.quantile(values.astype(np.float64), levels)


RNG = np.random.default_rng(3)
FLOATS = {
    "normal": RNG.normal(0, 1, 1001),
    "one hot": np.append(RNG.normal(100, 10, 800), 1e8),
    "one value": np.full(17, -0.3),
    "two values": np.array([2.5, -7.25]),
    "a single one": np.array([3e-39]),
    "zeros of both signs": np.array([0.0, -0.0] * 20 + [1, -1]),
    "equal but for the last bits": 1 + np.arange(300) * 2.0**-23,
    "below zero, equal but for the last bits": -(1 + np.arange(300) * 2.0**-23),
    "of all magnitudes": RNG.choice([-1, 1], 5000) * 10 ** RNG.uniform(-44, 38, 5000),
    "ties": RNG.integers(-3, 3, 777) / 8,
}


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_exact(name, pieces):
    values = FLOATS[name].astype(np.float32)
    found = selected(values, pieces)
    np.testing.assert_array_equal(found, exact(values))
    assert not np.signbit([v for v in found if v == 0]).any()


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16"])
def test_whole_numbers_take_one_pass(dtype, pieces):
    info = None if dtype == "bool" else np.iinfo(dtype)
    low, high = (0, 1) if info is None else (info.min, info.max)
    values = np.append(RNG.integers(low, high, 3001, endpoint=True), [low, high, low])
    np.testing.assert_array_equal(selected(values, pieces, whole=True), exact(values))


@pytest.mark.parametrize("first", [True, False])
def test_whole_numbers_among_floats(first):
    """A second pass counts the floats alone; whole numbers fall between them in any bin."""
    whole, floats = RNG.integers(-300, 300, 500), RNG.normal(0, 200, 499).astype(np.float32)
    selection = Selection(np, LEVELS)
    for is_first_pass in (True, False):
        for part in (first, not first):
            values = whole.astype(np.float32) if part else floats
            selection.update(values, whole=part)
        assert not is_first_pass or selection.needs_second_pass()
    expected = exact(np.concatenate([whole, floats.astype(np.float64)]))
    np.testing.assert_array_equal(selection.result(), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_have_no_quantiles(value):
    selection = Selection(np, [0.1, 0.9])
    selection.update(np.array([1, 2, value, 3], np.float32), whole=False)
    assert not selection.needs_second_pass()
    assert np.isnan(selection.result()).all()


# ---- as careamics estimates them ---------------------------------------------------------------


def growing(n_patches, n=400):
    """Patches of which each goes beyond those before, at one end or both."""
    rng = np.random.default_rng(1)
    grown = [rng.normal(3 * (-1) ** i * i, 1 + i**2, n) for i in range(n_patches)]
    return np.array(grown, np.float32)


def histogram_of(values, sizes):
    """The patches `values` (n, N), so many at a time."""
    histogram = Histogram(np)
    for start, stop in pairwise(np.cumsum([0, *sizes]).tolist()):
        some = values[start:stop]
        histogram.update(some, some.min(axis=1).astype(float), some.max(axis=1).astype(float))
    return histogram


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 1, 6]])
def test_histograms_follow_the_patches_one_by_one(sizes):
    """As slow as it can be: NumPy's histogram of each patch, and counts moved bin by bin."""
    values = growing(12)
    low, high = np.inf, -np.inf
    edges = counts = None
    for patch in values:
        low, high = min(low, float(patch.min())), max(high, float(patch.max()))
        if edges is None or low < edges[0] or high > edges[-1]:
            first, last = (
                (low, high) if edges is None else (min(low, edges[0]), max(high, edges[-1]))
            )
            margin = 0.1 * (last - first)
            wider = np.linspace(first - margin, last + margin, 65537)
            counts = np.zeros(65536, int) if edges is None else moved(counts, edges, wider)
            edges = wider
        counts = counts + np.histogram(patch, edges)[0]
    assert counts.sum() == values.size
    histogram = histogram_of(values, sizes)
    for level in (0.001, 0.01, 0.25, 0.5, 0.9, 0.99):
        wanted = level * values.size
        at = int(np.argmax(np.cumsum(counts) >= wanted))
        share = (wanted - counts[:at].sum()) / counts[at]
        expected = edges[at] + share * (edges[at + 1] - edges[at])
        assert histogram.quantile(level) == pytest.approx(expected, rel=1e-12)
    assert histogram.quantile(0) == values.min()
    assert histogram.quantile(1) == values.max()


def moved(counts, edges, wider):
    """Counts in other bins, each bin's count divided by length into whole numbers."""
    result = np.zeros(len(wider) - 1, int)
    for i in np.flatnonzero(counts):
        start, end = edges[i], edges[i + 1]
        touched = range(
            max(0, np.searchsorted(wider, start, "right") - 2),
            min(len(wider) - 1, np.searchsorted(wider, end) + 1),
        )
        exact = {
            j: counts[i] * max(0, min(end, wider[j + 1]) - max(start, wider[j])) / (end - start)
            for j in touched
        }
        whole = {j: int(part) for j, part in exact.items()}
        # what is left over goes where most was cut off
        for j in sorted(exact, key=lambda j: whole[j] - exact[j])[
            : counts[i] - sum(whole.values())
        ]:
            whole[j] += 1
        for j, n in whole.items():
            result[j] += n
    return result


@pytest.mark.parametrize("high", [1, 7, 9, 1000])
def test_values_on_edges_are_in_the_bins_of_numpy(high):
    edges = np.linspace(-0.1 * high, 1.1 * high, N_BINS + 1)
    values = edges.astype(np.float32)
    values = values[np.abs(values - edges) < 1e-12 * high]  # those that float32 can hold
    values = np.append(values[(values >= 0) & (values <= high)], np.float32([0, high]))
    assert len(values) > 100
    histogram = histogram_of(values[None], [1])
    histogram.quantile(0.5)  # brings the counts together
    np.testing.assert_array_equal(histogram._counts, np.histogram(values, edges)[0])


def test_counts_move_to_wider_bins():
    rng = np.random.default_rng(0)
    edges, wider = np.linspace(0, 10, 101), np.linspace(-3, 14.5, 101)
    counts = rng.integers(0, 50, 100) * (rng.random(100) < 0.7)
    found = rebinned(counts, edges, wider)
    assert found.sum() == counts.sum()
    np.testing.assert_array_equal(found, moved(counts, edges, wider))

"""What filters decide by loops over pixels, and ragged images to look for background in."""

from __future__ import annotations

import itertools
from collections import Counter
from math import fsum, isnan, log2, sqrt
from types import SimpleNamespace

import numpy as np
import pytest

from gpu_patch import ImageStack, PatchExtractor, StratifiedPatching
from gpu_patch.feed import MaxFilter, MeanStdFilter, ShannonFilter


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


# samples, channels and spatial shapes of ragged stacks: multiples of the patch, one less, one
# more, one patch, less than one
STACKS = {
    (4, 6): [(2, 2, 8, 18), (1, 2, 11, 25), (1, 2, 4, 35), (2, 2, 3, 5), (1, 2, 9, 6)],
    (2, 3, 4): [(1, 2, 5, 9, 8), (2, 2, 2, 4, 11), (1, 2, 1, 3, 3)],
}
patch_sizes = pytest.mark.parametrize("patch_size", STACKS, ids=str)


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


def assert_undecided(grids):
    """The case can tell: some are kept and some are not."""
    together = np.concatenate([grid.ravel() for grid in grids.values()])
    assert 0.1 < together.mean() < 0.9

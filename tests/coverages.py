"""Where patches of StratifiedPatching start, and what they cover: exactly, of ours and careamics'.

Both are expected numbers of patches of an epoch by the pixel that they start on, of one sample.
Coverage follows from them by integration, without drawing.
"""

from __future__ import annotations

from math import ceil, prod

import numpy as np

from gpu_patch import StratifiedPatching


def make(shape, patch_size, excluded=(), probs=()):
    """A strategy for one sample, without what is excluded."""
    strategy = StratifiedPatching([(1, 1, *shape)], patch_size, seed=0)
    strategy.exclude_patches(0, 0, list(excluded))
    strategy.set_region_probs(0, 0, dict(probs))
    return strategy


def pieces(strategy):
    """For every patch index the boxes that it is drawn from: first start, size, probability.

    These are the strategy's own tables, and what `test_batches_cover_as_expected` compares draws
    with.
    """
    strategy.locate(np.zeros(0, int), np.zeros((strategy.n_uniforms, 0)))  # makes the tables
    ends = strategy._line
    begins = np.concatenate([[0], ends[:-1]])
    for index in range(strategy.n_patches):
        likely = np.minimum(ends, index + 1) - np.maximum(begins, index)
        boxes = np.flatnonzero(likely > 0)
        yield (
            index,
            [
                (strategy._first[box].tolist(), strategy._size[box].tolist(), likely[box])
                for box in boxes
            ],
        )


def expected_starts(strategy, shape):
    """Expected number of patches of an epoch that start on each pixel of the only sample."""
    found = np.zeros(shape)
    for _, boxes in pieces(strategy):
        for first, size, likely in boxes:
            box = tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))
            found[box] += likely / prod(size)
    return found


def allowed_starts(shape, patch_size, excluded=()):
    """Where a patch may start: it is inside the image and touches no excluded cell."""
    found = np.zeros(shape, bool)
    found[tuple(slice(max(n - p, 0) + 1) for n, p in zip(shape, patch_size, strict=True))] = True
    for cell in excluded:
        near = (
            slice(max(0, (c - 1) * p + 1), (c + 1) * p)
            for c, p in zip(cell, patch_size, strict=True)
        )
        found[tuple(near)] = False
    return found


def careamics_starts(shape, patch_size, excluded=(), probs=()):
    """The same of careamics 0.3.5, for images no smaller than a patch along any axis.

    A region is drawn with a probability proportional to the number of starts in it, times its
    own, and a start in it uniformly. So all starts are equally likely where probabilities are.
    Each cell named, excluded or not, takes off what it lacks, a cell beyond its grid too.
    """
    weight = allowed_starts(shape, patch_size, excluded).astype(float)
    for cell, prob in dict(probs).items():
        weight[tuple(slice(c * p, (c + 1) * p) for c, p in zip(cell, patch_size, strict=True))] *= (
            prob
        )
    n = prod(n / p for n, p in zip(shape, patch_size, strict=True)) - len(set(excluded))
    n = ceil(round(n - sum(1 - prob for prob in dict(probs).values()), 9))
    return weight * (max(n, 0) / weight.sum()) if weight.any() else weight


def coverage_of(starts, patch_size):
    """How often each pixel is covered by patches at these starts."""
    for axis, p in enumerate(patch_size):
        summed = np.cumsum(starts, axis)
        before = np.zeros_like(summed)
        n = starts.shape[axis]
        if p < n:
            into, out = [slice(None)] * starts.ndim, [slice(None)] * starts.ndim
            into[axis], out[axis] = slice(p, None), slice(n - p)
            before[tuple(into)] = summed[tuple(out)]
        starts = summed - before
    return starts


def pixels_of(cell, patch_size):
    return tuple(slice(c * p, (c + 1) * p) for c, p in zip(cell, patch_size, strict=True))


def included_pixels(shape, patch_size, excluded=()):
    found = np.ones(shape, bool)
    for cell in excluded:
        found[tuple(slice(c * p, (c + 1) * p) for c, p in zip(cell, patch_size, strict=True))] = (
            False
        )
    return found


def cell_means(values, patch_size):
    """Mean of each cell of a grid of patch size, cells at the end of an axis cut to the image."""
    for axis, p in enumerate(patch_size):
        first = np.arange(0, values.shape[axis], p)
        sizes = np.diff(np.append(first, values.shape[axis]))
        values = np.add.reduceat(values, first, axis)
        values = values / sizes.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return values


def cells(grid, chosen):
    """Cells of a grid where `chosen`, a function of their coordinates, says so."""
    return [cell for cell in np.ndindex(*grid) if chosen(*cell)]


def grid_of(shape, patch_size):
    return tuple(-(-n // p) for n, p in zip(shape, patch_size, strict=True))


def masks():
    """Images, patches and excluded cells: (name, shape, patch_size, excluded)."""
    sizes = {
        "2D": ((128, 160), (16, 16)),
        "2D ragged": ((135, 157), (16, 16)),
        "2D just over": ((129, 145), (16, 16)),
        "2D just under": ((127, 143), (16, 16)),
        "2D odd": ((90, 77), (9, 7)),
        "3D": ((24, 48, 40), (8, 8, 8)),
        "3D ragged": ((21, 45, 38), (6, 8, 7)),
        "thin stack": ((8, 128, 96), (8, 16, 16)),
        "thin stack ragged": ((10, 120, 90), (8, 16, 16)),
        "thin image": ((16, 160), (16, 16)),
        "thin image ragged": ((30, 330), (16, 16)),
    }
    for name, (shape, patch_size) in sizes.items():
        grid = grid_of(shape, patch_size)
        yield f"{name}, none", shape, patch_size, []
        for share in (0.2, 0.5, 0.8):
            rng = np.random.default_rng([len(name), int(share * 10)])
            off = rng.random(grid) < share
            yield f"{name}, random {share}", shape, patch_size, cells(grid, lambda *c, o=off: o[c])
    shape, patch_size = sizes["2D"]
    grid = grid_of(shape, patch_size)
    last = [g - 1 for g in grid]
    shapes = {
        "isolated cells": lambda y, x: y % 2 or x % 2,
        "touching corners": lambda y, x: (y + x) % 2,
        "one cell left": lambda y, x: (y, x) != (3, 4),
        "two cells left": lambda y, x: (y, x) not in ((3, 4), (3, 5)),
        "four cells left": lambda y, x: y not in (3, 4) or x not in (3, 4),
        "thin rim": lambda y, x: 0 < y < last[0] and 0 < x < last[1],
        "rim excluded": lambda y, x: y in (0, last[0]) or x in (0, last[1]),
        "stripes": lambda y, x: x % 3 == 2,
        "a cross left": lambda y, x: y != 3 and x != 4,
        "a disc": lambda y, x: (y - 3.5) ** 2 + (x - 4.5) ** 2 < 6,
        "all but a disc": lambda y, x: (y - 3.5) ** 2 + (x - 4.5) ** 2 > 9,
        "a block and isolated cells": lambda y, x: not (y < 3 and x < 4) and (y % 2 or x % 2),
    }
    for name, chosen in shapes.items():
        yield name, shape, patch_size, cells(grid, chosen)

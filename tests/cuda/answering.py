"""Answers, quantiles and running sums through the kernels, and through their NumPy twins."""

from __future__ import annotations

from itertools import product

import numpy as np

from gpu_patch import ops
from gpu_patch._cuda.accumulate import accumulate, means
from gpu_patch._cuda.answer import answer
from gpu_patch._cuda.quantiles import quantiles
from gpu_patch.sliding import sliding_grid

TYPES = ("uint8", "int8", "uint16", "int16", "float16", "float32")


def copied(runtime, array):
    """A copy with guards behind it."""
    output = runtime.output(array.shape, array.dtype)
    output[...] = array
    return output


def assert_answers(runtime):
    """Every type and step, of several blocks a plane, and the largest channel."""
    rng = np.random.default_rng(0)
    factors = rng.normal(0, 2, (2, 3)).astype(np.float32)
    centers = np.array([70, 0, -9000], np.float32)
    scaling = (np.float32(-3.5), np.float32(2.5))
    cases = [(3, 5, 9, 11), (3, 11, 40, 41)]
    for number, (shape, axis, dtype) in enumerate(product(cases, (1, 2, 3), TYPES)):
        slab = np.round(rng.normal(0, 1e4, shape) * rng.choice([1, 0.01], shape)).astype(np.float32)
        slab.flat[:: slab.size // 8] += 0.5
        rows = slice(2, shape[axis] - 1)
        # not finite at another pixel of another plane each time, by other threads
        pixel = [3 + number % (n - 4) for n in shape[1:]]
        slab[number % 3, *pixel] = np.nan
        pixel[-1] -= 1
        slab[(number + 1) % 3, *pixel] = np.inf if dtype[0] != "f" else 3e38
        if dtype[0] == "f":
            slab[0, 2, 3, 4] = 1e-41
        for given in (
            {"factors": None, "centers": None, "scaling": None, "argmax": False},
            {"factors": factors, "centers": None, "scaling": scaling, "argmax": False},
            {"factors": factors, "centers": centers, "scaling": None, "argmax": False},
            {"factors": None, "centers": centers, "scaling": None, "argmax": True},
        ):
            if given["argmax"] and dtype[0] == "f":
                continue
            _assert_answer(runtime, slab, axis, rows, dtype, given)


def _assert_answer(runtime, slab, axis, rows, dtype, given):
    shape = list(slab.shape)
    shape[0], shape[axis] = 1 if given["argmax"] else len(slab), rows.stop - rows.start
    made, expected = (np.full(shape, 7, dtype) for _ in range(2))
    flags, wanted = (np.full(ops.flags_of(tuple(shape)), 9, np.uint8) for _ in range(2))
    made, flags = copied(runtime, made), copied(runtime, flags)
    answer(runtime, copied(runtime, slab), axis, rows, made, flags, **given)
    ops.answer(slab, axis, rows, expected, wanted, **given)
    if not np.isnan(expected).any():
        bad = ~np.isfinite(slab[(slice(None),) * axis + (rows,)])
        if given["argmax"]:
            bad = bad.any(axis=0, keepdims=True)
        np.testing.assert_array_equal(np.where(bad, 0, made), np.where(bad, 0, expected))
    else:
        np.testing.assert_array_equal(made, expected)
    # a flag for each block: of each plane, whether one is set
    per_plane = flags.reshape(shape[0], -1).any(axis=1)
    np.testing.assert_array_equal(per_plane, wanted.reshape(shape[0], -1).any(axis=1))
    assert flags.max() <= 1


def assert_quantiles(runtime):
    """Of numbers of samples around powers of two, with NaN and numbers of every size."""
    rng = np.random.default_rng(1)
    for n_samples in (1, 2, 3, 5, 7, 8, 9, 13, 17):
        samples = rng.normal(0, 1, (n_samples, 2, 3, 5, 37)).astype(np.float32)
        samples *= rng.choice([1, 1e-41, 1e30], samples.shape[1:]).astype(np.float32)
        samples[-1, 1, 2, 3, 4] = np.nan
        samples[-1, 1, 1, 3, 5] = np.inf
        samples[:, 0, 0, 0] = -0.0
        at = (0, 0.1, 0.5, 0.77, 1)
        places = (n_samples - 1) * np.array(at)
        lower = np.floor(places).astype(np.int32)
        found, expected = (np.full((2, 15, 5, 37), 7, np.float32) for _ in range(2))
        found, there = copied(runtime, found), copied(runtime, samples)
        quantiles(runtime, there, found, lower, (places - lower).astype(np.float32))
        ops.quantiles(samples, expected, at)
        np.testing.assert_array_equal(
            np.ascontiguousarray(found).view(np.uint32), expected.view(np.uint32)
        )


def assert_sums(runtime):
    """Sliding tiles in batches, through a ring, and what becomes of the sums."""
    cases = [
        ((25, 19), (12, 8), (3, 2), (3, 2)),
        ((7, 9, 8), (4, 5, 6), (2, 1, 3), (2, 3, 1)),
    ]
    for (size, patch, overlaps, stride), (squares, dtype) in product(
        cases, ((False, "float16"), (True, "float32"))
    ):
        for axis in range(len(size)):
            grid = sliding_grid(size, patch, overlaps, stride, axis)
            rng = np.random.default_rng(2)
            tiles = rng.normal(9, 5, (2, grid.n_tiles, 2, *patch)).astype(dtype)
            if dtype == "float32":  # some of them subnormal
                tiles[:, ::7] *= np.float32(1e-41)
            _assert_sums(runtime, grid, axis, tiles, squares=squares)
    # pixels of one value, and of 54 equal ones, whose squares sum up to less than nothing
    alone = sliding_grid((25, 19), (12, 8), (3, 2), (9, 6), 0)
    for grid in (alone, sliding_grid((13, 9), (12, 8), (3, 2), (1, 1), 0)):
        equal = np.full((1, grid.n_tiles, 2, 12, 8), 3.3, np.float32)
        _assert_sums(runtime, grid, 0, equal, squares=True)


def _assert_sums(runtime, grid, axis, tiles, *, squares, count=9):
    n_samples, planes = len(tiles), 2 * (1 + squares)
    parts = [(first, min(count, grid.n_tiles - first)) for first in range(0, grid.n_tiles, count)]
    spans = [grid.slab_range(*part) for part in parts]
    ring = [planes, *grid.size]
    ring[1 + axis] = max(stop - start for start, stop in spans)
    slabs = [copied(runtime, np.full(ring, np.nan)), np.full(ring, np.nan)]
    ends = [start for start, _ in spans[1:]] + [grid.size[axis]]
    done = 0
    for (first, n), end in zip(parts, ends, strict=True):
        for number in range(n_samples):
            batch = tiles[number, first : first + n]
            mine, twins = (
                [ops.Segment(slab, grid, first, n, (0, grid.size[axis]))] for slab in slabs
            )
            options = {"squares": squares, "again": number > 0}
            accumulate(runtime, copied(runtime, batch), mine, **options)
            ops.accumulate(batch, twins, **options)
        while done < end:
            stop = min(end, (done // ring[1 + axis] + 1) * ring[1 + axis])
            shape = [*ring]
            shape[1 + axis] = stop - done
            found, expected = (np.full(shape, np.nan, np.float32) for _ in range(2))
            found = copied(runtime, found)
            options = {"n_samples": n_samples, "squares": squares}
            means(runtime, slabs[0], grid, (done, stop), found, **options)
            ops.means(slabs[1], grid, (done, stop), expected, **options)
            np.testing.assert_array_equal(
                np.ascontiguousarray(found).view(np.uint32), expected.view(np.uint32)
            )
            done = stop

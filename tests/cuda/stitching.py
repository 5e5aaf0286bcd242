"""Tiles through the kernel, as prediction sends them, and through its NumPy twin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tilings import Tiling, with_values

from gpu_patch import ops
from gpu_patch._cuda.stitch import stitch


def on(runtime):
    """`ops.stitch` of a runtime, without its checks."""

    def stitch_there(tiles, segments, scale=None, offset=None):
        stitch(runtime, tiles, segments, scale, offset)

    return stitch_there


def copied(runtime, array):
    """A copy with guards behind it."""
    output = runtime.output(array.shape, array.dtype)
    output[...] = array
    return output


def assert_stitched(runtime, tiling: Tiling, counts):
    """The same bits as NumPy's, through a ring."""
    found = tiling.through_a_ring(counts, on(runtime), partial(copied, runtime))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = tiling.through_a_ring(counts, ops.stitch)
    np.testing.assert_array_equal(
        np.ascontiguousarray(found).view(np.uint32), np.ascontiguousarray(expected).view(np.uint32)
    )


def cases() -> Iterator[tuple[Tiling, int]]:
    """Tilings, and tiles per batch."""
    two = Tiling((37, 70), (16, 45), (5, 14), "hann", 0, 2, seed=2)
    three = Tiling((11, 9, 13), (4, 5, 6), (2, 1, 4), "gaussian", 0, 2, seed=2)
    for count in (1, 4, 1000):
        for blend in ("crop", "hann"):
            for axis in range(2):
                yield replace(two, blend=blend, slab_axis=axis), count
            for axis in range(3):
                yield replace(three, blend=blend, slab_axis=axis), count
        yield replace(two, overlaps=(12, 30), dtype="float16"), count
        yield replace(three, overlaps=(3, 4, 5), slab_axis=2), count
        yield replace(two, size=(9, 50), slab_axis=1), count
    zeros = replace(two, seed=0)
    yield with_values(zeros, np.full_like(zeros.tiles, -0.0)), 3


def counts_of(tiling: Tiling, count: int) -> list[int]:
    """All tiles, so many at a time."""
    n_whole, rest = divmod(tiling.grid.n_tiles, count)
    return [count] * n_whole + [rest] * (rest > 0)


def assert_rows_kept(runtime):
    """Only some rows, into slabs of two samples by one launch."""
    tilings = [
        Tiling((37, 40), (16, 12), (5, 4), blend, axis, 2, seed=i)
        for i, (blend, axis) in enumerate([("hann", 0), ("gaussian", 1)])
    ]
    found, expected = ([np.full(t.shape, 7, np.float32) for t in tilings] for _ in range(2))
    tiles = np.concatenate([tiling.tiles[3:] for tiling in tilings])
    for slabs, stitch_there in ((found, on(runtime)), (expected, ops.stitch)):
        segments = [
            tiling.segment(slab, 3, len(tiling.tiles) - 3, (9, 17))
            for tiling, slab in zip(tilings, slabs, strict=True)
        ]
        stitch_there(tiles, segments)
    np.testing.assert_array_equal(found, expected)


def assert_huge(runtime, folder: Path):
    """Beyond 2^31 pixels, in files with holes: of a slab, and of a tile."""
    side = 50_000
    slab = np.memmap(folder / "slab", np.float32, "w+", shape=(1, side, side))
    tiling = Tiling((side, side), (64, 64), (0, 0))
    last = np.random.default_rng(0).normal(size=(1, 1, 64, 64)).astype(np.float32)
    on(runtime)(last, [tiling.segment(slab, tiling.grid.n_tiles - 1, 1)])
    stop = tiling.grid.covers[0].starts[-2] + 64
    np.testing.assert_array_equal(slab[0, stop:, stop:], last[0, 0, stop - side :, stop - side :])
    tiles = np.memmap(folder / "tiles", np.float16, "w+", shape=(2, 2, side, side))
    tiles[:, :, :50, :30] = np.random.default_rng(1).normal(size=(2, 2, 50, 30))
    for blend in ("crop", "hann"):
        large = Tiling((side + 10, 30), (side, side), (side - 20, 0), blend, 0, 2)
        found, expected = np.empty((2, 2, 40, 30), np.float32)
        for slab, stitch_there in ((found, on(runtime)), (expected, ops.stitch)):
            stitch_there(tiles, [large.segment(slab, 0, 2, (0, 40))])
        np.testing.assert_array_equal(found, expected)

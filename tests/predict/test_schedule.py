"""Which rows and tiles a process does: everything once, in rings that are large enough."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpu_patch.predict.outputs import Shard
from gpu_patch.predict.schedule import (
    RowRange,
    batches_of,
    choose_grid,
    share_of,
    steps_of,
    units_of,
)
from gpu_patch.tiling import BLENDS, tile_grid


@st.composite
def grids(draw):
    """Grids of 2 and 3 axes, tiles larger than the image and odd overlaps among them."""
    n_dims = draw(st.integers(2, 3))
    most = 60 if n_dims == 2 else 20
    size = [draw(st.integers(1, most)) for _ in range(n_dims)]
    tile = [draw(st.integers(1, 24 if n_dims == 2 else 9)) for _ in range(n_dims)]
    overlaps = [draw(st.integers(0, n - 1)) for n in tile]
    blend = draw(st.sampled_from(BLENDS))
    return tile_grid(size, tile, overlaps, blend, draw(st.integers(0, n_dims - 1)))


@st.composite
def several_ranges(draw):
    """Ranges of a few images, whole samples and parts of them."""
    made = []
    for image in range(draw(st.integers(1, 3))):
        grid = draw(grids())
        n_rows = grid.size[grid.slab_axis]
        start = draw(st.integers(0, n_rows - 1))
        made.append((RowRange(image, 0, start, draw(st.integers(start + 1, n_rows))), grid))
    return made


def counting(grid, start, stop):
    """Tiles that count in a row of [start, stop), by looking at each row."""
    cover = grid.covers[grid.slab_axis]
    layers = {layer for r in range(start, stop) for layer in range(cover.first[r], cover.stop[r])}
    places = np.arange(grid.n_tiles)
    return [int(p) for p in places if grid.positions(places[[p]])[grid.slab_axis, 0] in layers]


@given(several_ranges(), st.integers(1, 40))
def test_every_tile_that_counts_is_made_once_and_in_order(ranges, batch_size):
    batches, _ = batches_of(ranges, batch_size)
    sizes = [sum(part.count for part in parts) for parts in batches]
    assert set(sizes[:-1]) <= {batch_size}
    assert 1 <= sizes[-1] <= batch_size
    made = {number: [] for number in range(len(ranges))}
    for parts in batches:
        assert len({part.range_idx for part in parts}) == len(parts)
        for part in parts:
            made[part.range_idx] += range(part.first, part.first + part.count)
    for number, (rows, grid) in enumerate(ranges):
        assert made[number] == counting(grid, rows.start, rows.stop)


@given(several_ranges(), st.integers(1, 40))
def test_rows_are_complete_when_no_later_tile_counts_there(ranges, batch_size):
    batches, heights = batches_of(ranges, batch_size)
    for number, (rows, grid) in enumerate(ranges):
        parts = [part for batch in batches for part in batch if part.range_idx == number]
        row, cover = rows.start, grid.covers[grid.slab_axis]
        for part in parts:
            assert part.complete_rows[0] == row
            row = part.complete_rows[1]
            last = part.first + part.count - 1
            layer = int(grid.positions(np.array([last]))[grid.slab_axis, 0])
            written = [r for r in range(rows.start, rows.stop) if cover.first[r] <= layer]
            assert part.written == max(written) + 1
            # rows that are stitched into, and those that are written, are in the ring at a time
            assert part.written - part.complete_rows[0] <= heights[number]
            if row > rows.start:
                assert max(counting(grid, rows.start, row)) <= last
            if row < rows.stop:
                assert max(counting(grid, row, row + 1)) > last
        assert row == rows.stop
        assert heights[number] <= rows.stop - rows.start


def test_complete_rows_are_exact():
    grid = tile_grid((100, 40), (20, 20), (8, 8), "hann", 0)
    steps = steps_of(grid, 0, 100, 3, 0)
    # 3 tiles a layer, 12 rows apart; the last layer is flush to the end
    np.testing.assert_array_equal(steps.complete, [12, 24, 36, 48, 60, 72, 80, 100])
    np.testing.assert_array_equal(steps.written, [20, 32, 44, 56, 68, 80, 92, 100])
    # 20 rows that are stitched into, and as many as are ever written together
    assert steps.ring_rows(0) == 40


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 30)), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_ranks_share_what_is_not_done(images, unit_rows, world_size, random):
    units, left = [], set()
    for image, (n_samples, n_rows) in enumerate(images):
        whole = units_of(image, n_samples, n_rows, unit_rows, ())
        done = {unit[1:3] for unit in whole if random.random() < 0.3}
        units += units_of(image, n_samples, n_rows, unit_rows, done)
        left |= {
            (image, sample, row)
            for sample in range(n_samples)
            for row in range(n_rows)
            if (sample, row - row % unit_rows) not in done
        }
    shares = [share_of(units, Shard(rank, world_size)) for rank in range(world_size)]
    rows = [
        (part.image, part.sample, row)
        for share in shares
        for part in share
        for row in range(part.start, part.stop)
    ]
    assert sorted(rows) == sorted(left)
    counts = [len({(r.image, r.sample, row // unit_rows) for r in share
                   for row in range(r.start, r.stop)}) for share in shares]  # fmt: skip
    assert max(counts) - min(counts) <= 1
    for share in shares:
        for before, run in pairwise(share):
            assert before[:2] != run[:2] or before.stop < run.start


def test_the_slab_lies_along_the_longer_side():
    assert choose_grid((4000, 600), (64, 64), (16, 16), "crop").slab_axis == 0
    assert choose_grid((600, 4000), (64, 64), (16, 16), "crop").slab_axis == 1
    assert choose_grid((20, 600, 600), (16, 64, 64), (4, 16, 16), "crop").slab_axis == 1
    # a little smaller is not worth strided copies
    assert choose_grid((600, 700), (64, 64), (16, 16), "crop").slab_axis == 0

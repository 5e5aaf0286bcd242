"""The order of an epoch, and its division among ranks."""

import itertools

import numpy as np
import pytest
from samples import PATCH_SIZE, SHAPES, STRATEGIES, WHOLE_SHAPES, make_strategy

import gpu_patch
from gpu_patch.feed.order import Division, block_numbers, epoch_order, image_numbers, n_blocks


def test_every_patch_once():
    for n in (1, 2, 17, 1000):
        order = epoch_order(n, 3, 5, shuffle=True)
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(n))
        np.testing.assert_array_equal(epoch_order(n, 3, 5, shuffle=False), range(n))


def test_orders_are_those_of_earlier_versions():
    # a saved state goes on in the same order
    assert epoch_order(12, 42, 7, shuffle=True).tolist() == [4, 7, 11, 3, 1, 9, 0, 6, 10, 2, 8, 5]


def test_orders_differ_and_are_even():
    orders = np.array(
        [epoch_order(8, seed, e, shuffle=True) for seed in (1, 2) for e in range(400)]
    )
    assert len({tuple(order) for order in orders.tolist()}) > 780
    # each patch at each place about equally often: 100 ± 5 standard deviations
    counts = np.array([np.bincount(orders[:, place], minlength=8) for place in range(8)])
    assert (np.abs(counts - 100) < 5 * np.sqrt(100 * 7 / 8)).all()


BLOCKS = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 25))


@pytest.mark.parametrize("window", [0.0, 0.01, 0.125, 1.0])
def test_blocks_begin_one_after_the_other_and_end_within_a_window(window):
    order = epoch_order(1000, 3, 5, shuffle=True, blocks=BLOCKS, window=window)
    assert sorted(order.tolist()) == list(range(1000))
    places = np.argsort(order)
    first = np.array([places[b == BLOCKS].min() for b in range(40)])
    last = np.array([places[b == BLOCKS].max() for b in range(40)])
    longest = (last - first).max() + 1
    if window <= 0.025:
        assert longest == 25
        assert (np.diff(np.sort(first)) == 25).all()
    else:
        # at the end of an epoch a window is what is left of it, and those before it get longer
        assert longest <= 1000 * window * 1.2
        assert np.median(last - first) > 500 * window


def test_blocks_have_an_order_of_their_own_in_every_epoch():
    orders = [
        tuple(dict.fromkeys(BLOCKS[epoch_order(1000, seed, e, shuffle=True, blocks=BLOCKS)]))
        for seed in (1, 2)
        for e in range(20)
    ]
    assert len(set(orders)) == 40
    firsts = [BLOCKS[epoch_order(1000, 1, e, shuffle=True, blocks=BLOCKS)[0]] for e in range(400)]
    assert len(set(firsts)) == 40


def test_orders_by_block_stay_as_they_are():
    blocks = np.repeat(np.arange(4), 3)
    order = epoch_order(12, 42, 7, shuffle=True, blocks=blocks, window=0.5)
    assert order.tolist() == [11, 9, 4, 10, 3, 5, 1, 7, 0, 2, 6, 8]


def test_images_are_boxes_of_their_own():
    shapes = [(2, 1, 64, 128), (1, 1, 100, 100), (3, 1, 10, 10)]
    strategy = gpu_patch.SequentialPatching(shapes, (8, 8))
    sites = strategy.sites()
    assert sites.tolist() == [
        [spec["data_idx"], spec["sample_idx"], *spec["coords"]]
        for spec in map(strategy.get_patch_spec, range(strategy.n_patches))
    ]
    blocks = block_numbers(sites, shapes, 16)
    assert np.array_equal(np.unique(blocks), np.arange(blocks.max() + 1))
    volume = (2 * 64 * 128 + 100**2 + 300) / 16
    for b in range(blocks.max() + 1):
        inside = sites[blocks == b]
        assert len({tuple(site) for site in inside[:, :2].tolist()}) == 1
        assert np.prod(np.ptp(inside[:, 2:], axis=0) + 1) <= volume
    assert 16 <= blocks.max() + 1 <= 32
    np.testing.assert_array_equal(image_numbers(sites), sites[:, 0])
    # as many boxes as there are samples, at least
    assert block_numbers(sites, shapes, 1).max() + 1 == 6


def test_boxes_are_larger_where_much_is_read_around_them():
    # window 1/8 of 4096²: boxes of 512² and fewer, larger ones
    shapes = [(1, 2, 4096, 4096)]
    assert [n_blocks(shapes, (w, w), 1 / 8) for w in (0, 64, 200, 512)] == [64, 64, 16, 8]
    assert n_blocks(shapes, (64, 64), 1 / 16) == 128
    # nothing is read beyond the image
    assert n_blocks([(64, 2, 512, 512)], (512, 512), 1 / 8) == 64


@pytest.mark.parametrize("n_dims", [2, 3])
def test_sites_of_every_strategy(n_dims):
    for kind in STRATEGIES:
        shapes = [
            (s, 1, *size) for s, *size in (WHOLE_SHAPES if kind == "whole" else SHAPES)[n_dims][0]
        ]
        strategy = make_strategy(kind, shapes, PATCH_SIZE[n_dims])
        sites = strategy.sites()
        assert sites.shape == (strategy.n_patches, 2 + n_dims)
        for i, site in enumerate(sites.tolist()):
            spec = strategy.get_patch_spec(i)
            assert site[:2] == [spec["data_idx"], spec["sample_idx"]]
            if kind not in ("random", "stratified"):
                assert tuple(site[2:]) == spec["coords"]
            elif kind == "stratified":
                reach = 2 * np.array(PATCH_SIZE[n_dims])
                assert (np.abs(np.array(site[3:]) - spec["coords"][1:]) <= 40).all()
                assert abs(site[2] - spec["coords"][0]) <= reach[0]


DIVISIONS = [
    (first, stop, batch_size, world_size)
    for first, stop, batch_size, world_size in itertools.product(
        (0, 3), range(1, 30), range(1, 6), range(1, 5)
    )
    if stop - first >= world_size
]


@pytest.mark.parametrize("drop_last", [False, True])
def test_divisions(drop_last):
    for first, stop, batch_size, world_size in DIVISIONS:
        division = Division(first, stop, batch_size, world_size, drop_last)
        at = first
        for step in range(division.n_steps):
            assert division.position(step) == at
            parts = [division.part(step, rank) for rank in range(world_size)]
            for begin, end in parts:
                assert begin == at
                at = end
            sizes = [end - begin for begin, end in parts]
            assert min(sizes) >= 1
            assert max(sizes) - min(sizes) <= 1
            last = step == division.n_steps - 1
            assert max(sizes) <= batch_size + last
            if not last or drop_last:
                assert sizes == [batch_size] * world_size
        assert division.position(division.n_steps) == at
        for rank in range(world_size):
            steps = np.full(stop, -1)
            for step in range(division.n_steps):
                steps[slice(*division.part(step, rank))] = step
            np.testing.assert_array_equal(division.step_of(rank), steps)
        left = stop - at
        assert left < batch_size * world_size if drop_last else left == 0


def test_one_process_has_batches_as_usual():
    sizes = [10, 10, 10, 4]
    division = Division(0, 34, 10, 1, False)
    assert [end - begin for begin, end in (division.part(i, 0) for i in range(4))] == sizes


def test_the_rest_of_an_epoch_may_be_divided_otherwise():
    first = Division(0, 100, 7, 2, False)
    seen = [range(*first.part(step, rank)) for step in range(4) for rank in range(2)]
    second = Division(first.position(4), 100, 5, 3, False)
    seen += [range(*second.part(step, rank)) for step in range(second.n_steps) for rank in range(3)]
    assert [i for part in seen for i in part] == list(range(100))

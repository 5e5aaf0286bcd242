"""The order of an epoch, and its division among ranks."""

import itertools

import numpy as np
import pytest

from gpu_patch.feed.order import Division, epoch_order


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

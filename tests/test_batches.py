"""A patch of a batch is a function of seed, epoch and index alone."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from builders import KINDS
from reference import on_host
from samples import MODES, STRATEGIES, assert_equal_batches, make_sample

from gpu_patch import PatchBatch

CASES = [
    pytest.param(kind, strategy, n_dims, MODES[i % len(MODES)], id=f"{kind}-{strategy}-{n_dims}D")
    for i, (kind, strategy, n_dims) in enumerate(
        (kind, strategy, n_dims) for kind in KINDS for strategy in STRATEGIES for n_dims in (2, 3)
    )
]
DRAWING = ("random", "stratified")


def some_indices(constructor, n=12, seed=0):
    return np.random.default_rng(seed).integers(0, constructor.n_patches, n).tolist()


def part(batch, which):
    """Some patches of a batch as a batch."""
    return PatchBatch(
        np.ascontiguousarray(on_host(batch.input)[which]),
        None if batch.target is None else np.ascontiguousarray(on_host(batch.target)[which]),
        [batch.specs[i] for i in which],
    )


def one_by_one(constructor, indices, epoch):
    """The patches, each in a batch of its own."""
    batches = [constructor.construct_batch([i], epoch=epoch) for i in indices]
    targets = [on_host(batch.target) for batch in batches]
    return PatchBatch(
        np.concatenate([on_host(batch.input) for batch in batches]),
        None if targets[0] is None else np.concatenate(targets),
        [batch.specs[0] for batch in batches],
    )


@pytest.mark.parametrize(("kind", "strategy", "n_dims", "mode"), CASES)
def test_neither_batch_nor_order_nor_history_matters(kind, strategy, n_dims, mode, device):
    def make():
        return make_sample(kind, strategy, n_dims, mode=mode, device=device).constructor

    constructor = make()
    indices = some_indices(constructor)
    epoch = 3
    expected = one_by_one(make(), indices, epoch)
    assert_equal_batches(constructor.construct_batch(indices, epoch=epoch), expected)
    # in another order, repeated, in parts, as other kinds of sequence
    order = np.random.default_rng(1).permutation(len(indices)).tolist()
    again = [*order, order[0], order[0]]
    shuffled = np.array(indices)[again]
    assert_equal_batches(constructor.construct_batch(shuffled, epoch=epoch), part(expected, again))
    for start in (0, 5):
        piece = tuple(indices[start : start + 5])
        found = constructor.construct_batch(piece, epoch=epoch)
        assert_equal_batches(found, part(expected, range(start, start + 5)))
    # after other calls, which must not leave traces
    for i in range(3):
        constructor.construct_patch(i % constructor.n_patches)
        constructor.construct_batch(some_indices(constructor, 3, i), epoch=i)
    assert_equal_batches(constructor.construct_batch(indices, epoch=epoch), expected)
    # after a crash that went on from a saved constructor
    restored = pickle.loads(pickle.dumps(constructor))
    assert_equal_batches(restored.construct_batch(indices, epoch=epoch), expected)
    assert_equal_batches(constructor.construct_batch(indices, epoch=epoch), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_epoch_is_the_same_in_any_batch_size(kind, device):
    constructor = make_sample(kind, device=device).constructor
    everything = constructor.construct_batch(range(constructor.n_patches), epoch=1)
    assert len(everything.specs) == constructor.n_patches
    for size in (1, 7, 16):
        for start in range(0, constructor.n_patches, size):
            indices = range(start, min(start + size, constructor.n_patches))
            found = constructor.construct_batch(indices, epoch=1)
            assert_equal_batches(found, part(everything, list(indices)))


def test_other_processes_make_the_same_batches():
    constructors = [make_sample(kind, "stratified").constructor for kind in KINDS]
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as processes:
        jobs = [
            processes.submit(constructor.construct_batch, some_indices(constructor), epoch=5)
            for constructor in constructors
        ]
        for job, constructor in zip(jobs, constructors, strict=True):
            expected = constructor.construct_batch(some_indices(constructor), epoch=5)
            assert_equal_batches(job.result(), expected)


@pytest.mark.parametrize("strategy", DRAWING)
@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_or_epoch_draws_anew(kind, strategy, device):
    def coords(seed, epoch):
        constructor = make_sample(kind, strategy, seed=seed, device=device).constructor
        specs = constructor.construct_batch(range(12), epoch=epoch).specs
        return [spec["coords"] for spec in specs]

    seen = {(seed, epoch): coords(seed, epoch) for seed in (7, 8, 7 + 2**32) for epoch in (0, 1)}
    for key, found in seen.items():
        for other, others in seen.items():
            same = sum(a == b for a, b in zip(found, others, strict=True))
            # at borders, patches that are spread evenly often start on the same pixels
            assert same == 12 if key == other else same <= (6 if strategy == "stratified" else 3)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["multichannel", "independent"])
def test_weights_are_drawn_anew_where_places_are_fixed(kind, strategy, device):
    constructor = make_sample(kind, strategy, device=device).constructor
    a, b = (on_host(constructor.construct_batch([0, 1, 2], epoch=e).input) for e in (0, 1))
    assert (a != b).reshape(3, -1).any(axis=1).all()


def test_seed_is_kept_and_fresh_ones_differ(device):
    constructors = [make_sample("basic", seed=None, device=device).constructor for _ in range(3)]
    seeds = {constructor.seed for constructor in constructors}
    assert len(seeds) == 3
    assert all(0 <= seed < 2**64 for seed in seeds)
    for constructor in constructors:
        again = make_sample("basic", seed=constructor.seed, device=device).constructor
        assert_equal_batches(again.construct_batch([0, 5]), constructor.construct_batch([0, 5]))


@pytest.mark.parametrize(("kind", "strategy", "n_dims", "mode"), CASES)
def test_negative_indices_count_from_the_end(kind, strategy, n_dims, mode, device):
    constructor = make_sample(kind, strategy, n_dims, mode=mode, device=device).constructor
    n = constructor.n_patches
    negative = constructor.construct_batch([-1, 0, -n, 1 - n], epoch=2)
    positive = constructor.construct_batch([n - 1, 0, 0, 1], epoch=2)
    assert_equal_batches(negative, positive)
    if strategy not in DRAWING and kind not in ("multichannel", "independent"):
        last = constructor.construct_patch(n - 1)
        for a, b in zip(constructor.construct_patch(-1), last, strict=True):
            np.testing.assert_equal(on_host(a), on_host(b))


def test_batches_do_not_advance_the_generators_of_single_patches(device):
    for kind in KINDS:
        used = make_sample(kind, device=device).constructor
        fresh = make_sample(kind, device=device).constructor
        used.construct_batch(range(9), epoch=4)
        for _ in range(3):
            for a, b in zip(used.construct_patch(2), fresh.construct_patch(2), strict=True):
                np.testing.assert_equal(on_host(a), on_host(b))


@pytest.mark.parametrize("n_dims", [2, 3])
def test_a_part_of_an_array_of_indices_is_a_batch(n_dims, device):
    constructor = make_sample("multichannel", n_dims=n_dims, device=device).constructor
    expected = constructor.construct_batch([1, 3, 5])
    for indices in (
        range(1, 6, 2), (1, 3, 5), np.arange(6)[1::2], np.array([1, 3, 5], np.uint8),
        [np.int64(1), np.int32(3), 5],
    ):  # fmt: skip
        assert_equal_batches(constructor.construct_batch(indices), expected)

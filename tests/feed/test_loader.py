"""BatchLoader: whole epochs, ranks, resuming, batches ahead."""

from __future__ import annotations

import gc
import itertools
import json
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from builders import KINDS
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from reference import on_host
from samples import Foreign, assert_equal_batches, make_sample

import gpu_patch
from gpu_patch import BasicPatchConstr, ImageStack, PatchExtractor, StratifiedPatching
from gpu_patch.feed import BatchLoader
from gpu_patch.feed.ranks import Share, n_processes


def loader(kind="multichannel", batch_size=5, device="cpu", **options):
    return BatchLoader(make_sample(kind, device=device).constructor, batch_size, **options)


def pixels(batch):
    """The bytes of each patch of a batch, which tell patches apart."""
    arrays = [on_host(a) for a in (batch.input, batch.target) if a is not None]
    return [b"".join(a[i].tobytes() for a in arrays) for i in range(len(arrays[0]))]


def epoch_of(*loaders):
    """All patches of an epoch, of all ranks."""
    return [patch for loader in loaders for batch in loader for patch in pixels(batch)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_every_patch_once(kind, device):
    made = loader(kind, 7, device)
    n = made.constructor.n_patches
    expected = pixels(make_sample(kind).constructor.construct_batch(range(n), epoch=0))
    found = epoch_of(made)
    assert len(found) == n
    # bytes of the filtered scales differ between backends
    if device == "cpu":
        assert sorted(found) == sorted(expected)
        assert found != expected
    assert made.epoch == 1
    assert len(made) == -(-n // 7)


def test_without_shuffling_patches_come_in_order():
    made = loader(shuffle=False)
    n = made.constructor.n_patches
    assert epoch_of(made) == pixels(made.constructor.construct_batch(range(n)))


def test_specs_belong_to_the_batch():
    for batch in loader("pred"):
        assert len(batch.specs) == len(batch.input)
        assert batch.target is None


def test_each_iteration_is_the_next_epoch():
    made = loader()
    epochs = [epoch_of(made) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    made.set_epoch(1)
    assert epoch_of(made) == epochs[1]
    assert made.epoch == 2
    assert epoch_of(loader(seed=0)) == epochs[0]
    assert epoch_of(loader(seed=1)) != epochs[0]


def test_an_iteration_left_after_its_last_batch_is_a_whole_one():
    made, expected = loader(), loader()
    for _ in range(3):
        found = [pixels(batch) for batch in itertools.islice(made, len(made))]
        assert found == [pixels(batch) for batch in expected]


def test_an_iteration_left_early_begins_again():
    made = loader()
    expected = epoch_of(loader())
    for _ in itertools.islice(made, 2):
        pass
    assert made.epoch == 0
    assert epoch_of(made) == expected


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_see_together_what_one_process_sees(kind, world_size):
    expected = epoch_of(loader(kind))
    ranks = [loader(kind, 4, rank=r, world_size=world_size) for r in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    assert sorted(epoch_of(*ranks)) == sorted(expected)
    assert sorted(epoch_of(*ranks)) == sorted(epoch_of(loader_at(kind, 1)))


def loader_at(kind, epoch):
    made = loader(kind)
    made.set_epoch(epoch)
    return made


def test_the_steps_of_ranks_are_the_batches_of_one_process():
    whole = loader(batch_size=6, drop_last=True)
    ranks = [loader(batch_size=2, rank=r, world_size=3, drop_last=True) for r in range(3)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert pixels(batch) == [patch for part in parts for patch in pixels(part)]


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("taken", [0, 1, 3, None])
def test_resuming_at_any_step(taken, prefetch, device):
    whole = [pixels(batch) for batch in loader(device=device)]
    first = loader(device=device, prefetch=prefetch)
    seen = [pixels(batch) for batch in itertools.islice(first, taken)]
    state = json.loads(json.dumps(first.state_dict()))
    second = loader(device=device, prefetch=prefetch, seed=99)
    second.load_state_dict(state)
    assert len(second) == len(whole)
    rest = [pixels(batch) for batch in second]
    if taken is None:  # a whole epoch: on with the next one
        assert state["epoch"] == 1
        first.set_epoch(1)
        assert rest == [pixels(batch) for batch in first]
    else:
        assert seen + rest == whole
    assert second.epoch == 1 + (taken is None)
    assert second.state_dict()["position"] == 0


def test_state_is_that_of_the_batch_in_hand():
    made = loader(prefetch=2)
    for i, _ in enumerate(made):
        position = 5 * (i + 1)
        beyond = position >= made.constructor.n_patches
        assert made.state_dict()["position"] == (0 if beyond else position)
        assert made.epoch == beyond
    assert made.state_dict() == {**made.state_dict(), "epoch": 1, "position": 0}


def test_no_patches_at_all():
    made = loader(shuffle=True)
    empty = BatchLoader(NoPatches(made.constructor), 4)
    assert len(empty) == 0
    assert list(empty) == []


class NoPatches(type(make_sample("multichannel").constructor)):
    """A constructor whose strategy has nothing."""

    n_patches = 0

    def __init__(self, constructor):
        self.__dict__.update(constructor.__dict__)


def test_resuming_behind_the_last_batch():
    made = loader()
    for _ in made:
        state, epoch = made.state_dict(), made.epoch
    assert (state["epoch"], state["position"], epoch) == (1, 0, 1)
    again = loader()
    again.load_state_dict(state)
    assert epoch_of(again) == epoch_of(loader_at("multichannel", 1))


def test_resuming_with_other_ranks():
    whole = sorted(epoch_of(loader()))
    ranks = [loader(batch_size=3, rank=r, world_size=2) for r in range(2)]
    seen = [p for rank in ranks for batch in itertools.islice(rank, 2) for p in pixels(batch)]
    states = [rank.state_dict() for rank in ranks]
    assert states[0] == states[1]
    others = [loader(batch_size=2, rank=r, world_size=3) for r in range(3)]
    for other in others:
        other.load_state_dict(states[0])
    assert sorted(seen + epoch_of(*others)) == whole
    assert sorted(epoch_of(*others)) == sorted(epoch_of(loader_at("multichannel", 1)))


# ---- batches ahead -----------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [1, 2, 100])
def test_a_thread_makes_the_same(prefetch):
    expected = [pixels(batch) for batch in loader()]
    assert [pixels(batch) for batch in loader(prefetch=prefetch)] == expected


def test_a_thread_ends_with_its_iteration():
    before = threading.active_count()
    made = iter(loader(prefetch=2))
    next(made)
    assert threading.active_count() == before + 1
    del made
    gc.collect()
    assert threading.active_count() == before


def test_errors_of_a_thread_arrive():
    made = loader(prefetch=2, dtype="float64")
    with pytest.raises(ValueError, match="dtype must be float32 or float16"):
        next(iter(made))


def test_a_thread_is_ahead_by_so_many(monkeypatch):
    made = loader(prefetch=2)
    calls, construct = [], made.constructor.construct_batch

    def counted(*arguments, **options):
        calls.append(1)
        return construct(*arguments, **options)

    monkeypatch.setattr(made.constructor, "construct_batch", counted)
    batches = iter(made)
    for i in range(3):
        next(batches)
        assert len(calls) <= i + 3
    batches.close()


needs_compiler = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_another_stream_are_waited_for_on_the_device(kind):
    with fake_cupy.installed() as cupy:
        made = loader(kind, device="cuda", batch_size=8)
        assert made.prefetch == 2
        expected = loader(kind, batch_size=8)
        gpu.log.clear()
        for batch, same in zip(made, expected, strict=True):
            # still waiting: nothing has waited for the device on the host
            assert not [a for a in gpu.log if a.kind in ("synchronize", "download")]
            assert_equal_batches(batch, same)
            gpu.log.clear()
        with cupy.cuda.Stream(non_blocking=True) as own:
            batch = next(iter(made))
            streams = {a.stream for a in gpu.log if a.kind == "launch"}
            assert streams.isdisjoint({own.ptr, 0})
            assert own.ptr in [a.stream for a in gpu.log if a.kind == "wait_event"]


@needs_compiler
def test_memory_of_batches_waits_for_the_stream_that_took_them():
    with fake_cupy.installed() as cupy:
        batches = iter(loader(device="cuda", batch_size=4))
        with cupy.cuda.Stream(non_blocking=True) as own:
            batch = next(batches)
        gpu.log.clear()
        del batch
        waits = [(a.stream, a.what.place[0].ptr) for a in gpu.log if a.kind == "wait_event"]
        assert len(waits) == 2  # input and target
        assert {reader for _, reader in waits} == {own.ptr}
        assert own.ptr not in {waiting for waiting, _ in waits}


@needs_compiler
def test_batches_of_a_users_own_memory_are_copied_before_it_is_used_again(monkeypatch):
    """As `batch.input * 2` has it: nobody knows when the reader has passed."""
    with fake_cupy.installed() as cupy:
        made = loader(device="cuda", batch_size=4)
        construct = made.constructor.construct_batch

        def own(*arguments, **options):
            batch = construct(*arguments, **options)
            return batch._replace(input=batch.input.copy())

        monkeypatch.setattr(made.constructor, "construct_batch", own)
        with cupy.cuda.Stream(non_blocking=True) as reader:
            batches = iter(made)
            gpu.log.clear()
            batch = next(batches)
            (launched,) = {a.stream for a in gpu.log if a.kind == "launch"}
            copies = [
                i for i, a in enumerate(gpu.log) if (a.kind, a.stream) == ("copy", reader.ptr)
            ]
            waits = [
                i
                for i, a in enumerate(gpu.log)
                if a.kind == "wait_event" and a.stream == launched and a.what.place[0] is reader
            ]
            assert len(copies) == 1
            assert copies[0] < waits[-1]
            assert_equal_batches(batch, next(iter(loader(batch_size=4))))


@needs_compiler
def test_all_iterations_share_a_stream():
    with fake_cupy.installed():
        made = loader(device="cuda", batch_size=4)
        for _ in range(3):
            next(iter(made))
        assert len({a.stream for a in gpu.log if a.kind == "launch"}) == 1


@needs_compiler
def test_errors_of_batches_ahead_come_at_their_turn(monkeypatch):
    with fake_cupy.installed():
        made = loader(device="cuda", batch_size=4)
        construct = made.constructor.construct_batch
        calls = itertools.count(-1)  # the rehearsal of the first

        def failing(*arguments, **options):
            if next(calls) == 3:
                raise RuntimeError("broken")
            return construct(*arguments, **options)

        monkeypatch.setattr(made.constructor, "construct_batch", failing)
        batches = iter(made)
        for _ in range(3):
            next(batches)
        with pytest.raises(RuntimeError, match="broken"):
            next(batches)


@needs_compiler
def test_a_launch_and_an_upload_per_batch():
    with fake_cupy.installed():
        made = loader(device="cuda", batch_size=4, prefetch=1)
        list(made)
        gpu.log.clear()
        n = sum(1 for _ in made)
        assert gpu.count("launch") == gpu.count("upload") == n
        assert gpu.count("download") == gpu.count("synchronize") == 0


# ---- wrong arguments ---------------------------------------------------------------------------

WRONG = {
    "batch_size": [(0, ValueError), (1.5, ValueError), ("4", TypeError), (True, TypeError)],
    "shuffle": [(1, TypeError), (None, TypeError)],
    "order": [("random", ValueError), (None, TypeError)],
    "window": [(0, ValueError), (1.5, ValueError), ("1", TypeError)],
    "seed": [(-1, ValueError), (2**64, ValueError), (0.5, ValueError)],
    "drop_last": [("no", TypeError)],
    "rank": [(1, ValueError), (-1, ValueError), (None, TypeError)],
    "world_size": [(0, ValueError), (2.0, ValueError), (10_000, ValueError)],
    "prefetch": [(-1, ValueError), ("2", TypeError)],
}


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [(name, value, error) for name, rows in WRONG.items() for value, error in rows],
)
def test_wrong_arguments(name, value, error):
    with pytest.raises(error, match=name):
        loader(**{name: value})


def test_ranks_need_one_seed():
    assert loader(seed=None).seed != loader(seed=None).seed
    with pytest.raises(ValueError, match="seed must be a number where world_size > 1"):
        loader(seed=None, world_size=2)


def test_nothing_left_of_an_epoch_is_an_error():
    n = loader().constructor.n_patches
    with pytest.raises(ValueError, match=rf"drop_last is True, but {n} patches are less than one "
                       rf"batch of {n + 1}: "):  # fmt: skip
        loader(batch_size=n + 1, drop_last=True)
    with pytest.raises(ValueError, match=r"batch of .* on each of 2 ranks"):
        loader(batch_size=n // 2 + 1, drop_last=True, rank=0, world_size=2)
    exact = loader(batch_size=n, drop_last=True)
    assert len(epoch_of(exact)) == n
    assert len(loader(batch_size=n + 1)) == 1
    # at the end of an epoch there is nothing left, which is no error
    part = loader(batch_size=n - 1, drop_last=True)
    next(iter(part))
    again = loader(batch_size=n - 1, drop_last=True)
    again.load_state_dict(part.state_dict())
    again.load_state_dict({**loader().state_dict(), "position": 2})
    assert list(again) == []
    assert len(epoch_of(again)) == n - 1


def test_a_strategy_that_lost_its_patches_later():
    images = PatchExtractor([ImageStack.from_array(np.zeros((32, 32)), "YX", device="cpu")])
    strategy = StratifiedPatching(images.shapes, (8, 8), seed=0)
    made = BatchLoader(BasicPatchConstr(strategy, images), 8, drop_last=True)
    assert list(made)
    strategy.exclude_patches(0, 0, [(y, x) for y in range(4) for x in range(3)])
    assert strategy.n_patches < 8
    with pytest.raises(ValueError, match="drop_last is True, but"):
        next(iter(made))


# ---- one of several processes ------------------------------------------------------------------


def test_no_rank_in_one_of_several_processes_is_said(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.warns(UserWarning, match=r"one of 4, but rank and world_size are not given: all of "
                      r"them see the same") as caught:  # fmt: skip
        made = loader()
    assert len(caught) == 1
    assert (made.rank, made.world_size) == (0, 1)
    # whoever gives them knows
    loader(rank=2, world_size=4)
    loader(rank=0, world_size=1)
    loader(rank=0)
    loader(world_size=1)
    for value in ("1", "", "no number"):
        monkeypatch.setenv("WORLD_SIZE", value)
        loader()


@pytest.mark.parametrize(("available", "initialised", "size", "told"),
                         [(True, True, 3, 3), (True, True, 1, 1), (True, False, 3, 2),
                          (False, True, 3, 2)])  # fmt: skip
def test_process_group_of_torch(available, initialised, size, told, monkeypatch):
    group = SimpleNamespace(is_available=lambda: available, is_initialized=lambda: initialised,
                            get_world_size=lambda: size)  # fmt: skip
    monkeypatch.setitem(sys.modules, "torch.distributed", group)
    monkeypatch.setenv("WORLD_SIZE", "2")  # which the group knows better
    assert n_processes() == told
    if told > 1:
        with pytest.warns(UserWarning, match=f"this process is one of {told}, but rank"):
            loader()
    else:
        loader()


def test_a_share_of_the_patches_is_told_from_all_of_them():
    generator = np.random.default_rng(0)
    for n_patches, n in ((1000, 2), (999, 3), (4000, 8)):
        every = Share(n_patches, n)
        exceeded = [every.is_exceeded(part) for part in np.array_split(
            generator.permutation(n_patches), 40)]  # fmt: skip
        assert not any(exceeded[: 40 // n])
        assert exceeded[-1]
        part = Share(n_patches, n)
        for _ in range(50):  # epochs, that nobody tells
            mine = generator.permutation(n_patches)[::n]
            assert not any(part.is_exceeded(some.tolist()) for some in np.array_split(mine, 7))
    # the same few again and again
    few = Share(1000, 2)
    assert not any(few.is_exceeded(range(400)) for _ in range(9))


def test_an_order_that_is_random_and_not():
    with pytest.raises(ValueError, match="order is 'blocks', which is random, but shuffle is"):
        loader(order="blocks", shuffle=False)


@pytest.mark.parametrize("order", ["by_image", "blocks"])
def test_orders_are_exact_for_ranks_and_when_resumed(order):
    whole = epoch_of(loader(order=order))
    assert sorted(whole) == sorted(epoch_of(loader()))
    ranks = [loader(batch_size=3, rank=r, world_size=2, order=order) for r in range(2)]
    seen = [p for rank in ranks for batch in itertools.islice(rank, 2) for p in pixels(batch)]
    others = [loader(batch_size=2, rank=r, world_size=3, order=order) for r in range(3)]
    for other in others:
        other.load_state_dict(ranks[0].state_dict())
    assert sorted(seen + epoch_of(*others)) == sorted(whole)
    one = loader(order=order)
    one.load_state_dict(ranks[0].state_dict())
    assert epoch_of(one) == whole[12:]


def test_wrong_constructor():
    with pytest.raises(TypeError, match="constructor must be one of gpu_patch's constructors"):
        BatchLoader(make_sample("basic"), 4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"version": 3}, ValueError, "version 3, this is 2"),
        ({"strategies": 3}, ValueError, "3 strategies, this one has 1"),
        ({"strategies": [{"class": "TiledPatching"}]}, ValueError, "lacks the keys"),
        ({"n_patches": 3}, ValueError, "state is of 3 patches, the constructor has"),
        ({"position": -1}, ValueError, "position"),
        ({"position": 10_000}, ValueError, "position"),
        ({"epoch": "1"}, TypeError, "epoch"),
        ({"seed": None, "epoch": -1}, ValueError, "epoch"),
        ({"constructor_seed": 12345}, ValueError, "seed=12345, this one has .* when it is made"),
    ],
)
def test_wrong_states_change_nothing(change, error, message):
    made, expected = loader(), epoch_of(loader())
    with pytest.raises(error, match=message):
        made.load_state_dict({**made.state_dict(), **change})
    assert epoch_of(made) == expected


def test_states_without_a_key():
    made = loader()
    state = made.state_dict()
    del state["position"]
    with pytest.raises((TypeError, ValueError, KeyError), match="position"):
        made.load_state_dict(state)


def test_too_few_patches_left_for_the_ranks():
    made = loader(batch_size=1, rank=0, world_size=3)
    n = made.constructor.n_patches
    with pytest.raises(ValueError, match="1 patches are too few for world_size = 3"):
        made.load_state_dict({**made.state_dict(), "position": n - 1})


def test_strategies_that_draw_in_sequence_serve_one_process_alone():
    images = make_sample("pred").constructor.input_extractor
    foreign = Foreign(gpu_patch.SequentialPatching(images.shapes, (4, 4)))
    made = gpu_patch.PredMsPatchConstr(foreign, images, 2, "reflect")
    assert len(list(BatchLoader(made, 50)))
    with pytest.raises(ValueError, match="world_size is 2, but the constructor has a strategy"):
        BatchLoader(made, 50, world_size=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"normalization": "stats.json"}, "target_scale.*'stats.json': Normalization.load reads"),
        ({"normalization": 3.0}, "normalization must have input_scale.*found 3.0$"),
        ({"augmentation": True}, "augmentation must be an Augmentation or None, found True"),
    ],
)
def test_what_an_epoch_cannot_use_is_refused_before_it(options, words):
    with pytest.raises(TypeError, match=words):
        loader(batch_size=4, **options)

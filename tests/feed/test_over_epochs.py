"""Over the end of an epoch: the next is planned and begun while one ends, and nobody can tell."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import pickle
import weakref

import numpy as np
import pytest
from chunk_readers import ArrayReader
from emulation import fake_cupy
from emulation.runtime import available
from pixels import distinct
from reference import on_host
from samples import Foreign

import gpu_patch
from gpu_patch.augmentation import Augmentation
from gpu_patch.chunks import image as chunk_image
from gpu_patch.feed import BatchLoader, Normalization
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.pages import PageCache
from gpu_patch.pages.pool import UNPLANNED

SHAPES = [(2, 2, 90, 110), (1, 2, 60, 130)]
sweeps = pytest.mark.filterwarnings("ignore:order=.sweep. has memory")


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(chunk_image, "_LEAST_BYTES", 0)


def pixels():
    return [distinct(shape, "uint16", i) for i, shape in enumerate(SHAPES)]


def resident(device="cpu"):
    return PatchExtractor([ImageStack.from_array(a, "SCYX", device=device) for a in pixels()])


def paged(share=0.4, device="cpu", reader=ArrayReader):
    cache = PageCache(int(share * sum(a.nbytes for a in pixels())), device)
    return PatchExtractor(
        [ImageStack.by_chunk(reader(a, (1, 2, 16, 24)), cache=cache) for a in pixels()]
    )


def constructor(images, prob=0.2):
    made = gpu_patch.StratifiedPatching(images.shapes, (16, 16), seed=5)
    ranges = [(0.2, 1)] * 2
    return gpu_patch.MultiChannelTargetMsPatchConstr(
        made, images, 2, "reflect", ranges, prob, seed=4
    )


def taken(batch):
    target = b"" if batch.target is None else on_host(batch.target).tobytes()
    return on_host(batch.input).tobytes(), target, list(batch.specs)


def contents(loader):
    return [taken(batch) for batch in loader]


def expected(loader, epoch):
    """The batches of an epoch, by a loader that has made none ahead."""
    again = copy.copy(loader)
    again._run = None
    again.prefetch = 0
    again.set_epoch(epoch)
    return contents(again)


def made_by(loader, monkeypatch):
    """The epochs of the batches that its constructor makes from now on."""
    epochs, construct = [], loader.constructor.construct_batch

    def counted(indices, *, epoch, **options):
        epochs.append(epoch)
        return construct(indices, epoch=epoch, **options)

    monkeypatch.setattr(loader.constructor, "construct_batch", counted)
    return epochs


OPENED = {"resident": resident, "paged": paged}


@sweeps
@pytest.mark.parametrize("prefetch", [0, 1, 3, 100])
@pytest.mark.parametrize("order", ["shuffle", "sweep", "blocks"])
@pytest.mark.parametrize("opened", OPENED)
def test_epochs_are_the_same(opened, order, prefetch):
    loader = BatchLoader(constructor(OPENED[opened]()), 7, order=order, prefetch=prefetch)
    for epoch in range(3):
        assert loader.epoch == epoch
        assert contents(loader) == expected(loader, epoch)


@pytest.mark.skipif(not available(), reason="needs a C++ compiler")
@sweeps
@pytest.mark.parametrize("opened", OPENED)
def test_epochs_are_the_same_on_a_device(opened):
    with fake_cupy.installed():
        loader = BatchLoader(constructor(OPENED[opened](device="cuda")), 9, order="sweep")
        for epoch in range(2):
            assert contents(loader) == expected(loader, epoch)


@pytest.mark.parametrize("opened", OPENED)
def test_batches_of_the_next_epoch_are_made_while_one_ends(opened, monkeypatch):
    loader = BatchLoader(constructor(OPENED[opened]()), 8, prefetch=2)
    epochs = made_by(loader, monkeypatch)
    contents(loader)
    assert epochs == [0] * len(loader) + [1, 1]
    first = next(iter(loader))
    assert epochs[len(loader) :][:2] == [1, 1]
    assert taken(first) == expected(loader, 1)[0]


@sweeps
def test_pages_of_the_next_epoch_are_read_while_one_ends():
    images = paged(0.6)
    loader = BatchLoader(constructor(images, 0.0), 2, order="sweep", prefetch=0)
    contents(loader)
    pool, run = images.cache.pool, loader._run
    (schedule,) = run._batches.gi_frame.f_locals["making"]._next.feed._schedules.values()
    assert (pool.table[schedule.page[schedule.of(0)]] >= 0).all()
    coming = pool.next_use[pool.table[pool.table >= 0]] < UNPLANNED // 4
    assert coming.sum() > pool.n_slots // 2
    before = images.cache.traffic.misses
    assert contents(loader) == expected(loader, 1)
    del loader, run
    gc.collect()
    assert before
    assert (pool.next_use > UNPLANNED // 2).all()  # nothing is expected any more


NORMALIZATION = Normalization.mean_std([3.0], [2.0], [1.0, 2.0], [2.0, 3.0])
CHANGES = {
    "epoch": lambda loader: loader.set_epoch(5),
    "seed": lambda loader: setattr(loader, "seed", 9),
    "batch_size": lambda loader: setattr(loader, "batch_size", 5),
    "drop_last": lambda loader: setattr(loader, "drop_last", True),
    "prefetch": lambda loader: setattr(loader, "prefetch", 1),
    "augmentation": lambda loader: setattr(loader, "augmentation", Augmentation()),
    "dtype": lambda loader: setattr(loader, "dtype", np.float16),
    "probability": lambda loader: setattr(loader.constructor, "uncorrelated_channel_prob", 0.9),
    "ranks": lambda loader: loader.__dict__.update(rank=1, world_size=2),
    "state": lambda loader: loader.load_state_dict({**loader.state_dict(), "position": 12}),
    "excluded": lambda loader: loader.constructor.patching_strategy.exclude_patches(0, 0, [(1, 1)]),
    "normalization": lambda loader: setattr(loader, "normalization", NORMALIZATION),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_between_epochs_holds_from_the_next_batch_on(change):
    loader = BatchLoader(constructor(resident()), 8, prefetch=2)
    contents(loader)
    change(loader)
    begun, state = loader._run, loader.state_dict()
    assert begun is not None
    found = contents(loader)
    assert loader._run is not begun
    other = BatchLoader(loader.constructor, loader.batch_size, prefetch=0)
    other.__dict__.update({**loader.__dict__, "_run": None, "prefetch": 0})
    other.load_state_dict({**state, **other._sorting.state()})
    assert found == contents(other)


def test_what_does_not_change_goes_on():
    loader = BatchLoader(constructor(resident()), 8, prefetch=2)
    contents(loader)
    begun = loader._run
    loader.set_epoch(1)
    loader.load_state_dict(loader.state_dict())
    assert contents(loader) == expected(loader, 1)
    assert loader._run is begun


@sweeps
@pytest.mark.parametrize("opened", OPENED)
def test_states_are_of_the_batch_in_hand(opened):
    loader = BatchLoader(constructor(OPENED[opened]()), 6, order="sweep", prefetch=3)
    contents(loader)
    epoch = expected(loader, 1)
    for n_taken in (0, 4, len(epoch)):
        loader.set_epoch(1)
        batches = iter(loader)
        assert [taken(batch) for batch in itertools.islice(batches, n_taken)] == epoch[:n_taken]
        state = loader.state_dict()
        del batches
        assert state["epoch"] == (1 if n_taken < len(epoch) else 2)
        again = BatchLoader(constructor(OPENED[opened]()), 6, order="sweep", prefetch=1)
        again.load_state_dict(state)
        rest = epoch[n_taken:] or expected(loader, 2)
        assert contents(again) == rest
        assert contents(again) == expected(loader, state["epoch"] + 1)


def test_who_counts_batches_does_not_ask_for_one_more():
    loader = BatchLoader(constructor(resident()), 8, prefetch=2)
    for epoch in range(3):
        found = [taken(batch) for batch in itertools.islice(loader, len(loader))]
        assert found == expected(loader, epoch)
        assert loader._run is not None


class Failing(ArrayReader):
    """Fails where it is told to."""

    bad = False

    def read(self, region, out):
        if self.bad:
            raise OSError("the disk is on fire")
        super().read(region, out)


@sweeps
@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("order", ["shuffle", "sweep"])
def test_errors_of_the_next_epoch_come_in_it(order, prefetch):
    loader = BatchLoader(constructor(paged(0.4, reader=Failing)), 8, order=order, prefetch=prefetch)
    readers = [s.data.reader for s in loader.constructor.target_extractor.image_stacks]
    assert contents(loader) == expected(loader, 0)
    for reader in readers:
        reader.bad = True
    with pytest.raises(OSError, match="the disk is on fire"):
        contents(loader)
    for reader in readers:
        reader.bad = False
    assert loader.epoch == 1
    assert contents(loader) == expected(loader, 1)
    pool = loader.constructor.target_extractor.cache.pool
    assert pool.pins.sum() == len(pool._readings)


def test_an_epoch_that_cannot_be_planned_is_an_error_of_its_own():
    loader = BatchLoader(constructor(resident()), 8, prefetch=2, drop_last=True)
    strategy = loader.constructor.patching_strategy
    cells = strategy.get_all_grid_coords()
    for i, batch in enumerate(loader):
        assert batch.input.shape[0] == 8
        if i == len(loader) - 4:
            for data_idx, (n_samples, *_) in enumerate(SHAPES):
                for s in range(n_samples):
                    strategy.exclude_patches(data_idx, s, cells[data_idx, s])
            break
    with pytest.raises(ValueError, match="nothing is left"):
        next(iter(loader))


def test_copies_and_forks_make_their_own():
    loader = BatchLoader(constructor(resident()), 8, prefetch=2)
    contents(loader)
    again = pickle.loads(pickle.dumps(loader))
    assert again._run is None
    if hasattr(os, "fork"):
        child = os.fork()
        if not child:
            same = contents(loader) == expected(loader, 1)
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert contents(loader) == contents(again)


def test_images_do_not_outlive_a_loader():
    images = resident()
    loader = BatchLoader(constructor(images), 8, prefetch=2)
    contents(loader)
    alive = weakref.ref(loader), weakref.ref(loader.constructor)
    gc.disable()
    try:
        del loader
        assert [each() for each in alive] == [None, None]
    finally:
        gc.enable()


def test_draws_in_sequence_are_not_made_ahead(monkeypatch):
    images = resident()
    own = Foreign(gpu_patch.SequentialPatching(images.shapes, (16, 16)))
    loader = BatchLoader(gpu_patch.BasicPatchConstr(own, images), 8, prefetch=2)
    epochs = made_by(loader, monkeypatch)
    contents(loader)
    assert loader._run is None
    assert set(epochs) == {0}

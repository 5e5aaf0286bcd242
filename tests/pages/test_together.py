"""Pages, loader and prediction together: whatever fails, leaves and goes on, results are the same.

A story opens images in some way, and then takes batches, makes others beside them, has pages leave
and reads fail, changes the order, saves and loads, predicts, is interrupted and goes on.
"""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from paged_world import N_EPOCHS, PATCH, loader_of, order_of, worlds
from paging import assert_page_is_right, assert_table_and_slots_agree, pins_of_reads
from predict_contents import contents, parts

import gpu_patch
from gpu_patch.chunks import image as chunk_image
from gpu_patch.feed.sorting import ORDERS

pytest.importorskip("zarr")
pytest.importorskip("tifffile")

from gpu_patch.predict.outputs.files import FileOutput
from gpu_patch.predict.outputs.ome_zarr.chunk_store import EndingStore

N_STORIES = 20
ORDER = st.sampled_from(["sequential", *ORDERS])
SIZE, AHEAD = st.integers(1, 9), st.sampled_from([0, 2])
SHARES = st.floats(0, 1, exclude_max=True)
INTERRUPTS = (RuntimeError, KeyboardInterrupt)


def bits(batch):
    target = None if batch.target is None else batch.target.tobytes()
    return batch.input.tobytes(), target, list(batch.specs)


class Together(RuleBasedStateMachine):
    """A story. Nothing drawn depends on what happens: threads may be faster the next time."""

    @initialize(world=worlds(), order=ORDER, size=SIZE, ahead=AHEAD)
    def open(self, world, order, size, ahead):
        self.world, self.resident = world, world.resident()
        self.undisturbed = world.paged()
        self.orders, self.predicted, self.saved = {}, {}, None
        self.folder = Path(tempfile.mkdtemp())
        self.opened, self.old = world.paged(), []
        self.begin(order, size, ahead)

    # what the loader gives

    def begin(self, order, size, ahead):
        """A new loader, at the beginning of an epoch."""
        self.batches, self.order, self.size, self.ahead = None, order, size, ahead
        self.loader = self.opened.loader(size, order, ahead)
        self.epoch = self.position = 0
        self.goes_on = True

    def leave(self):
        """End the iteration that goes on."""
        if self.batches is not None:
            self.batches.close()
        self.batches, self.goes_on = None, False

    def expected_order(self):
        key = self.order, self.epoch
        if key not in self.orders:
            # resident images are not swept; there other pages tell the order, that nobody disturbs
            made = self.undisturbed.constructor if self.order == "sweep" else self.resident
            self.orders[key] = order_of(loader_of(made, self.size, self.order), self.epoch)
            assert sorted(self.orders[key]) == list(range(self.resident.n_patches))
        return self.orders[key]

    def take(self):
        """The next batch is that of the resident images, or an error says which chunk failed."""
        if self.batches is None:
            self.batches = iter(self.loader)
            self.position *= self.goes_on
        if self.position == self.resident.n_patches:
            assert next(self.batches, None) is None
            self.leave()
            self.epoch, self.position = self.epoch + 1, 0
            if self.epoch == N_EPOCHS:
                self.begin(self.order, self.size, self.ahead)
            return
        indices = self.expected_order()[self.position : self.position + self.size]
        try:
            batch = next(self.batches)
        except OSError as error:
            self.assert_failed(error)
            assert next(self.batches, None) is None
            self.leave()
            return
        expected = self.resident.construct_batch(indices.tolist(), epoch=self.epoch)
        assert bits(batch) == bits(expected)
        self.position += len(indices)

    def assert_failed(self, error):
        """An error names a chunk that failed twice on end."""
        places = {f"chunk {place}" for reader in self.opened.readers for place in reader.twice}
        assert str(error) in places, (error, places)

    @rule(n=st.integers(1, 4))
    def take_some(self, n):
        for _ in range(n):
            self.take()

    @rule(order=ORDER, size=SIZE, ahead=AHEAD, epoch=st.integers(0, 2))
    def change_the_order(self, order, size, ahead, epoch):
        self.leave()
        self.begin(order, size, ahead)
        self.loader.set_epoch(epoch)
        self.epoch = epoch

    @rule()
    def save(self):
        state = json.loads(json.dumps(self.loader.state_dict()))
        over = self.position == self.resident.n_patches
        if over and self.epoch == N_EPOCHS - 1:
            return
        epoch, position = (self.epoch + 1, 0) if over else (self.epoch, self.position)
        assert (state["epoch"], state["position"]) == (epoch, position)
        self.saved = state, self.order, epoch, position

    @rule(size=SIZE, ahead=AHEAD, anew=st.booleans())
    def load(self, size, ahead, anew):
        """Into a loader over images that are opened anew, or over the same."""
        if self.saved is None:
            return
        self.leave()
        if anew:
            self.old.append(self.opened)
            self.opened = self.world.paged()
        state, order, epoch, position = self.saved
        self.begin(order, size, ahead)
        self.loader.load_state_dict(state)
        self.epoch, self.position = epoch, position

    # what happens beside

    @rule(shares=st.lists(SHARES, min_size=1, max_size=6), epoch=st.integers(0, 1))
    def construct(self, shares, epoch):
        """A batch that no loader asks for."""
        indices = [int(share * self.resident.n_patches) for share in shares]
        try:
            batch = self.opened.constructor.construct_batch(indices, epoch=epoch)
        except OSError as error:
            self.assert_failed(error)
            return
        assert bits(batch) == bits(self.resident.construct_batch(indices, epoch=epoch))

    @rule(shares=st.lists(SHARES, min_size=1, max_size=12))
    def evict(self, shares):
        """Hold pages of one pool, for which others leave."""
        pages = [self.opened.pages[int(share * len(self.opened.pages))] for share in shares]
        pool = pages[0][0]
        of_pool = {page: image for each, image, page in pages if each is pool}
        wanted = np.array(sorted(list(of_pool)[: pool.n_slots]))
        try:
            with pool.hold(wanted):
                for page in wanted.tolist():
                    pixels = self.opened.pixels[of_pool[page].number]
                    assert_page_is_right(pool, of_pool[page], pixels, page)
        except OSError as error:
            self.assert_failed(error)

    @rule(shares=st.lists(SHARES, min_size=1, max_size=5), times=st.integers(1, 4))
    def reads_will_fail(self, shares, times):
        for share in shares:
            _, image, page = self.opened.pages[int(share * len(self.opened.pages))]
            place = tuple(part.start for part in image.region(page))
            self.opened.images[image.number].reader.failures[place] = times

    @rule()
    def heal(self):
        for reader in self.opened.readers:
            reader.failures.clear()

    # predictions

    def predict(self, images, out, kind, model=lambda tiles: 3 * tiles + 1):
        options = {"tile_size": PATCH[self.world.n_dims], "overlaps": (1,) * self.world.n_dims}
        if kind == "ome-zarr":
            options |= {"chunk_size": (3, 8, 8)[-self.world.n_dims :], "resume": True}
        else:
            options |= {"overwrite": True}
        gpu_patch.predict(
            images, model, out=out, format=kind, batch_size=4, model_id="one", progress=False,
            **options,
        )  # fmt: skip

    def whole(self, kind):
        """The bytes of a prediction that nobody disturbs."""
        if kind not in self.predicted:
            out = self.folder / f"{kind} undisturbed"
            self.predict(self.undisturbed.extractor, out, kind)
            self.predicted[kind] = contents(out)
            opened = gpu_patch.open_images(out, device="cpu", progress=False).image_stacks
            images = self.resident.sampling.principal.extractor.image_stacks
            for found, image in zip(opened, images, strict=True):
                expected = 3 * image.data.astype(np.float32) + 1
                np.testing.assert_array_equal(np.reshape(found.data, expected.shape), expected)
        return self.predicted[kind]

    @rule(
        kind=st.sampled_from(["ome-zarr", "ome-tiff"]),
        broken_at=st.none() | st.integers(0, 12),
        unwritten_at=st.none() | st.integers(0, 12),
        interrupt=st.sampled_from(INTERRUPTS),
        beside=st.booleans(),
    )
    def predict_or_go_on(self, kind, broken_at, unwritten_at, interrupt, beside):
        """Begin a prediction, or go on with one, up to an error or to its end."""
        whole, out, calls = self.whole(kind), self.folder / kind, itertools.count()

        def model(tiles):
            if next(calls) == broken_at:
                raise interrupt("broken")
            if beside:
                self.take()
            return 3 * tiles + 1

        is_whole = out.exists() and contents(out) == whole
        failing = nullcontext() if unwritten_at is None else no_room(unwritten_at)
        try:
            with failing:
                self.predict(self.opened.extractor, out, kind, model)
        except (*INTERRUPTS, OSError) as error:
            if isinstance(error, OSError) and "no room" not in str(error):
                self.assert_failed(error)
            found = parts(contents(out)) if out.exists() else {}
            assert all(files == parts(whole)[name] for name, files in found.items())
            return
        assert contents(out) == whole
        if is_whole and kind == "ome-zarr":
            assert next(calls) == 0
            shutil.rmtree(out)

    # what holds at any time

    @invariant()
    def slots_are_kept_well(self):
        for opened in (self.opened, *self.old):
            for pool in opened.pools:
                with pool._changed:
                    assert_table_and_slots_agree(pool)
                    reads = pins_of_reads(pool)
                    assert (pool.pins >= reads).all()
                    # where batches are made ahead, they may hold pages now
                    assert self.ahead or pool.pins.tolist() == reads.tolist()
                    for image in pool.paged.values():
                        of_image = pool.table[image.base : image.base + image.n_pages] >= 0
                        for page in (image.base + np.flatnonzero(of_image)).tolist():
                            if page not in pool._readings:
                                pixels = opened.pixels[image.number]
                                assert_page_is_right(pool, image, pixels, page)

    def teardown(self):
        if not hasattr(self, "folder"):
            return
        self.leave()
        shutil.rmtree(self.folder)
        self.ahead = 0
        self.slots_are_kept_well()
        for pool in (pool for opened in (self.opened, *self.old) for pool in opened.pools):
            pool.forget()
            for begun in list(pool._readings.values()):
                with suppress(OSError):
                    begun.reading.result()
            with pool._changed:
                pool._settle_ended()
            assert not pool.pins.any()


def no_room(after):
    """Writing fails once so many pieces are written."""
    left = itertools.count()

    def failing(write):
        def writing(*arguments, **options):
            if next(left) >= after:
                raise OSError("no room")
            return write(*arguments, **options)

        return writing

    stack = ExitStack()
    for owner, name in ((EndingStore, "set"), (FileOutput, "write")):
        stack.enter_context(mock.patch.object(owner, name, failing(getattr(owner, name))))
    return stack


def test_stories(monkeypatch, request):
    """Some here, always the same; ``--stories 1000`` tells others, and shortens one that fails."""
    monkeypatch.setattr(chunk_image, "_LEAST_BYTES", 0)
    n_stories = request.config.getoption("--stories")
    phases = [Phase.generate, Phase.shrink] if n_stories else [Phase.generate]
    run_state_machine_as_test(
        Together,
        settings=settings(
            max_examples=n_stories or N_STORIES,
            stateful_step_count=40,
            derandomize=not n_stories,
            deadline=None,
            phases=phases,
        ),
    )

"""The pool against a model: pages that are held are there and right, whatever fails and leaves."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress

import hypothesis.strategies as st
import numpy as np
import pytest
from chunk_readers import ArrayReader
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from paging import (
    Lazily,
    LazyReader,
    assert_page_is_right,
    assert_table_and_slots_agree,
    pins_of_reads,
)
from pixels import distinct

from gpu_patch.chunks import ChunkedImage
from gpu_patch.pages import PageCache
from gpu_patch.pages.schedule import NEVER, Schedule


class Pool(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.pixels = [distinct((1, 1, 12, 6), "uint8"), distinct((2, 1, 5, 9), "uint8", 1)]
        self.cache = PageCache(6 * 16)
        self.images = [
            ChunkedImage(ArrayReader(a, (1, 1, 3, 4)), self.cache, "image") for a in self.pixels
        ]
        for image in self.images:
            image.chunk_shape = (1, 1, 3, 4)
        self.pool = self.cache.pool
        self.pool._reader = self.reader = LazyReader()
        self.held, self.n_holds = {}, 0

    pages = st.lists(st.integers(0, 17), min_size=1, max_size=4, unique=True).map(
        lambda pages: np.array(sorted(pages))
    )

    def room_for(self, pages):
        """Whether a hold of more pages need not wait for another."""
        held = {int(p) for each in self.held.values() for p in each[1]}
        return len(held | set(pages.tolist())) <= self.pool.n_slots

    @rule(pages=pages, known=st.booleans())
    def hold(self, pages, known):
        if not self.room_for(pages):
            return
        stack = ExitStack()
        gaps = np.arange(len(pages)) + 1 if known else None
        failing = sum(self.reader.outcomes)
        try:
            stack.enter_context(self.pool.hold(pages, gaps))
        except OSError:
            assert failing or any(each.fails for each in self.reader.begun)
            return
        self.n_holds += 1
        self.held[self.n_holds] = (stack, pages)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def let_go(self, data):
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.held.pop(key)[0].close()

    @rule(pages=pages, horizon=st.integers(0, 5))
    def read_ahead(self, pages, horizon):
        there = self.pool.read_ahead(pages, np.arange(len(pages)), horizon)
        assert (self.pool.table[pages][there] >= 0).all()

    @rule(pages=pages)
    def expect(self, pages):
        self.pool.expect(pages, np.arange(len(pages)))

    @rule()
    def forget(self):
        self.pool.forget()

    @rule(how=st.sampled_from(["when waited for", "at once", "copies"]))
    def reads_happen(self, how):
        self.reader.how = how

    @rule(outcomes=st.lists(st.booleans(), max_size=4))
    def reads_will(self, outcomes):
        self.reader.outcomes = outcomes

    @rule(data=st.data())
    def a_read_ends(self, data):
        begun = [each.reading for each in self.pool._readings.values()]
        waiting = [each for each in begun if isinstance(each, Lazily) and not each.over]
        if waiting:
            read = data.draw(st.sampled_from(waiting))
            with suppress(OSError):
                read.result()

    @invariant()
    def the_table_and_the_slots_agree(self):
        assert_table_and_slots_agree(self.pool)
        n_mapped = np.count_nonzero(self.pool.table >= 0)
        assert len(self.pool._free) + n_mapped == self.pool.n_slots

    @invariant()
    def pins_are_those_of_holders_and_reads(self):
        pool = self.pool
        expected = pins_of_reads(pool)
        for _, pages in self.held.values():
            expected[pool.table[pages]] += 1
        assert pool.pins.tolist() == expected.tolist()

    @invariant()
    def what_is_held_is_right(self):
        for _, pages in self.held.values():
            for page in pages.tolist():
                assert self.pool.table[page] >= 0
                paged = [self.pool.paged[image.number] for image in self.images]
                i = int(page >= paged[1].base)
                assert_page_is_right(self.pool, paged[i], self.pixels[i], page)

    def teardown(self):
        for stack, _ in self.held.values():
            stack.close()
        self.held.clear()
        self.the_table_and_the_slots_agree()
        self.pins_are_those_of_holders_and_reads()


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def small_cache(n_slots=4, n_pages=12):
    pixels = distinct((1, 1, 4 * n_pages, 4), "uint8")
    cache = PageCache(16 * n_slots)
    image = ChunkedImage(ArrayReader(pixels, (1, 1, 4, 4)), cache, "image")
    return pixels, cache, image


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr("gpu_patch.chunks.image._LEAST_BYTES", 0)


def test_the_page_that_is_needed_last_leaves(small_pages):
    _, cache, image = small_cache()
    pool = cache.pool
    with pool.hold(np.arange(4), np.array([5, 90, 7, 3])):
        pass
    with pool.hold(np.array([8])):
        pass
    assert np.flatnonzero(pool.table >= 0).tolist() == [0, 2, 3, 8]
    assert image.nbytes == 64


def test_without_a_plan_the_least_recently_used_leaves(small_pages):
    _, cache, image = small_cache()
    pool = cache.pool
    for page in (0, 1, 2, 3, 0, 2, 9, 10):
        with pool.hold(np.array([page])):
            pass
    assert np.flatnonzero(pool.table >= 0).tolist() == [0, 2, 9, 10]
    assert image.n_not_finite == 0


def test_too_many_pages(small_pages):
    _, cache, image = small_cache()
    with (
        pytest.raises(
            MemoryError,
            match=r"need 5 chunks of 16 .*: raise memory_budget to at least 80",
        ),
        cache.pool.hold(np.arange(5)),
    ):
        pass
    assert not cache.pool.pins.any()
    assert image.nbytes == 0


def test_threads_that_hold_more_than_half_wait_for_each_other(small_pages):
    pixels, cache, image = small_cache()
    pool, errors = cache.pool, []

    def run(seed):
        rng = np.random.default_rng(seed)
        try:
            for _ in range(150):
                pages = np.sort(rng.permutation(12)[:3])
                with pool.hold(pages):
                    for page in pages.tolist():
                        paged = pool.paged[image.number]
                        region = paged.region(page)
                        found = paged.part(region, paged.memory[pool.table[page]])
                        assert (found == pixels[region]).all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert pool.pins.sum() == len(pool._readings)


class Told:
    """A read that ends, well or not, when it is told to."""

    def __init__(self, out):
        self.out, self.over, self.error = out, threading.Event(), None

    def end(self, error=None):
        if error is None:
            self.out[...] = 7
        self.error = error
        self.over.set()

    def done(self):
        return self.over.is_set()

    def result(self):
        assert self.over.wait(60)
        if self.error is not None:
            raise self.error


class ToldReader:
    def __init__(self):
        self.begun = []

    def begin(self, image, region, out):
        self.begun.append(Told(out))
        return self.begun[-1]

    again = begin


def held_by_two(pool, n_begun, then):
    """What two threads that hold a page saw of it, where `then` is done after so many reads."""
    seen = []

    def run():
        try:
            with pool.hold(np.array([1])):
                slot = pool.table[1]
                seen.append(pool._images[0].memory[slot, :16].tolist())
        except OSError as error:
            seen.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    while pool.pins.max() < 2 + 1:  # both wait, and the read has its own
        time.sleep(0.001)
    then(pool._reader.begun)
    for thread in threads:
        thread.join(60)
    assert len(pool._reader.begun) == n_begun
    assert not pool._readings
    assert not pool.pins.any()
    return seen


@pytest.mark.parametrize(
    ("error", "seen"), [(None, [7] * 16), (OSError("second"), "second")], ids=["arrives", "fails"]
)
def test_whoever_waits_for_a_read_that_fails_waits_for_the_second(small_pages, error, seen):
    _, cache, _image = small_cache()
    pool = cache.pool
    pool._reader = ToldReader()

    def first_fails(begun):
        begun[0].end(OSError("first"))
        while len(begun) < 2:
            time.sleep(0.001)
        time.sleep(0.05)  # the other one may have looked by now
        begun[1].end(error)

    assert held_by_two(pool, 2, first_fails) == [seen] * 2


def test_what_is_not_copied_yet_leaves_and_is_forgotten(small_pages):
    pixels, cache, image = small_cache()
    pool = cache.pool
    pool._reader = LazyReader("copies")
    assert pool.read_ahead(np.arange(4), np.full(4, 9), 9).all()
    assert not pool.pins.any()
    with pool.hold(np.array([7, 8])):  # two of the four leave
        assert len(pool._readings) == 2
        for page in (7, 8):
            assert_page_is_right(pool, pool.paged[image.number], pixels, page)
    pool.forget()
    assert not pool._readings
    assert len(pool._free) == 2
    assert pool.read_ahead(np.arange(2), np.full(2, 1), 9).all()
    with pool.hold(np.arange(2)):
        for page in (0, 1):
            assert_page_is_right(pool, pool.paged[image.number], pixels, page)


def test_waits_are_counted(small_pages):
    _, cache, _image = small_cache()
    pool = cache.pool
    pool._reader = LazyReader("at once")
    with pool.hold(np.array([1, 2])):  # which are read now
        pass
    assert cache.traffic.waits == 1
    pool.read_ahead(np.array([3]), np.array([1]), 9)
    with pool.hold(np.array([2, 3])):
        pass
    assert cache.traffic.waits == 1


def test_a_schedule():
    step = np.array([0, 0, 1, 1, 3, 3, 0])
    page = np.array([5, 2, 2, 7, 5, 2, 5])
    found = Schedule(step, page, 4, 9)
    assert found.page.tolist() == [2, 5, 2, 7, 2, 5]
    assert found.gap.tolist() == [1, 3, 2, NEVER, NEVER, NEVER]
    assert [found.page[found.of(s)].tolist() for s in range(4)] == [[2, 5], [2, 7], [], [2, 5]]
    pages, first = found.first_uses()
    assert (pages.tolist(), first.tolist()) == ([2, 5, 7], [0, 0, 1])

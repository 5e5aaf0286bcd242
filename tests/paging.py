"""Pools of pages under test: reads that end, or fail, when told to; what holds of their slots."""

from __future__ import annotations

import threading
from contextlib import suppress

import numpy as np

from gpu_patch.pages.reading import Copying


class Lazily:
    """A read that happens when somebody waits for it, or when it is told to; it may fail."""

    def __init__(self, image, region, out, fails=False):
        self.image, self.region, self.out, self.fails = image, region, out, fails
        self.over, self._error, self._lock = False, None, threading.Lock()

    def done(self):
        return self.over

    def result(self):
        with self._lock:  # whoever else waits comes when it is over
            if not self.over:
                self._read()
                self.over = True
        if self._error is not None:
            raise self._error

    def _read(self):
        self.out[...] = 77  # what a failing read leaves behind
        try:
            if self.fails:
                raise OSError(f"chunk {self.region[2].start}")
            self.image.read_region(self.region, self.out)
        except OSError as error:
            self._error = error


class LazyReader:
    """Begins reads, of which the next few fail as they are told to.

    They happen when somebody waits for them, "at once", or are "copies".
    """

    def __init__(self, how="when waited for"):
        self.how = how
        self.outcomes = []
        self.begun = []

    def begin(self, image, region, out):
        fails = self.outcomes.pop() if self.outcomes else False
        read = Lazily(image, region, out, fails)
        self.begun.append(read)
        if self.how == "at once":
            with suppress(Exception):
                read.result()
        if self.how == "copies":
            return Copying(lambda at_once: not at_once and read.result() is None)
        return self.begun[-1]

    again = begin


def assert_table_and_slots_agree(pool):
    """No page is in two slots, no slot is free and taken, or free and in use."""
    mapped = np.flatnonzero(pool.table >= 0)
    assert pool._page_of[pool.table[mapped]].tolist() == mapped.tolist()
    assert np.count_nonzero(pool._page_of >= 0) == len(mapped)
    assert len(set(pool._free)) == len(pool._free)
    assert all(pool._page_of[slot] < 0 and not pool.pins[slot] for slot in pool._free)


def pins_of_reads(pool):
    """How often each slot is in use where nobody holds pages: once for a read on its way."""
    expected = np.zeros(pool.n_slots, int)
    for page in pool._readings:
        expected[pool.table[page]] += pool._readings[page].is_pinned
    return expected


def assert_page_is_right(pool, paged, pixels, page):
    """A page that has been read holds what the image has there."""
    region = paged.region(page)
    found = paged.part(region, paged.memory[pool.table[page]])
    np.testing.assert_array_equal(found, pixels[region])

"""Reading the pages of coming batches while others are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gpu_patch.pages import PagePool
from gpu_patch.pages.schedule import Schedule

Made = TypeVar("Made")

_AHEAD = 16
"""Batches whose pages are read ahead, as far as there is room."""

Needs = Mapping[PagePool, tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Of each pool, patches and beside them pages that they read; pairs may repeat."""


class PageFeed:
    """Holds the pages of the batch that is made, and has those of coming ones read meanwhile.

    Parameters
    ----------
    needs : mapping of PagePool to (array, array)
        What each patch of an epoch reads.
    step_of : array of int64
        The step that each patch is made at, −1 for none.
    n_steps : int
        Number of steps.
    """

    def __init__(self, needs: Needs, step_of: NDArray[np.int64], n_steps: int) -> None:
        self._n_steps = n_steps
        self._schedules: dict[PagePool, Schedule] = {}
        for pool in sorted(needs, key=id):  # in one order, or two threads could wait for each other
            patch, page = needs[pool]
            step = step_of[patch]
            made = step >= 0
            schedule = Schedule(step[made], page[made], n_steps, len(pool.table))
            self._schedules[pool] = schedule
            pool.expect(*schedule.first_uses())
        self._begun = dict.fromkeys(self._schedules, 0)

    def during(self, make: Callable[[int], Made]) -> Callable[[int], Made]:
        """Return `make`, which takes the number of a batch, with its pages held."""

        def making(step: int) -> Made:
            now = {pool: schedule.of(step) for pool, schedule in self._schedules.items()}
            if any(each.stop - each.start > pool.n_slots for pool, each in now.items()):
                return make(step)  # in parts, each of which reads for itself
            with ExitStack() as stack:
                for pool, schedule in self._schedules.items():
                    self._read_ahead(pool, schedule, step)
                    own = now[pool]
                    stack.enter_context(pool.hold(schedule.page[own], schedule.gap[own]))
                return make(step)

        return making

    def close(self) -> None:
        """Expect nothing more."""
        for pool in self._schedules:
            pool.forget()

    def _read_ahead(self, pool: PagePool, schedule: Schedule, step: int) -> None:
        last = min(step + _AHEAD, self._n_steps - 1)
        begun = max(self._begun[pool], schedule.of(step).start)
        coming = slice(begun, schedule.of(last).stop)
        if coming.start >= coming.stop:
            return
        there = pool.read_ahead(schedule.page[coming], schedule.step[coming] - step, last - step)
        missing = np.flatnonzero(~there)
        self._begun[pool] = coming.start + int(missing[0]) if len(missing) else coming.stop

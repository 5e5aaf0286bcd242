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

AHEAD = 16
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
            self._schedules[pool] = Schedule(step[made], page[made], n_steps, len(pool.table))
        self._begun = dict.fromkeys(self._schedules, 0)
        self._next: PageFeed | None = None

    def begin(self, steps: int = 0) -> None:
        """Expect the pages of all steps, the first of which is so many steps away."""
        for pool, schedule in self._schedules.items():
            pages, first = schedule.first_uses()
            pool.expect(pages, first + steps)

    def followed_by(self, other: PageFeed) -> None:
        """Go on with another feed behind the last step.

        Pages that it needs soon are read ahead, and those that it needs again stay. It is to begin.
        """
        self._next = other
        for pool in self._schedules.keys() & other._schedules.keys():
            self._schedules[pool].followed_by(other._schedules[pool])

    def during(self, make: Callable[[int], Made]) -> Callable[[int], Made]:
        """Return `make`, which takes the number of a batch, with its pages held."""

        def making(step: int) -> Made:
            holds = []
            for pool, schedule in self._schedules.items():
                own = schedule.of(step)
                if own.stop - own.start > pool.n_slots:
                    return make(step)  # in parts, each of which reads for itself
                self._read_ahead(pool, step)
                holds.append(pool.hold(schedule.page[own], schedule.gap[own]))
            if len(holds) == 1:
                with holds[0]:
                    return make(step)
            with ExitStack() as stack:
                for hold in holds:
                    stack.enter_context(hold)
                return make(step)

        return making

    def close(self) -> None:
        """Expect nothing more."""
        for pool in self._schedules:
            pool.forget()

    def _read_ahead(self, pool: PagePool, step: int) -> None:
        """Have pages read; `step` is negative where the first one is still to come."""
        schedule, last = self._schedules[pool], min(step + AHEAD, self._n_steps - 1)
        if last < 0:
            return
        begun = max(self._begun[pool], schedule.of(max(step, 0)).start)
        coming = slice(begun, schedule.of(last).stop)
        if coming.start < coming.stop:
            page, steps = schedule.page[coming], schedule.step[coming] - step
            there = pool.read_ahead(page, steps, last - step)
            missing = np.flatnonzero(~there)
            begun = coming.start + int(missing[0]) if len(missing) else coming.stop
            self._begun[pool] = begun
        is_all = begun == len(schedule.page)
        if is_all and self._next is not None and pool in self._next._schedules:
            self._next._read_ahead(pool, step - self._n_steps)

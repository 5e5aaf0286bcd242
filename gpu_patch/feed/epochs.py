"""Batches of one epoch after the other: the next is planned, and its first made, while one ends."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import inf
from threading import Condition
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.constructors import PatchConstr
from gpu_patch.constructors.plan import Plan
from gpu_patch.feed.ahead import made_ahead
from gpu_patch.feed.epoch_pages import EpochPages, is_known, n_pieces, planning, reading_ahead
from gpu_patch.feed.order import Division
from gpu_patch.feed.paging import AHEAD, PageFeed
from gpu_patch.feed.sorting import Sorting
from gpu_patch.specs import PatchBatch


@dataclass(frozen=True, eq=False)
class EpochSettings:
    """All that the batches of an epoch are a function of.

    Attributes
    ----------
    constructor : PatchConstr
        Makes the batches.
    sorting : Sorting
        Of the patches.
    division : Division
        Of the order.
    rank, seed, epoch, prefetch : int
        As those of `BatchLoader`.
    options : mapping
        What else `construct_batch` takes.
    """

    constructor: PatchConstr
    sorting: Sorting
    division: Division
    rank: int
    seed: int
    epoch: int
    prefetch: int
    options: Mapping[str, Any]

    @property
    def is_paged(self) -> bool:
        """Whether some of the images are read by page."""
        return is_known(self.constructor) and self.constructor.sampling.is_chunked

    @cached_property
    def spans(self) -> bool:
        """Whether something of the next epoch can be done before this one has ended."""
        return is_known(self.constructor) and (self.prefetch > 0 or self.is_paged)

    def following(self) -> EpochSettings:
        """Return those of the whole next epoch, if nothing changes."""
        division = replace(self.division, first=0, stop=self.constructor.n_patches)
        found = replace(self, epoch=(self.epoch + 1) % 2**32, division=division)
        assert found._content  # as it is now
        return found

    def equals(self, other: EpochSettings) -> bool:
        """Whether nothing has changed that a user may change between two epochs."""
        mine, others = self._content, other._content
        return (
            all(mine[name] == others[name] for name in ("values", "state"))
            and len(mine["objects"]) == len(others["objects"])
            and all(a is b for a, b in zip(mine["objects"], others["objects"], strict=True))
        )

    @cached_property
    def _content(self) -> dict[str, Any]:
        """What is compared by value, and what has to be the same object; of when it is asked."""
        own = {k: v for k, v in vars(self.constructor).items() if not k.startswith("_")}
        pools: list[Any] = []
        if is_known(self.constructor):
            channels = self.constructor.sampling.channels.values()
            for pages in (images.images.pages for part in channels for images, _ in part):
                pools += [] if pages is None else pages.pools()
        return {
            "values": (self.division, self.rank, self.seed, self.epoch, self.prefetch, list(own)),
            "state": self.sorting.state(),
            "objects": [self.constructor, *own.values(), *self.options.values(), *pools],
        }


class Epoch:
    """The batches of an epoch, whose order is decided.

    Parameters
    ----------
    settings : EpochSettings
        What they are a function of.
    order : array of int64
        Of the patches.
    pages : EpochPages or None
        What the patches read, where that is known.

    Attributes
    ----------
    make : callable
        Returns a batch by its number; to be called in their order.
    feed : PageFeed or None
        What reads pages for it.
    """

    def __init__(
        self, settings: EpochSettings, order: NDArray[np.int64], pages: EpochPages | None
    ) -> None:
        self.settings, self.n_steps = settings, settings.division.n_steps
        self._stack = ExitStack()
        self.feed: PageFeed | None = None
        self._n_patches = len(order)
        # of no method: images would outlive their use in a circle
        make: Callable[[int], PatchBatch] = partial(_batch, settings, order)
        if pages is not None:
            self.feed = pages.feed(order, settings.division, settings.rank)
            self._stack.callback(self.feed.close)
            make = self.feed.during(make)
        elif settings.is_paged:
            plan = partial(_plan, settings, order)
            make = self._stack.enter_context(reading_ahead(make, plan, self.n_steps))
        self.make = make

    @cached_property
    def ends_at(self) -> int:
        """The step from which on the next epoch is planned."""
        of_pages = n_pieces(self._n_patches) + AHEAD if self.settings.is_paged else 0
        return self.n_steps - 1 - of_pages

    def close(self) -> None:
        """Expect no pages any more."""
        self._stack.close()

    @classmethod
    def planning(cls, settings: EpochSettings) -> Iterator[Epoch | None]:
        """Plan the batches piece by piece: None after each, at last the epoch."""
        pages = yield from planning(settings.constructor, settings.epoch)
        order = settings.sorting.order(settings.seed, settings.epoch, settings.division, pages)
        yield None
        yield cls(settings, order, pages)


def _indices(settings: EpochSettings, order: NDArray[np.int64], step: int) -> list[int]:
    first, stop = settings.division.part(step, settings.rank)
    indices: list[int] = order[first:stop].tolist()
    return indices


def _batch(settings: EpochSettings, order: NDArray[np.int64], step: int) -> PatchBatch:
    indices = _indices(settings, order, step)
    return settings.constructor.construct_batch(indices, epoch=settings.epoch, **settings.options)


def _plan(settings: EpochSettings, order: NDArray[np.int64], step: int) -> Plan:
    assert is_known(settings.constructor)
    return settings.constructor.plan_batch(_indices(settings, order, step), epoch=settings.epoch)


class _Making:
    """Makes batches by their number since the beginning, over the ends of epochs.

    To be called by one thread at a time, with each number once.

    Attributes
    ----------
    settings : deque of EpochSettings
        Of the epochs that are planned; whoever takes the batches leaves out those that are over.
    """

    def __init__(self, settings: EpochSettings) -> None:
        (self._epoch,) = (each for each in Epoch.planning(settings) if each is not None)
        if self._epoch.feed is not None:
            self._epoch.feed.begin()
        self.settings = deque([settings])
        self._first = 0  # number of the first batch of this epoch
        self._next: Epoch | None = None
        self._planning: Iterator[Epoch | None] | None = None
        self._n_ended, self._ended = 0, Condition()

    def rehearse(self) -> PatchBatch:
        """Make the first batch, as if it had not been made."""
        return self._epoch.make(0)

    def __call__(self, number: int) -> PatchBatch:
        try:
            return self._make(number)
        finally:
            with self._ended:
                self._n_ended += 1
                self._ended.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait until so many batches have been made, or failed."""
        with self._ended:
            self._ended.wait_for(lambda: self._n_ended >= count)

    def _make(self, number: int) -> PatchBatch:
        step = number - self._first
        if step == self._epoch.n_steps:
            if self._next is None:
                raise RuntimeError("the next epoch could not be planned")  # nobody asks for it
            if self._epoch.feed is None:  # another goes on where it ends
                self._epoch.close()
            self._epoch, self._next, self._planning = self._next, None, None
            self._first, step = number, 0
        batch = self._epoch.make(step)
        if self._epoch.settings.spans and step >= self._epoch.ends_at:
            self._plan(step)
        return batch

    def close(self) -> None:
        """Expect no pages any more."""
        for epoch in (self._epoch, self._next):
            if epoch is not None:
                epoch.close()

    def _plan(self, step: int) -> None:
        """Plan a piece of the next epoch, behind the last batch all of it."""
        if self._next is not None:
            return
        is_last = step == self._epoch.n_steps - 1
        try:
            if self._planning is None:
                self._planning = Epoch.planning(self._epoch.settings.following())
            for found in self._planning:
                if found is not None and found.n_steps:
                    self._go_on_with(found, step)
                if found is not None or not is_last:
                    break
        except Exception:  # whoever wants that epoch plans it anew, and meets the error
            self._planning = iter(())

    def _go_on_with(self, epoch: Epoch, step: int) -> None:
        own, self._next = self._epoch.feed, epoch
        if epoch.feed is not None:
            if own is not None:
                own.followed_by(epoch.feed)
            epoch.feed.begin(self._epoch.n_steps - 1 - step)
        self.settings.append(epoch.settings)


def _batches(making: _Making, *, rehearse: bool) -> Generator[PatchBatch]:
    settings = making.settings[0]
    n_steps = inf if settings.spans else settings.division.n_steps
    first = making.rehearse if rehearse and n_steps else None
    device = settings.constructor.device
    made = made_ahead(making, n_steps, settings.prefetch, device, rehearse=first)
    # closed in this order: what is being made may still hold pages
    with closing(making), closing(made):
        yield from made


class EpochRun:
    """The batches of an epoch, and of those behind it as long as nothing changes.

    It keeps no loader alive, and ends when nobody has it any more.

    Parameters
    ----------
    settings : EpochSettings
        Of the first epoch.
    rehearse : bool
        Whether its first batch may be made once more, so that kernels are compiled together.
    """

    def __init__(self, settings: EpochSettings, *, rehearse: bool) -> None:
        self._making = _Making(settings)
        self._settings, self._process = self._making.settings, os.getpid()
        self._batches = _batches(self._making, rehearse=rehearse)
        self._left, self._n_taken = settings.division.n_steps, 0

    @property
    def is_over(self) -> bool:
        """Whether all batches of the epoch have been taken."""
        return not self._left

    def take(self) -> PatchBatch:
        """Return the next batch of the epoch."""
        batch = next(self._batches)
        self._left, self._n_taken = self._left - 1, self._n_taken + 1
        return batch

    def rest(self) -> None:
        """Wait until what is made ahead is made: then all that it depends on may be changed."""
        self._making.wait_for(self._n_taken + self._settings[0].prefetch)

    def goes_on_with(self, settings: EpochSettings) -> bool:
        """Go on with the next epoch, where it is this one; tell whether it is."""
        is_next = (
            self._process == os.getpid()  # threads do not follow into a fork
            and self._settings[0].spans
            and len(self._settings) > 1
            and self._settings[1].equals(settings)
        )
        if is_next:
            self._settings.popleft()
            self._left = settings.division.n_steps
        return is_next

    def give_up(self) -> None:
        """Make no more batches, and forget plans: what they depend on has changed."""
        self.close()
        constructor = self._settings[0].constructor
        if is_known(constructor):
            constructor.forget_plans()

    def close(self) -> None:
        """Make no more batches."""
        if self._process == os.getpid():
            self._batches.close()
        else:
            _of_parents.append(self)


_of_parents: list[EpochRun] = []
"""Kept: ending them would wait for threads that are not in this process."""

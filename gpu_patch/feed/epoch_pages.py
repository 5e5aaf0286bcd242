"""What all patches of an epoch read, planned before any is made."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpu_patch.constructors import PatchConstr
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.plan import Plan
from gpu_patch.distinct import distinct
from gpu_patch.draws import DrawPurpose, DrawSpec
from gpu_patch.feed.order import Division
from gpu_patch.feed.paging import Needs, PageFeed
from gpu_patch.feed.sweep import Sweep, fit, sweep_order
from gpu_patch.geometry import window_start
from gpu_patch.locations import Locations
from gpu_patch.ops.draws import CounterDraws
from gpu_patch.pages import PagedImage, PagePool

Made = TypeVar("Made")

_AT_ONCE = 8192
_TIMES = [DrawSpec(DrawPurpose.ORDER, 0, 1)]
_OF_COLUMNS = [DrawSpec(DrawPurpose.ORDER, 1, 3)]
_WIDE = 4
"""Sides of a patch: reading costs little beside computing such windows."""
_WIDE_READ_TWICE = 0.3


@dataclass(frozen=True)
class EpochPages:
    """What the patches of an epoch read.

    Attributes
    ----------
    needs : dict of PagePool to (array, array)
        Of each pool, patches and beside them pages; pairs may repeat.
    places : Locations
        Where the patches lie that indices count.
    """

    needs: Needs
    places: Locations

    def feed(self, order: NDArray[np.int64], division: Division, rank: int) -> PageFeed:
        """Return what reads the pages of a rank's batches.

        Parameters
        ----------
        order : array of int64
            Of the patches.
        division : Division
            Of the order.
        rank : int
            Whose batches.
        """
        step_of = np.empty(len(order), np.int64)
        step_of[order] = division.step_of(rank)
        return PageFeed(self.needs, step_of, division.n_steps)

    def sweep(
        self, constructor: PlannedConstr, sweep: Sweep, seed: int, epoch: int
    ) -> NDArray[np.int64]:
        """Return the patches in the order "sweep"."""
        images = paged_images(constructor)
        assert images is not None
        places, n = self.places, len(self.places.data_idx)
        scale = max(constructor.sampling.principal.n_scales - 1, 0)
        size = np.array(places.patch_size)
        start = window_start(places.coords, size, scale)
        window = (start, start + (size << scale) - 1)
        (times,) = CounterDraws(_TIMES)(seed, epoch, np.arange(n))
        n_columns = len(images) * sweep.n_columns
        (draws,) = CounterDraws(_OF_COLUMNS)(seed, epoch, np.arange(n_columns))
        return sweep_order(places, images, window, sweep, times[0], draws.ravel())

    def across(self, order: NDArray[np.int64], division: Division) -> NDArray[np.int64]:
        """Sort the patches of each step across the sweep, so that each rank keeps to a part.

        What a step holds stays what it is.
        """
        first, stop = division.position(0), division.position(division.n_steps)
        borders = [division.position(step) for step in range(1, division.n_steps)]
        step = np.searchsorted(borders, np.arange(first, stop), "right")
        mine = order[first:stop]
        along = self.places.coords[mine]
        ranked = np.lexsort((along[:, -1], self.places.data_idx[mine], step))
        return np.concatenate([order[:first], mine[ranked], order[stop:]])


def paged_images(constructor: PatchConstr) -> list[PagedImage] | None:
    """Return the images that indices count patches of, where they are read by page."""
    if not isinstance(constructor, PlannedConstr):
        return None
    pages = constructor.sampling.principal.extractor.images.pages
    return None if pages is None else pages.images()


def can_be_planned(constructor: PatchConstr) -> bool:
    """Tell whether images are read by page, and all that is drawn is known beforehand."""
    return is_known(constructor) and paged_images(constructor) is not None


def is_known(constructor: PatchConstr) -> TypeGuard[PlannedConstr]:
    """Tell whether all that a constructor draws is a function of index and epoch."""
    # somebody's own strategy may give another place each time
    return (
        isinstance(constructor, PlannedConstr)
        and constructor.draws_by_counter
        and all(place.places_batches for place in constructor.sampling.placements)
    )


def n_pieces(n_patches: int) -> int:
    """Return in how many pieces `planning` plans an epoch."""
    return -(-n_patches // _AT_ONCE)


def planning(constructor: PatchConstr, epoch: int) -> Generator[None, None, EpochPages | None]:
    """Plan an epoch, where all that it draws is known and some images are read by page.

    A generator, so that the work can be spread over batches of the epoch before: it stops after
    each piece, and returns what all patches read.

    Parameters
    ----------
    constructor : PatchConstr
        Of the patches.
    epoch : int
        Its number.
    """
    if not is_known(constructor) or not constructor.sampling.is_chunked:
        return None
    found: dict[PagePool, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
    places = []
    for first in range(0, constructor.n_patches, _AT_ONCE):
        index = np.arange(first, min(first + _AT_ONCE, constructor.n_patches))
        try:
            plan = constructor.plan_batch(index, epoch=epoch)  # type: ignore[arg-type]
        except ValueError:  # patches of several sizes: each batch says for itself what it reads
            return None
        places.append(plan.specs.principal)
        for pool, sample, page in _pages_of(plan):
            found.setdefault(pool, []).append((sample + first, page))
        yield
    if not found:
        return None
    needs = {
        pool: (np.concatenate([s for s, _ in pairs]), np.concatenate([p for _, p in pairs]))
        for pool, pairs in found.items()
    }
    every = Locations(
        np.concatenate([each.data_idx for each in places]),
        np.concatenate([each.sample_idx for each in places]),
        np.concatenate([each.coords for each in places]),
        places[0].patch_size,
    )
    return EpochPages(needs, every)


def _pages_of(plan: Plan) -> Iterator[tuple[PagePool, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the pools that a batch reads, with its samples and beside them pages."""
    for images, sources, n_scales, mode in plan.reads:
        if images.pages is not None:
            scale = max(n_scales - 1, 0)
            needed = images.pages.pages(sources, plan.patch_size, scale, n_scales, mode)
            for pool, (sample, page) in needed.items():
                yield pool, sample, page


@contextmanager
def reading_ahead(
    make: Callable[[int], Made], plan_of: Callable[[int], Plan], n_steps: int
) -> Iterator[Callable[[int], Made]]:
    """Give `make`, which takes the number of a batch, with the pages of the next read meanwhile.

    For batches whose pages are not planned all at once.

    Parameters
    ----------
    make : callable
        Makes a batch.
    plan_of : callable
        Returns the plan of a batch by its number.
    n_steps : int
        Number of batches.
    """
    pools: set[PagePool] = set()

    def making(step: int) -> Made:
        made = make(step)
        if step + 1 < n_steps:
            for pool, _, page in _pages_of(plan_of(step + 1)):
                pools.add(pool)
                pages = distinct(page)
                next_step = np.ones(len(pages), np.int64)
                pool.expect(pages, next_step)
                pool.read_ahead(pages, next_step, 1)
        return made

    try:
        yield making
    finally:
        for pool in pools:
            pool.forget()


def fitted(constructor: PatchConstr) -> Sweep | None:
    """Return how to sweep the images; None where they are not read by page.

    A function of the strategy, the images and how many of their pages fit: so every epoch and
    every rank has the same.
    """
    images = paged_images(constructor)
    if images is None:
        return None
    assert isinstance(constructor, PlannedConstr)
    pools = [place.extractor.images.pages for place in constructor.sampling.placements]
    part = 1.0
    for pages in (
        *pools,
        *(e.images.pages for own in constructor.sampling.channels.values() for e, _ in own),
    ):
        for pool in () if pages is None else pages.pools():
            part = min(part, pool.n_slots / len(pool.table))
    n_pages = sum(image.grid[0] * prod(image.grid[2:]) for image in images)
    window = constructor.sampling.window_size
    patch = max(max(size) for size in constructor.sampling.patch_sizes or [[1]])
    twice = _WIDE_READ_TWICE if max(window) >= _WIDE * patch else None
    return fit(images, window, part * n_pages, twice)

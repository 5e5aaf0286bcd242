"""The order that a loader was asked for, for the images that it has."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.constructors import PatchConstr
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.feed import loader_state
from gpu_patch.feed.epoch_pages import EpochPages, can_be_planned, fitted
from gpu_patch.feed.order import (
    Division,
    block_numbers,
    epoch_order,
    image_numbers,
    n_blocks,
    sites_of,
)
from gpu_patch.feed.sweep import LEAST_STRIPS, Sweep
from gpu_patch.feed.team import Team, n_in_group

ORDERS = ("shuffle", "by_image", "blocks", "sweep")


class Sorting:
    """Sorts the patches of an epoch.

    Parameters
    ----------
    constructor : PatchConstr
        Of the patches.
    order, window, shuffle : str, float, bool
        As `BatchLoader` takes them.
    """

    def __init__(
        self, constructor: PatchConstr, order: str, window: float, *, shuffle: bool
    ) -> None:
        self._constructor, self._order = constructor, order
        self._window, self._shuffle = window, shuffle
        self._agreed: Sweep | None = None

    def order(
        self, seed: int, epoch: int, division: Division, pages: EpochPages | None
    ) -> NDArray[np.int64]:
        """Return the patches in the order of an epoch.

        Parameters
        ----------
        seed, epoch : int
            What it is a function of.
        division : Division
            What each rank makes of it.
        pages : EpochPages or None
            What the patches read, where that is known.
        """
        sweep = self.sweep()
        if sweep is None or pages is None:
            blocks, window = self._blocks()
            return epoch_order(
                division.stop, seed, epoch, shuffle=self._shuffle, blocks=blocks, window=window
            )
        assert isinstance(self._constructor, PlannedConstr)
        order = pages.sweep(self._constructor, sweep, seed, epoch)
        return order if division.world_size == 1 else pages.across(order, division)

    def sweep(self) -> Sweep | None:
        """Return how images are swept, None where they are not."""
        if self._kind() != "sweep":
            return None
        own = fitted(self._constructor)
        agreed = self._agreed
        return agreed if agreed and own and agreed.pages == own.pages else own

    def agree(self, world_size: int) -> None:
        """Sweep as the rank does that has room for the fewest pages, so that all have one order.

        Parameters
        ----------
        world_size : int
            Number of ranks. Nothing is done unless torch's process group has as many.

        Raises
        ------
        ValueError
            Ranks read other images, or the same ones by pages of another shape.
        """
        sweep = self.sweep()
        if sweep is None or world_size == 1 or world_size != n_in_group():
            return
        every = Team.of(True).all_of(sweep)
        if len({each.pages for each in every}) > 1:
            raise ValueError(
                'order="sweep" needs the same images on every rank, in pages of the same shapes: '
                f"they are {[each.pages for each in every]} by rank. Give every rank the same "
                "memory_budget, in bytes"
            )
        self._agreed = min(every, key=lambda each: each.n_slots)

    def state(self) -> dict[str, Any]:
        """Return all that decides the order, but for seeds and epochs."""
        return loader_state.order_of(
            self._constructor,
            shuffle=self._shuffle,
            order=self._order,
            window=self._window,
            n_blocks=self._n_blocks(),
            sweep=self.sweep(),
        )

    def warn_of_few_strips(self, stacklevel: int) -> None:
        """Warn where a sweep mixes less than it should."""
        sweep = self.sweep()
        if sweep is not None and sweep.n_strips < LEAST_STRIPS:
            warnings.warn(
                f'order="sweep" has memory for {sweep.n_strips} strip'
                f"{'s' * (sweep.n_strips > 1)} of the images at once, {sweep.n_slots:.0f} pages; "
                f"with fewer than {LEAST_STRIPS}, networks with batch normalisation may train "
                "worse than by a shuffle. Raise memory_budget, or store the images in smaller "
                "chunks",
                stacklevel=stacklevel + 1,
            )

    def _kind(self) -> str:
        """Return what "sweep" is for these images, or the order that was chosen."""
        if self._order != "sweep":
            return self._order
        if can_be_planned(self._constructor):
            return "sweep"
        made = self._constructor
        is_chunked = isinstance(made, PlannedConstr) and made.sampling.is_chunked
        return "blocks" if is_chunked else "shuffle"

    def _blocks(self) -> tuple[NDArray[np.int64] | None, float]:
        """Return the block of each patch, and the window that patches are taken from."""
        kind = self._kind()
        if kind in ("shuffle", "sweep"):
            return None, 0.0
        sites = sites_of(self._constructor)
        if kind == "by_image":
            return image_numbers(sites), 0.0
        wanted = self._n_blocks()
        assert wanted is not None
        return block_numbers(sites, self._constructor.input_shapes, wanted), self._window

    def _n_blocks(self) -> int | None:
        """Return how many boxes the images are cut into, None where they are not."""
        if self._kind() != "blocks":
            return None
        shapes = self._constructor.input_shapes
        size: Sequence[int] = (0,) * (len(shapes[0]) - 2)
        if isinstance(self._constructor, PlannedConstr):
            size = self._constructor.sampling.window_size
        return n_blocks(shapes, size, self._window)

"""The plan of an epoch, made some hundred samples at a time, of which batches are rows.

To plan some hundred samples takes hardly longer than to plan a batch: the time goes into calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.constructors.plan import Plan, Specs
from gpu_patch.locations import Locations
from gpu_patch.sources import ChannelSources

_MOST_PATCHES = 1 << 16
"""Of an epoch that is kept: 5 to 15 MB."""
_BLOCK_SIZE = 1 << 10
"""Samples that are planned beside those of a batch."""


class EpochPlans:
    """Plans batches; from the second of an epoch on, the samples of others beside its own."""

    def __init__(self) -> None:
        # key, plan of all samples, and how many of them are planned, all without a plan where there
        # can be none; told by one name, since other threads may be here
        self._epoch: tuple[object, Plan | None, int] = (None, None, 0)

    def __reduce__(self) -> tuple[Any, ...]:
        return EpochPlans, ()

    def __call__(
        self,
        key: object,
        index: NDArray[np.int64],
        n_patches: int,
        n_places: int,
        plan: Callable[[NDArray[np.int64]], Plan],
    ) -> Plan:
        """Return the plan of a batch.

        Parameters
        ----------
        key : object
            Equal where all samples are planned alike.
        index : array of int64, shape (B,)
            The samples, in 0 … n_patches − 1.
        n_patches : int
            Samples of the epoch.
        n_places : int
            Places of a sample that may differ: 1, or one per channel.
        plan : callable
            Plans samples, each by itself.
        """
        index = index.copy()  # specs refer to it, whoever gave it
        known, epoch, n_planned = self._epoch
        if known == key and n_planned == n_patches:
            return plan(index) if epoch is None else epoch.rows(index)
        # a large epoch would take memory, a large batch saves nothing
        if n_patches > _MOST_PATCHES or len(index) >= _BLOCK_SIZE:
            return plan(index)
        if known != key:
            self._epoch = (key, None, 0)
            return plan(index)
        stop = min(n_patches, n_planned + _BLOCK_SIZE)
        both = plan(np.concatenate([index, np.arange(n_planned, stop)]))
        if any(places.extras for places in both.specs.places):  # there is no room for these
            self._epoch = (key, None, n_patches)
        else:
            epoch = epoch or _room(both, n_patches, n_places)
            _fill(epoch, both, len(index), n_planned, n_places)
            self._epoch = (key, epoch, stop)
        return both.rows(np.arange(len(index)))


def _room(like: Plan, n_samples: int, n_places: int) -> Plan:
    """Return a plan of so many samples that is not filled yet."""

    def column(given: Any) -> Any:
        return None if given is None else np.empty((n_samples, *given.shape[1:]), given.dtype)

    image_idx, sample_idx = np.empty((2, n_samples, n_places), np.int64)
    coords = np.empty((n_samples, n_places, like.sources.coords.shape[2]), np.int64)
    sources = ChannelSources(image_idx, sample_idx, coords, like.sources.channels)
    places = [
        Locations(np.empty(n_samples, np.int64), sample_idx[:, c], coords[:, c], like.patch_size)
        for c in range(n_places)
    ]
    return like.moved(
        sources,
        weights=column(like.weights),
        specs=Specs(places, like.specs.principal_channel, column(like.specs.uncorrelated)),
        epilogue=like.epilogue and like.epilogue.room(n_samples),
    )


def _fill(epoch: Plan, part: Plan, n_skipped: int, first: int, n_places: int) -> None:
    """Put the samples of a plan, but for the first ones, into an epoch's, from `first` on."""
    for to, own in zip(_columns(epoch, n_places), _columns(part, n_places), strict=True):
        to[first : first + len(own) - n_skipped] = own[n_skipped:]


def _columns(plan: Plan, n_places: int) -> list[NDArray[Any]]:
    """Return what a plan has a row of for each sample."""
    places = plan.specs.places
    image_of_place = [places[min(c, len(places) - 1)].data_idx for c in range(n_places)]
    # where no sample has places of its own for its channels, they have one together
    per_place = [
        own if own.shape[1] == n_places else own.repeat(n_places, axis=1)
        for own in plan.sources[:3]
    ]
    values = () if plan.epilogue is None else plan.epilogue.columns
    rest = (plan.weights, plan.specs.uncorrelated, *values)
    return [*image_of_place, *per_place, *(own for own in rest if own is not None)]

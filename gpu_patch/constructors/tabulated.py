"""The plan of an epoch, made some hundred samples at a time, of which batches are rows.

To plan some hundred samples takes hardly longer than to plan a batch: the time goes into calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.constructors.execute import Execution
from gpu_patch.constructors.plan import Plan, Specs
from gpu_patch.locations import Locations
from gpu_patch.ops.arguments import checked_dtype
from gpu_patch.sources import ChannelSources

_MOST_PATCHES = 1 << 16
"""Of an epoch that is kept: 5 to 15 MB."""
_BLOCK_SIZE = 1 << 10
"""Samples that are planned beside those of a batch."""


class PlannedBatch(NamedTuple):
    """A batch as rows of a plan.

    Attributes
    ----------
    plan : Plan
        The batch's own, or its epoch's.
    rows : array of int64, shape (B,), or None
        Which samples of the plan are the batch's; None for all.
    executions : dict
        How batches of the plan are made, by the types of their results.
    """

    plan: Plan
    rows: NDArray[np.int64] | None
    executions: dict[tuple[Any, Any], Execution]

    def alone(self) -> Plan:
        """Return the plan of the batch's samples alone."""
        return self.plan if self.rows is None else self.plan.rows(self.rows)

    @property
    def specs(self) -> Specs:
        """Those of the batch."""
        return self.plan.specs if self.rows is None else self.plan.specs.rows(self.rows)

    def execute(self, dtype: DTypeLike, target_dtype: DTypeLike | None) -> tuple[Any, Any]:
        """Return input and target; see `Execution`."""
        key = checked_dtype(dtype), target_dtype
        made = self.executions.get(key)
        if made is None:
            made = self.executions[key] = Execution(self.plan, *key)
        return made(self.rows)


class _Epoch(NamedTuple):
    """What is known of an epoch.

    Attributes
    ----------
    key : object
        What tells it from others.
    plan : Plan or None
        Of all samples. None where none is planned yet, or, once all are, there can be none.
    n_planned : int
        How many samples are planned, the first ones.
    executions : dict
        How batches are made, by the types of their results.
    """

    key: object
    plan: Plan | None
    n_planned: int
    executions: dict[tuple[Any, Any], Execution]


class EpochPlans:
    """Plans batches; from the second of an epoch on, the samples of others beside its own."""

    def __init__(self) -> None:
        # told by one name, since other threads may be here
        self._epoch = _Epoch(None, None, 0, {})

    def __reduce__(self) -> tuple[Any, ...]:
        return EpochPlans, ()

    def __call__(
        self,
        key: object,
        index: NDArray[np.int64],
        n_patches: int,
        n_places: int,
        plan: Callable[[NDArray[np.int64]], Plan],
    ) -> PlannedBatch:
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
        epoch = self._epoch
        is_known = epoch.key == key
        if is_known and epoch.n_planned == n_patches and epoch.plan is not None:
            return PlannedBatch(epoch.plan, index, epoch.executions)
        # a large epoch would take memory, a large batch saves nothing
        is_alone = n_patches > _MOST_PATCHES or len(index) >= _BLOCK_SIZE
        if is_alone or (is_known and epoch.n_planned == n_patches):
            return PlannedBatch(plan(index), None, {})
        if not is_known:
            self._epoch = _Epoch(key, None, 0, {})
            return PlannedBatch(plan(index), None, {})
        stop = min(n_patches, epoch.n_planned + _BLOCK_SIZE)
        both = plan(np.concatenate([index, np.arange(epoch.n_planned, stop, dtype=np.int64)]))
        if self._epoch is not epoch:
            pass  # another thread was faster
        elif any(places.extras for places in both.specs.places):  # there is no room for these
            self._epoch = _Epoch(key, None, n_patches, {})
        else:
            whole = epoch.plan or _room(both, n_patches, n_places)
            _fill(whole, both, len(index), epoch.n_planned, n_places)
            self._epoch = _Epoch(key, whole, stop, {})
        return PlannedBatch(both, np.arange(len(index), dtype=np.int64), {})


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

"""Which patches come when, and to whom: the order of an epoch, and its division among processes.

Both are functions of a few numbers, so that any process finds any batch without the others, and
goes on from anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_patch.draws import Draws, Request, Stream

_KEYS = Draws([Request(Stream.ORDER, 0, 1)])


def epoch_order(n_patches: int, seed: int, epoch: int, *, shuffle: bool) -> NDArray[np.int64]:
    """Return the indices of all patches in the order of an epoch.

    Sorted by random keys, which are the same on every machine: NumPy does not promise that of its
    generators' `permutation`.
    """
    index = np.arange(n_patches)
    if not shuffle or n_patches == 0:
        return index
    # a fresh call each: what `Draws` keeps for an epoch is of no use here
    (keys,) = Draws(_KEYS.requests)(seed, epoch, index, n_patches)
    return np.argsort(keys[0], kind="stable")


@dataclass(frozen=True)
class Division:
    """Cuts the positions first … stop − 1 of an epoch into steps, and each step among ranks.

    A step takes the next world_size · batch_size positions, batch_size for each rank. The last
    one takes what is left, divided evenly; where that would not do for all ranks, the step before
    takes it too, and some batches have one patch more. So all ranks make the same number of steps:
    where they exchange gradients, one that made more would wait for the others forever.

    Attributes
    ----------
    first, stop : int
        Positions.
    batch_size : int
        Of one rank.
    world_size : int
        Number of ranks, at most stop − first unless there is nothing to divide.
    drop_last : bool
        Whether to leave out what does not fill a step.
    """

    first: int
    stop: int
    batch_size: int
    world_size: int
    drop_last: bool

    @property
    def n_steps(self) -> int:
        """Number of steps, the same for every rank."""
        full, left = divmod(self.stop - self.first, self._step_size)
        return full + (left >= self.world_size and not self.drop_last)

    def position(self, step: int) -> int:
        """Return where a step begins; at `n_steps`, where the last one ends."""
        if step == self.n_steps and not self.drop_last:
            return self.stop
        return self.first + step * self._step_size

    def part(self, step: int, rank: int) -> tuple[int, int]:
        """Return the first and the last + 1 position of a rank's batch."""
        begin, end = self.position(step), self.position(step + 1)
        each, more = divmod(end - begin, self.world_size)
        first = begin + rank * each + min(rank, more)
        return first, first + each + (rank < more)

    @property
    def _step_size(self) -> int:
        return self.batch_size * self.world_size

"""How many processes train together, as far as this one knows."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import numpy as np

_MARGIN = 16
"""Patches beyond its share, per process, that a process may see.

What two epochs' shares have in common ends a run of different patches at every step with a
probability of 1 / processes: so far it goes on in one of ten million.
"""


class NotGiven(int):
    """A default that can be told from the same number given."""


def n_processes() -> int:
    """Return the size of torch's process group, or else what launchers set, such as torchrun.

    torch is asked only where something else has imported it.

    Returns
    -------
    int
        1 where nothing says more.
    """
    group = sys.modules.get("torch.distributed")
    if group is not None and group.is_available() and group.is_initialized():
        return int(group.get_world_size())
    told = os.environ.get("WORLD_SIZE", "")
    return max(1, int(told)) if told.isdecimal() else 1


class Share:
    """Notices a process that sees more of an epoch's patches than is its part.

    Parameters
    ----------
    n_patches, n_processes : int
        All patches, and the processes that share them.
    """

    def __init__(self, n_patches: int, n_processes: int) -> None:
        self.n_patches = n_patches
        self._largest = -(-n_patches // n_processes) + _MARGIN * n_processes
        self._seen = np.zeros(n_patches, bool)

    def is_exceeded(self, indices: Sequence[int]) -> bool:
        """Tell whether these and those before, since one came again, are more than the share."""
        index = np.asarray(indices)
        if self._seen[index].any():  # perhaps another epoch
            self._seen[:] = False
        self._seen[index] = True
        return int(np.count_nonzero(self._seen)) >= self._largest


def warn_of_ranks(rank: int, world_size: int, *, stacklevel: int) -> None:
    """Warn where there are several processes, and neither number is given."""
    n_told = n_processes()
    if isinstance(rank, NotGiven) and isinstance(world_size, NotGiven) and n_told > 1:
        warnings.warn(
            f"this process is one of {n_told}, but rank and world_size are not given: all "
            "of them see the same patches. Give both; 0 and 1 where that is wanted",
            stacklevel=stacklevel,
        )

"""Processes that share one piece of work, by the collectives of torch.distributed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from gpu_patch.checks import instance
from gpu_patch.feed.ranks import n_processes

Told = TypeVar("Told")


def n_in_group() -> int:
    """Return the size of torch's process group, 0 where there is none."""
    group = sys.modules.get("torch.distributed")
    if group is None or not group.is_available() or not group.is_initialized():
        return 0
    return int(group.get_world_size())


class Team:
    """Processes that do the same work, each its part; one alone does all of it.

    Parameters
    ----------
    rank, size : int, default 0 and 1
        This process, and how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def of(cls, share: bool) -> Team:
        """Return the processes of torch's group, where work is to be shared.

        Raises
        ------
        TypeError, ValueError
            `share` is neither True nor False, or there are several processes without a group.
        """
        if not instance("share", share, bool, "True or False"):
            return cls()
        if size := n_in_group():
            return cls(sys.modules["torch.distributed"].get_rank(), size)
        if (n := n_processes()) > 1:
            raise ValueError(
                f"share is True, and this process is one of {n}, but torch has no process group: "
                "call torch.distributed.init_process_group before"
            )
        return cls()

    def own(self, n: int) -> range:
        """Return this process's part of n things, which lie beside each other."""
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def all_of(self, told: Told) -> list[Told]:
        """Return what each process tells, by rank. All of them must call it."""
        if self.size == 1:
            return [told]
        found: list[Any] = [None] * self.size
        sys.modules["torch.distributed"].all_gather_object(found, told)
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        """End a part of the work on all processes: an error of one is an error of all.

        Otherwise those without one would wait for the others forever.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as found:
            error = found
        told = self.all_of(None if error is None else (isinstance(error, ValueError), str(error)))
        if error is not None:
            raise error
        for rank, found_there in enumerate(told):
            if found_there is not None:
                is_value, text = found_there
                raise ValueError(text) if is_value else RuntimeError(f"on rank {rank}: {text}")

"""What each process has for itself, after a fork too."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Made = TypeVar("Made")


class PerProcess(Generic[Made]):
    """Something that a forked process must not inherit: another thread may have held a lock.

    A process that is started anew makes its own, too, since this is not to be pickled.

    Who has it passes its own method to make it, and this keeps none: so there is no cycle.
    """

    def __init__(self) -> None:
        self._made_after: int | None = None

    def get(self, make: Callable[[], Made]) -> Made:
        """Return that of this process, made where there is none."""
        if self._made_after != _n_forks:
            with _making:
                if self._made_after != _n_forks:
                    self._made = make()
                    self._made_after = _n_forks
        return self._made


_making = Lock()
_n_forks = 0
"""Since the first of the processes that led to this one: to ask for its number takes longer."""


def _begin_anew() -> None:
    global _making, _n_forks
    _making = Lock()
    _n_forks += 1


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_begin_anew)

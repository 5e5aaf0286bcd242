"""What each process has for itself, after a fork too."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

Made = TypeVar("Made")


class PerProcess(Generic[Made]):
    """Something that a forked process must not inherit: another thread may have held a lock.

    Parameters
    ----------
    make : callable
        Makes it, once in each process that asks for it.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make, self._process = make, os.getpid()
        self._made = make()

    def __call__(self) -> Made:
        """Return that of this process."""
        if self._process != os.getpid():
            self._made, self._process = self._make(), os.getpid()
        return self._made

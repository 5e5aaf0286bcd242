"""Reading the chunks of coming batches while others are made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeAlias, TypeVar

from gpu_patch.chunks.cache import ChunkCache
from gpu_patch.chunks.image import ChunkKey

Made = TypeVar("Made")

Needs: TypeAlias = Mapping[ChunkCache, Collection[ChunkKey]]
"""The chunks that a batch reads."""


class ChunkPrefetch:
    """A thread that reads chunks for the batches after the one that is being made.

    Errors are left to the making of the batch, which meets them again.

    Parameters
    ----------
    needs : callable
        Takes the number of a batch.
    n_steps : int
        Number of batches.
    ahead : int
        How many batches it reads for.
    """

    def __init__(self, needs: Callable[[int], Needs], n_steps: int, ahead: int) -> None:
        self._needs, self._n_steps, self._ahead = needs, n_steps, ahead
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="gpu_patch_chunks")
        self._lock = Lock()
        self._expected: dict[int, Needs] = {}
        self._submitted = self._begun = -1

    def during(self, make: Callable[[int], Made]) -> Callable[[int], Made]:
        """Return `make`, which takes the number of a batch, with reading ahead meanwhile."""

        def making(step: int) -> Made:
            self._begin(step)
            try:
                return make(step)
            finally:
                self._end(step)

        return making

    def close(self) -> None:
        """Stop reading."""
        with self._lock:
            self._begun = self._n_steps
            steps = list(self._expected)
        for step in steps:
            self._end(step)
        self._executor.shutdown(cancel_futures=True)

    def _begin(self, step: int) -> None:
        with self._lock:
            self._begun = step
        while self._submitted < min(step + self._ahead, self._n_steps - 1):
            self._submitted += 1
            self._executor.submit(self._fetch, self._submitted)

    def _end(self, step: int) -> None:
        with self._lock:
            needs = self._expected.pop(step, {})
        for cache, keys in needs.items():
            cache.release(keys)

    def _fetch(self, step: int) -> None:
        if step <= self._begun:  # too late
            return
        needs = self._needs(step)
        with self._lock:
            if step <= self._begun:
                return
            for cache, keys in needs.items():
                cache.announce(keys)
            self._expected[step] = needs
        for cache, keys in needs.items():
            cache.fetch(keys)

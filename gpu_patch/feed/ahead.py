"""Batches made before they are asked for, and the chunks of coming ones read meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, TypeAlias, TypeVar

from gpu_patch.chunks.cache import ChunkCache
from gpu_patch.chunks.image import ChunkKey
from gpu_patch.device import SideStream
from gpu_patch.specs import PatchBatch

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


def made_ahead(
    make: Callable[[int], PatchBatch], n_steps: int, prefetch: int, device: str
) -> Iterator[PatchBatch]:
    """Yield make(0), make(1), …, of which `prefetch` are made before they are asked for."""
    if device != "cpu":
        return _on_stream(make, n_steps, prefetch, device)
    if prefetch:
        return _in_thread(make, n_steps, prefetch)
    return map(make, range(n_steps))


def _in_thread(
    make: Callable[[int], PatchBatch], n_steps: int, prefetch: int
) -> Iterator[PatchBatch]:
    with ThreadPoolExecutor(1, thread_name_prefix="gpu_patch") as executor:
        waiting: deque[Future[PatchBatch]] = deque()
        try:
            for step in range(n_steps + prefetch):
                if step < n_steps:
                    waiting.append(executor.submit(make, step))
                if step >= prefetch:
                    yield waiting.popleft().result()
        finally:  # where the loop was left early, what has not begun need not be made
            executor.shutdown(cancel_futures=True)


def _on_stream(
    make: Callable[[int], PatchBatch], n_steps: int, prefetch: int, device: str
) -> Iterator[PatchBatch]:
    stream = SideStream(device, "batches")
    waiting: deque[tuple[PatchBatch, Any] | Exception] = deque()

    def publish() -> PatchBatch:
        first = waiting.popleft()
        if isinstance(first, Exception):
            raise first
        batch, event = first
        names = [name for name in ("input", "target") if getattr(batch, name) is not None]
        arrays = stream.publish((getattr(batch, name) for name in names), event)
        return batch._replace(**dict(zip(names, arrays, strict=True)))

    for step in range(n_steps + prefetch):
        if step < n_steps:
            try:
                waiting.append(stream.run(partial(make, step)))
            except Exception as error:  # raised when its turn comes, behind the batches before it
                waiting.append(error)
        if step >= prefetch:
            yield publish()

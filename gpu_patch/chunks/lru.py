"""The chunks that a cache has, those used last at the end, and which of them may go."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from gpu_patch.chunks.image import CacheKey


@dataclass
class Traffic:
    """What went through a cache; printed, one line.

    Attributes
    ----------
    hits, misses : int
        Chunks that batches asked for, each once per batch: a miss had to be read for it, whether
        now or ahead of time.
    bytes_moved : int
        Bytes read into the cache.
    waits : int
        Batches that had to wait for a chunk.
    waited_s : float
        How long they waited, in seconds.
    """

    hits: int = 0
    misses: int = 0
    bytes_moved: int = 0
    waits: int = 0
    waited_s: float = 0.0

    @property
    def hit_rate(self) -> float:
        """Part of the chunks asked for that were in memory; 1 where none was asked for."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 1.0

    def __str__(self) -> str:
        return (
            f"{self.hits} hits, {self.misses} misses ({self.hit_rate:.1%} hits), "
            f"{self.bytes_moved / 1e6:.1f} MB moved, {self.waits} waits of {self.waited_s:.2f} s"
        )


class Chunk:
    """A chunk that is in memory, or on its way."""

    __slots__ = ("array", "error", "nbytes", "ready", "unused", "users")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.array: Any = None
        self.ready: Any = None
        self.error: BaseException | None = None
        self.users = 0
        self.unused = True  # no batch has asked for it since it was read

    @property
    def loading(self) -> bool:
        return self.array is None and self.error is None


class KeptChunks:
    """Chunks up to a budget, in the order of their last use. It is for one thread at a time.

    Parameters
    ----------
    budget : int
        Bytes that they may take together.

    Attributes
    ----------
    nbytes : int
        Bytes that they take now, those on their way included.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self.nbytes = 0
        self._chunks: OrderedDict[CacheKey, Chunk] = OrderedDict()

    def __contains__(self, key: CacheKey) -> bool:
        return key in self._chunks

    def __iter__(self) -> Iterator[CacheKey]:
        """Go through what is there, the least recently used first."""
        return iter(self._chunks)

    def keep_loaded(self) -> None:
        """Forget chunks that are on their way, and who uses the others."""
        whole = {key: chunk for key, chunk in self._chunks.items() if not chunk.loading}
        for chunk in whole.values():
            chunk.users = 0
        self._chunks = OrderedDict(whole)
        # summed anew, since a fork may come between the two lines of `add`
        self.nbytes = sum(chunk.nbytes for chunk in whole.values())

    def bytes_of(self, image: int) -> int:
        """Return the bytes of one image's chunks."""
        return sum(chunk.nbytes for (i, _), chunk in self._chunks.items() if i == image)

    def used_bytes(self, besides: Collection[CacheKey]) -> int:
        """Return the bytes that cannot go now, but for those of `besides`."""
        return sum(
            chunk.nbytes
            for key, chunk in self._chunks.items()
            if (chunk.users or chunk.loading) and key not in besides
        )

    def use(self, key: CacheKey) -> Chunk | None:
        """Return a chunk, which is then the last used one; None where it is not there."""
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
        return chunk

    def add(self, key: CacheKey, chunk: Chunk) -> None:
        """Take a chunk in; there must be room."""
        self._chunks[key] = chunk
        self.nbytes += chunk.nbytes

    def remove(self, key: CacheKey) -> None:
        """Let a chunk go."""
        self.nbytes -= self._chunks.pop(key).nbytes

    def make_room(self, nbytes: int, expected: Collection[CacheKey], *, expected_too: bool) -> bool:
        """Let chunks go until there is room, if that is possible.

        Parameters
        ----------
        nbytes : int
            What is wanted.
        expected : collection of CacheKey
            Chunks that go last, or not at all.
        expected_too : bool
            Whether these may go.

        Returns
        -------
        bool
            Whether there is room; otherwise all are still there.
        """
        room = self._budget - self.nbytes
        leaving: list[CacheKey] = []
        for protect in (True, False) if expected_too else (True,):
            for key, chunk in self._chunks.items():
                if room >= nbytes:
                    break
                idle = not chunk.users and not chunk.loading
                if idle and (key in expected) != protect:
                    leaving.append(key)
                    room += chunk.nbytes
        if room < nbytes:
            return False
        for key in leaving:
            self.remove(key)
        return True

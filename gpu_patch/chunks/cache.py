"""Chunks in memory, up to a budget."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Condition
from typing import TYPE_CHECKING, Any

from gpu_patch import device as devices
from gpu_patch.checks import whole_number
from gpu_patch.chunks.image import ChunkedImage, ChunkKey, KeptKey
from gpu_patch.chunks.memory import make_memory
from gpu_patch.chunks.per_process import PerProcess

if TYPE_CHECKING:
    from gpu_patch._cuda.runtime import Runtime


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


class _Chunk:
    """A chunk that is in memory, or on its way."""

    __slots__ = ("array", "error", "nbytes", "ready", "unused", "users")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.array: Any = None
        self.ready: Any = None
        self.error: BaseException | None = None
        self.users = 0
        self.unused = True  # since it was read

    @property
    def loading(self) -> bool:
        return self.array is None and self.error is None


class ChunkCache:
    """Keeps chunks of images in the memory of a device, the least recently used out first.

    Threads may share it.

    Parameters
    ----------
    budget : int
        Bytes that its chunks may take.
    device : str or None, default None
        See `gpu_patch.device.resolve`.

    Attributes
    ----------
    budget, device : int, str
        As given.
    nbytes : int
        Bytes that its chunks take now.

    Raises
    ------
    TypeError, ValueError
        The budget is no positive whole number, or there is no such device.
    """

    def __init__(self, budget: int, device: str | None = None) -> None:
        self.budget = whole_number("budget", budget, minimum=1)
        self.device = devices.resolve(device)
        self.nbytes = 0
        self._memory = make_memory(self.device)
        self._chunks: OrderedDict[KeptKey, _Chunk] = OrderedDict()
        self._expected: Counter[KeptKey] = Counter()
        self._traffic = Traffic()
        self._condition: PerProcess[Condition] = PerProcess()

    def __repr__(self) -> str:
        return f"ChunkCache({self.budget}, {self.device!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkCache, (self.budget, self.device)

    def _begin(self) -> Condition:
        """Take the cache over: threads that read or hold chunks stay behind in a fork."""
        whole = {key: chunk for key, chunk in self._chunks.items() if not chunk.loading}
        for chunk in whole.values():
            chunk.users = 0
        self._chunks = OrderedDict(whole)
        self.nbytes = sum(chunk.nbytes for chunk in whole.values())
        self._expected.clear()
        self._n_busy = 0  # holders, and chunks that are read ahead
        return Condition()

    @property
    def _changed(self) -> Condition:
        return self._condition.get(self._begin)

    @property
    def runtime(self) -> Runtime | None:
        """What runs kernels on its chunks; None on the CPU."""
        if self.device == "cpu":
            return None
        from gpu_patch._cuda.runtime import cupy_runtime

        return cupy_runtime(int(self.device.partition(":")[2]))

    @property
    def traffic(self) -> Traffic:
        """What went through it so far."""
        with self._changed:
            return replace(self._traffic)

    def bytes_of(self, image: ChunkedImage) -> int:
        """Return how many bytes of an image are in memory.

        Parameters
        ----------
        image : ChunkedImage
            The image.

        Returns
        -------
        int
            0 where none of its chunks is.
        """
        with self._changed:
            return sum(c.nbytes for (i, _), c in self._chunks.items() if i == image.number)

    def has_room(self, keys: Collection[ChunkKey]) -> bool:
        """Tell whether it could hold chunks at once, if it were empty.

        Parameters
        ----------
        keys : collection of ChunkKey
            Chunks, each once.

        Returns
        -------
        bool
            Whether they are within the budget.
        """
        return sum(key.image.chunk_bytes(key.place) for key in keys) <= self.budget

    @contextmanager
    def hold(self, keys: Collection[ChunkKey]) -> Iterator[dict[ChunkKey, Any]]:
        """Give chunks, which stay for as long as the context lasts.

        Parameters
        ----------
        keys : collection of ChunkKey
            Each once.

        Yields
        ------
        dict of ChunkKey to array
            On CUDA, in order with the current stream.

        Raises
        ------
        MemoryError
            They take more than the budget.
        Exception
            As the reader raised it. The cache is as before, but for chunks that were read.
        """
        chunks, missing = self._reserve(keys)
        try:
            begun = time.perf_counter()
            waited = bool(missing)
            for key, chunk in missing:
                self._load(key, chunk)
            with self._changed:
                for chunk in chunks.values():
                    while chunk.loading:  # by another thread
                        waited = True
                        self._changed.wait()
                    if chunk.error is not None:
                        raise chunk.error
                if waited:
                    self._traffic.waits += 1
                    self._traffic.waited_s += time.perf_counter() - begun
            self._memory.hand_over(chunks.values())
            yield {key: chunk.array for key, chunk in chunks.items()}
        finally:
            with self._changed:
                for key, chunk in missing:
                    if chunk.loading:  # an error came before its turn
                        self._drop(key, chunk, RuntimeError("another chunk could not be read"))
                for chunk in chunks.values():
                    chunk.users -= 1
                self._n_busy -= 1
                self._changed.notify_all()

    def announce(self, keys: Collection[ChunkKey]) -> None:
        """Announce a batch: what it will ask for stays where others can go, until `release`.

        Parameters
        ----------
        keys : collection of ChunkKey
            Chunks of one batch, each once.
        """
        with self._changed:
            self._expected.update(key.kept for key in keys)

    def release(self, keys: Collection[ChunkKey]) -> None:
        """Take back what `announce` said.

        Parameters
        ----------
        keys : collection of ChunkKey
            As `announce` had them.
        """
        with self._changed:
            for key in keys:
                self._expected[key.kept] -= 1
                if not self._expected[key.kept]:
                    del self._expected[key.kept]

    def fetch(self, keys: Collection[ChunkKey]) -> None:
        """Read expected chunks that are not there yet, as far as only unexpected ones must go.

        Errors are left to whoever asks for the chunk.

        Parameters
        ----------
        keys : collection of ChunkKey
            Chunks, in the order of their use.
        """
        for key in keys:
            with self._changed:
                if key.kept in self._chunks or key.kept not in self._expected:
                    continue
                chunk = _Chunk(key.image.chunk_bytes(key.place))
                if not self._make_room(chunk.nbytes, expected_too=False):
                    return
                self._add(key, chunk)
                self._n_busy += 1
            try:
                self._load(key, chunk)
            except Exception:
                return
            finally:
                with self._changed:
                    self._n_busy -= 1
                    self._changed.notify_all()

    def _reserve(
        self, keys: Collection[ChunkKey]
    ) -> tuple[dict[ChunkKey, _Chunk], list[tuple[ChunkKey, _Chunk]]]:
        """Mark chunks as used, all or none; return them and those that are to be read."""
        sizes = {key.kept: key.image.chunk_bytes(key.place) for key in keys}
        least = sum(sizes.values())
        if least > self.budget:
            raise MemoryError(
                f"one patch and its context need {len(keys)} chunks, {least} bytes together, but "
                f"the memory budget is {self.budget} bytes: give at least {least}"
            )
        with self._changed:
            # chunks in use by other threads cannot go: wait until the rest is enough
            while least + self._used_bytes(besides=sizes) > self.budget:
                self._changed.wait()
            chunks: dict[ChunkKey, _Chunk] = {}
            missing = []
            for key in keys:
                chunk = self._chunks.get(key.kept)
                if chunk is not None:
                    self._chunks.move_to_end(key.kept)
                    chunk.users += 1
                    chunks[key] = chunk
                    self._count(chunk)
            for key in keys:
                if key not in chunks:
                    chunk = chunks[key] = _Chunk(sizes[key.kept])
                    has_room = self._make_room(chunk.nbytes, expected_too=True)
                    assert has_room
                    self._add(key, chunk)
                    chunk.users += 1
                    missing.append((key, chunk))
                    self._count(chunk)
            self._n_busy += 1
            return chunks, missing

    def _count(self, chunk: _Chunk) -> None:
        if chunk.unused:
            self._traffic.misses += 1
        else:
            self._traffic.hits += 1
        chunk.unused = False

    def _used_bytes(self, besides: Collection[KeptKey]) -> int:
        if not self._n_busy:  # as ever, where one thread works alone
            return 0
        return sum(
            c.nbytes
            for key, c in self._chunks.items()
            if (c.users or c.loading) and key not in besides
        )

    def _make_room(self, nbytes: int, *, expected_too: bool) -> bool:
        """Drop chunks until there is room, if that is possible; those expected go last."""
        room = self.budget - self.nbytes
        leaving: list[KeptKey] = []
        for protect in (True, False) if expected_too else (True,):
            for key, chunk in self._chunks.items():
                if room >= nbytes:
                    break
                idle = not chunk.users and not chunk.loading
                if idle and (key in self._expected) != protect:
                    leaving.append(key)
                    room += chunk.nbytes
        if room < nbytes:
            return False
        for key in leaving:
            self.nbytes -= self._chunks.pop(key).nbytes
        return True

    def _add(self, key: ChunkKey, chunk: _Chunk) -> None:
        self._chunks[key.kept] = chunk
        self.nbytes += chunk.nbytes

    def _drop(self, key: ChunkKey, chunk: _Chunk, error: BaseException) -> None:
        chunk.error = error
        del self._chunks[key.kept]
        self.nbytes -= chunk.nbytes
        self._changed.notify_all()

    def _load(self, key: ChunkKey, chunk: _Chunk) -> None:
        try:
            array, ready = self._memory.load(key.image, key.place)
        except BaseException as error:
            with self._changed:
                self._drop(key, chunk, error)
            raise
        with self._changed:
            chunk.ready, chunk.array = ready, array
            self._traffic.bytes_moved += chunk.nbytes
            self._changed.notify_all()

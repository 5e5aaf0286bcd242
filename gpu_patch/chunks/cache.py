"""The cache of chunks: batches hold what they read, other threads read ahead."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Condition
from typing import Any

from gpu_patch import device as devices
from gpu_patch.checks import Message, argument, whole_number
from gpu_patch.chunks.image import CacheKey, ChunkedImage, ChunkKey
from gpu_patch.chunks.lru import Chunk, KeptChunks, Traffic
from gpu_patch.chunks.memory import make_memory
from gpu_patch.chunks.per_process import PerProcess


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

    Raises
    ------
    TypeError, ValueError
        The budget is no positive whole number, or there is no such device.
    """

    def __init__(self, budget: int, device: str | None = None) -> None:
        self.budget = whole_number("budget", budget, minimum=1)
        self.device = devices.resolve(device)
        self._memory = make_memory(self.device)
        self._chunks = KeptChunks(self.budget)
        self._expected: Counter[CacheKey] = Counter()
        self._traffic = Traffic()
        self._condition: PerProcess[Condition] = PerProcess()

    def __repr__(self) -> str:
        return f"ChunkCache({self.budget}, {self.device!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkCache, (self.budget, self.device)

    def _begin(self) -> Condition:
        """Take the cache over: threads that read or hold chunks stay behind in a fork."""
        self._chunks.keep_loaded()
        self._expected.clear()
        self._n_busy = 0  # batches that hold chunks, and chunks that are being read ahead
        return Condition()

    @property
    def _changed(self) -> Condition:
        return self._condition.get(self._begin)

    @property
    def nbytes(self) -> int:
        """Bytes that its chunks take now."""
        return self._chunks.nbytes

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
            return self._chunks.bytes_of(image.number)

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
            self._memory.publish(chunks.values())
            yield {key: chunk.array for key, chunk in chunks.items()}
            self._memory.free_behind(chunks.values())
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
            self._expected.update(key.cache_key for key in keys)

    def release(self, keys: Collection[ChunkKey]) -> None:
        """Take back what `announce` said.

        Parameters
        ----------
        keys : collection of ChunkKey
            As `announce` had them.
        """
        with self._changed:
            for key in keys:
                self._expected[key.cache_key] -= 1
                if not self._expected[key.cache_key]:
                    del self._expected[key.cache_key]

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
                if key.cache_key in self._chunks or key.cache_key not in self._expected:
                    continue
                chunk = Chunk(key.image.chunk_bytes(key.place))
                if not self._chunks.make_room(chunk.nbytes, self._expected, expected_too=False):
                    return
                self._chunks.add(key.cache_key, chunk)
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
    ) -> tuple[dict[ChunkKey, Chunk], list[tuple[ChunkKey, Chunk]]]:
        """Mark chunks as used, all or none; return them and those that are to be read."""
        sizes = {key.cache_key: key.image.chunk_bytes(key.place) for key in keys}
        least = sum(sizes.values())
        if least > self.budget:
            raise MemoryError(
                Message(
                    f"one patch and its context need {len(keys)} chunks, {least} bytes together, "
                    f"but the memory budget is {self.budget} bytes: raise ",
                    argument("memory_budget"),
                    f" to at least {least} bytes",
                )
            )
        with self._changed:
            # chunks in use by other threads cannot go: wait until the rest is enough
            while self._n_busy and least + self._chunks.used_bytes(sizes) > self.budget:
                self._changed.wait()
            chunks: dict[ChunkKey, Chunk] = {}
            missing = []
            for key in keys:
                chunk = self._chunks.use(key.cache_key)
                if chunk is not None:
                    chunk.users += 1
                    chunks[key] = chunk
                    self._count(chunk)
            for key in keys:
                if key not in chunks:
                    chunk = chunks[key] = Chunk(sizes[key.cache_key])
                    has_room = self._chunks.make_room(
                        chunk.nbytes, self._expected, expected_too=True
                    )
                    assert has_room
                    self._chunks.add(key.cache_key, chunk)
                    chunk.users += 1
                    missing.append((key, chunk))
                    self._count(chunk)
            self._n_busy += 1
            return chunks, missing

    def _count(self, chunk: Chunk) -> None:
        if chunk.unused:
            self._traffic.misses += 1
        else:
            self._traffic.hits += 1
        chunk.unused = False

    def _drop(self, key: ChunkKey, chunk: Chunk, error: BaseException) -> None:
        chunk.error = error
        self._chunks.remove(key.cache_key)
        self._changed.notify_all()

    def _load(self, key: ChunkKey, chunk: Chunk) -> None:
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

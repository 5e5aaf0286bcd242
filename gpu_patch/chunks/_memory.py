"""Where chunks are kept, and how they get there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from gpu_patch.chunks._image import ChunkedImage


class Loaded(Protocol):
    """A chunk in memory."""

    array: Any
    ready: Any


class ChunkMemory(Protocol):
    """Memory of one device."""

    @abstractmethod
    def load(self, image: ChunkedImage, chunk: tuple[int, ...]) -> tuple[Any, Any]:
        """Read a chunk; return its array, and what tells when it is there."""
        raise NotImplementedError

    @abstractmethod
    def hand_over(self, chunks: Iterable[Loaded]) -> None:
        """Let what follows read the chunks."""
        raise NotImplementedError


class HostMemory(ChunkMemory):
    """NumPy arrays."""

    def load(self, image: ChunkedImage, chunk: tuple[int, ...]) -> tuple[Any, Any]:
        shape = [part.stop - part.start for part in image.region(chunk)]
        array = np.empty(shape, image.dtype)
        image.read(chunk, array)
        return array, None

    def hand_over(self, chunks: Iterable[Loaded]) -> None:
        pass


def make_memory(device: str) -> ChunkMemory:
    """Return the memory of a device."""
    return HostMemory()

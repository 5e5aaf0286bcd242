"""Where chunks are kept, and how they get there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from functools import cache
from operator import itemgetter
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from gpu_patch.device import SideStream, import_cupy, on_device, out_of_memory
from gpu_patch.device.host_memory import pool
from gpu_patch.device.leases import new_output
from gpu_patch.device.pinned import PinnedPool

if TYPE_CHECKING:
    from gpu_patch.chunks.image import ChunkedImage


_MOST_BUFFERS = 4


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
    def publish(self, chunks: Iterable[Loaded]) -> None:
        """Let what follows read the chunks."""
        raise NotImplementedError

    @abstractmethod
    def free_behind(self, chunks: Iterable[Loaded]) -> None:
        """Say that what reads the chunks has been asked for: what follows does not."""
        raise NotImplementedError


class HostMemory(ChunkMemory):
    """NumPy arrays."""

    def load(self, image: ChunkedImage, chunk: tuple[int, ...]) -> tuple[Any, Any]:
        shape = [part.stop - part.start for part in image.region(chunk)]
        array = pool.take(shape, image.dtype)  # mostly what a chunk had that was dropped
        image.read(chunk, array)
        return array, None

    def publish(self, chunks: Iterable[Loaded]) -> None:
        """Do nothing: they are there."""

    def free_behind(self, chunks: Iterable[Loaded]) -> None:
        """Do nothing: they have been read."""


class CudaMemory(ChunkMemory):
    """CuPy arrays, copied through pinned memory on a stream of their own.

    Nothing waits for the device on the host, but for pinned memory that is used again.

    Parameters
    ----------
    device : str
        "cuda:N".
    """

    def __init__(self, device: str) -> None:
        self._cupy = import_cupy()
        self._device = device
        self._stream = SideStream(device, "chunks")
        self._pinned = PinnedPool(self._cupy, _MOST_BUFFERS)
        self._copying = Lock()
        self._n_copied = 0

    def load(self, image: ChunkedImage, chunk: tuple[int, ...]) -> tuple[Any, Any]:
        shape = [part.stop - part.start for part in image.region(chunk)]
        n_bytes = image.chunk_bytes(chunk)
        with on_device(self._device):
            buffer = self._pinned.take(n_bytes)
            image.read(chunk, buffer.host[:n_bytes].view(image.dtype).reshape(shape))

            def copy() -> Any:
                array = new_output(self._cupy, shape, image.dtype)
                buffer.copy_to(array)
                return array

            try:
                with self._copying:
                    array, event = self._stream.run(copy)
                    self._n_copied += 1
                    ready = self._n_copied, event
            except self._cupy.cuda.memory.OutOfMemoryError as error:
                raise out_of_memory(self._device, "chunks of images", error) from error
            finally:
                self._pinned.give_back(buffer)
        return array, ready

    def publish(self, chunks: Iterable[Loaded]) -> None:
        held = list(chunks)
        # copies are on one stream: when the last is done, all are
        _, event = max((chunk.ready for chunk in held), key=itemgetter(0))
        self._stream.publish([chunk.array for chunk in held], event)

    def free_behind(self, chunks: Iterable[Loaded]) -> None:
        # not at a chunk's end: the stream may have a model's work by then
        self._stream.free_behind(chunk.array for chunk in chunks)


def make_memory(device: str) -> ChunkMemory:
    """Return the memory of a device."""
    return HostMemory() if device == "cpu" else cuda_memory(device)


@cache
def cuda_memory(device: str) -> CudaMemory:
    """Return the memory of a CUDA device; kept, since copies may outlive all images."""
    return CudaMemory(device)

"""Streams: those of other libraries, and one beside them that makes arrays for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from gpu_patch.device.leases import note_reader
from gpu_patch.device.placement import import_cupy, on_device

Made = TypeVar("Made")


@contextmanager
def external_stream(device: str, pointer: int) -> Iterator[None]:
    """Make a stream of another library the current one of its device for a while."""
    cuda = import_cupy().cuda
    # CuPy 13 has no from_external, and 14 deprecates ExternalStream
    if hasattr(cuda.Stream, "from_external"):
        stream = cuda.Stream.from_external(_Pointer(pointer))
    else:
        stream = cuda.ExternalStream(pointer)
    with on_device(device), stream:
        yield


def current_stream(device: str) -> int:
    """Return the address of CuPy's current stream of a device."""
    with on_device(device):
        return int(import_cupy().cuda.get_current_stream().ptr)


class _Pointer(int):
    """A stream's address, as the CUDA stream protocol gives it."""

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, int(self)


class SideStream:
    """A stream that makes arrays for other streams, in order with them but never waited for.

    Parameters
    ----------
    device : str
        "cuda:N".
    purpose : str
        What it makes. Each purpose has a stream of its own: one need not wait for another.
    """

    def __init__(self, device: str, purpose: str) -> None:
        self._cupy, self._device = import_cupy(), device
        self._stream = _side_stream(device, purpose)
        with on_device(device):
            # wait for what is still writing the images
            event = self._cupy.cuda.Event(disable_timing=True)
            self._stream.wait_event(self._cupy.cuda.get_current_stream().record(event))

    def run(self, make: Callable[[], Made], *, block: bool = False) -> tuple[Made, Any]:
        """Return what `make` returns, run on this stream, and an event behind it.

        With `block`, a thread that waits for the event sleeps, instead of asking all the time.
        """
        with on_device(self._device), self._stream:
            made = make()
            event = self._cupy.cuda.Event(block=block, disable_timing=True)
            return made, self._stream.record(event)

    def publish(self, arrays: Iterable[Any], event: Any) -> list[Any]:
        """Return the arrays for the current stream, which waits for the event first.

        Memory that is not leased could be used again while that stream reads it: such arrays are
        copied there.
        """
        with on_device(self._device):
            reader = self._cupy.cuda.get_current_stream()
            reader.wait_event(event)
            return [a if note_reader(a, reader) else self._copied(a, reader) for a in arrays]

    def _copied(self, array: Any, reader: Any) -> Any:
        """Copy an array on the current stream, before this one may use its memory again."""
        copy = array.copy()
        self._stream.wait_event(reader.record(self._cupy.cuda.Event(disable_timing=True)))
        return copy


# one for the whole process: CuPy's pool keeps memory by stream, and that of a stream which is gone
# is never used again
@cache
def _side_stream(device: str, purpose: str) -> Any:
    with on_device(device):
        return import_cupy().cuda.Stream(non_blocking=True)

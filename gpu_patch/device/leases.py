"""Leased memory of a device: not used again before every stream that reads it has passed.

CuPy's pool gives memory out again in the order of the stream that it was taken on. That protects
a reader on the same stream and no other: an array that went to another library by DLPack may die
while work of that library, on a stream of its own, has not yet read it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gpu_patch.device.placement import with_room


class Lease:
    """Memory from CuPy's pool, which goes back to it behind all that reads it.

    Lives as long as an array, a view, or another library's tensor of the memory does. Its end
    costs nothing where all work was on one stream; otherwise the stream that the memory will be
    used on next waits, on the device, for the streams that have read it.

    Parameters
    ----------
    cupy : module
        CuPy.
    nbytes : int
        Size.

    Attributes
    ----------
    memory : cupy.cuda.MemoryPointer
        The memory.
    """

    def __init__(self, cupy: Any, nbytes: int) -> None:
        self._cuda = cupy.cuda
        self._stream = self._cuda.get_current_stream()
        self._readers: dict[int, tuple[object, Any]] = {}  # what keeps the stream, and an event
        self.memory = self._cuda.alloc(nbytes)

    def read_by(self, pointer: int | None, owner: object = None, event: Any = None) -> None:
        """Note a stream on which the memory is read.

        Parameters
        ----------
        pointer : int or None
            Its address, as DLPack gives it: None is the default stream, −1 none.
        owner : object
            Kept until the end of the lease, since the stream must exist then.
        event : cupy.cuda.Event or None, default None
            Behind the last reading on that stream; None where that is not known, and all that was
            asked of the stream before the end of the lease may read.
        """
        reader = int(pointer or 1)  # CUDA's pointers 0 and 1 both mean the default stream
        own = self._stream.ptr
        if reader >= 0 and reader != (own or 1):
            self._readers[reader] = owner, event

    def __del__(self) -> None:
        if sys.is_finalizing() or not self._readers:
            return
        with self._cuda.Device(self.memory.device_id):
            for reader, (_, event) in self._readers.items():
                if event is None:
                    event = self._cuda.Event(disable_timing=True)
                    # its method `record` would want a stream object
                    self._cuda.runtime.eventRecord(event.ptr, reader)
                self._stream.wait_event(event)


def note_reader(array: Any, stream: Any, event: Any = None) -> bool:
    """Tell an array's lease that a stream reads it, until an event where one is given.

    Returns
    -------
    bool
        Whether its memory is leased.
    """
    lease = getattr(array.data.mem, "_owner", None)
    if not isinstance(lease, Lease):
        return False
    lease.read_by(stream.ptr, stream, event)
    return True


def new_output(cupy: Any, shape: Sequence[int], dtype: DTypeLike) -> Any:
    """Return a CuPy array with undefined values, on the current device and stream.

    Raises
    ------
    cupy.cuda.memory.OutOfMemoryError
        Where there is no room.
    """
    kind = np.dtype(dtype)
    lease = with_room(cupy, lambda: Lease(cupy, prod(shape) * kind.itemsize))
    memory, cuda = lease.memory, cupy.cuda
    owned = cuda.UnownedMemory(memory.ptr, memory.mem.size, lease, memory.device_id)
    return _output_type(cupy)(tuple(shape), kind, cuda.MemoryPointer(owned, 0))


@cache
def _output_type(cupy: Any) -> Any:
    """Make a subclass of `cupy.ndarray`, which is not there before CuPy is."""

    class Output(cupy.ndarray):  # type: ignore[misc]
        """A CuPy array that notes which streams it was given to by DLPack."""

        def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
            # results of CuPy's functions are of this type too, on memory of their own
            owner = getattr(self.data.mem, "_owner", None)
            if isinstance(owner, Lease):
                owner.read_by(stream)
            return super().__dlpack__(stream=stream, **options)

    return Output

"""Slabs, which hold the rows that tiles are stitched into, and the thread that writes them."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.device import SideStream, import_cupy, on_device, out_of_memory
from gpu_patch.device.host_memory import pool
from gpu_patch.device.leases import new_output
from gpu_patch.device.pinned import PinnedBuffer, rounded_buffer

WriteRows: TypeAlias = Callable[[NDArray[Any]], object]
"""Writes rows, which it may not keep."""

_MOST_PENDING = 4
"""Rows, and other work, that may wait for the thread."""
_PINNED_BYTES = 1 << 26
"""Of rows that are copied at once: larger copies are no faster, and pinned memory is scarce."""


class PendingRows(Protocol):
    """Rows of a slab that have been given to a `SlabWriter`, and may not be written yet."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until their place in the slab may be overwritten."""
        raise NotImplementedError


class SlabWriter:
    """Writes rows of slabs in the host's memory, in a thread, in the order in which they come.

    After an error it writes nothing more.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpu_patch_output")
        self._pending: deque[Future[None]] = deque()
        self._failed = False
        self._error: BaseException | None = None

    def new(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Any:
        """Return an array where the tiles are, with undefined values."""
        return pool.take(shape, dtype)

    def copy(self, array: Any) -> Any:
        """Return a copy of an array of float32, where the tiles are."""
        found = self.new(array.shape)
        found[...] = array
        return found

    def most_rows(self, row_bytes: int) -> int:
        """Return how many rows of a size may be written at once."""
        return sys.maxsize

    def write_rows(self, slab: Any, axis: int, rows: slice, write: WriteRows) -> PendingRows:
        """Write rows of a slab, in the thread.

        Parameters
        ----------
        slab : array, shape (C, (Z), Y, X) or (bytes,)
            The slab, or what its rows have become.
        axis : int
            Its axis that rows are counted along.
        rows : slice
            Which rows.
        write : callable
            What is called with them.
        """
        return _RowsToWrite(
            self, self.submit(partial(write, slab[(slice(None),) * axis + (rows,)]))
        )

    def submit(self, work: Callable[[], object]) -> Future[None]:
        """Do something in the thread, after all that was submitted before."""
        while len(self._pending) >= _MOST_PENDING:
            self.wait(self._pending.popleft())
        self._pending.append(self._thread.submit(self._do, work))
        return self._pending[-1]

    def wait(self, submitted: Future[None]) -> None:
        """Wait for something that was submitted; raise the error that the thread met, if any."""
        submitted.result()
        # the traceback of an error refers to this frame; if the frame referred to the error too,
        # the circle would keep device memory alive
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def finish(self) -> None:
        """Wait until everything is written."""
        while self._pending:
            self.wait(self._pending.popleft())

    def close(self) -> None:
        """End the thread, once it has done what was submitted: resuming need not do it again."""
        self._thread.shutdown()

    def _do(self, work: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            work()
        except BaseException as error:
            self._failed, self._error = True, error


class _RowsToWrite(PendingRows):
    """Rows that the thread reads from the slab itself: free when it has written them."""

    def __init__(self, writer: SlabWriter, submitted: Future[None]) -> None:
        self._writer, self._submitted = writer, submitted

    def wait(self) -> None:
        self._writer.wait(self._submitted)


class CudaSlabWriter(SlabWriter):
    """Copies rows from slabs on a CUDA device to pinned memory, on a stream of its own.

    Parameters
    ----------
    device : str
        "cuda:N".
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self._cupy = import_cupy()
        self._device = device
        self._stream = SideStream(device, "predictions")
        self._copies: deque[tuple[PinnedBuffer, Future[None]]] = deque()

    def new(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Any:
        """Return an array where the tiles are, with undefined values."""
        try:
            with on_device(self._device):
                return new_output(self._cupy, shape, dtype)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise out_of_memory(self._device, "predictions", error) from error

    def most_rows(self, row_bytes: int) -> int:
        """Return as many as pinned memory of a moderate size holds."""
        return max(1, _PINNED_BYTES // row_bytes)

    def write_rows(self, slab: Any, axis: int, rows: slice, write: WriteRows) -> PendingRows:
        """Copy rows of a slab to the host, and write them, in the thread."""
        shape = (*slab.shape[:axis], rows.stop - rows.start, *slab.shape[axis + 1 :])
        slab_type = slab.dtype
        with on_device(self._device):
            event = self._cupy.cuda.Event(disable_timing=True)
            stitched = self._cupy.cuda.get_current_stream().record(event)
            n_bytes = slab_type.itemsize * prod(shape)
            buffer = self._take_buffer(n_bytes)

            def copy() -> None:
                self._cupy.cuda.get_current_stream().wait_event(stitched)
                buffer.copy_rows_from(slab, axis, rows)

            _, copied = self._stream.run(copy, block=True)  # the thread that writes waits for it

        def work() -> None:
            copied.synchronize()
            write(buffer.host[:n_bytes].view(slab_type).reshape(shape))

        self._copies.append((buffer, self.submit(work)))
        return _RowsToCopy(self._cupy, self._device, copied)

    def close(self) -> None:
        """End the thread likewise, and wait for the copies."""
        super().close()
        for buffer, _ in self._copies:
            buffer.copied.synchronize()
        self._copies.clear()

    def _take_buffer(self, n_bytes: int) -> PinnedBuffer:
        """Return pinned memory, new or such as holds rows that are written by now."""
        if len(self._copies) >= _MOST_PENDING:
            buffer, written = self._copies.popleft()
            self.wait(written)
            if buffer.host.nbytes >= n_bytes:
                return buffer
        return rounded_buffer(self._cupy, n_bytes)


class _RowsToCopy(PendingRows):
    """Rows that are free when they are copied: the current stream waits for it, not the host."""

    def __init__(self, cupy: Any, device: str, copied: Any) -> None:
        self._cupy, self._device, self._copied = cupy, device, copied

    def wait(self) -> None:
        with on_device(self._device):
            self._cupy.cuda.get_current_stream().wait_event(self._copied)


def make_slab_writer(device: str) -> SlabWriter:
    """Return what writes rows of slabs on a device."""
    return SlabWriter() if device == "cpu" else CudaSlabWriter(device)

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
from numpy.typing import NDArray

from gpu_patch.device import SideStream, import_cupy, on_device, out_of_memory
from gpu_patch.device.host_memory import pool
from gpu_patch.device.leases import new_output
from gpu_patch.device.pinned import PinnedBuffer, rounded_buffer
from gpu_patch.predict.schedule import BatchPart, RowRange
from gpu_patch.tiling import Segment, TileGrid

WriteRows: TypeAlias = Callable[[NDArray[np.float32]], object]
"""Writes rows C(Z)YX, which it may not keep."""

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

    def new(self, shape: tuple[int, ...]) -> Any:
        """Return an array of float32 where the tiles are, with undefined values."""
        return pool.take(shape, np.float32)

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
        slab : array, shape (C, (Z), Y, X)
            The slab.
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

    def new(self, shape: tuple[int, ...]) -> Any:
        """Return an array of float32 where the tiles are, with undefined values."""
        try:
            with on_device(self._device):
                return new_output(self._cupy, shape, np.float32)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise out_of_memory(self._device, "predictions", error) from error

    def most_rows(self, row_bytes: int) -> int:
        """Return as many as pinned memory of a moderate size holds."""
        return max(1, _PINNED_BYTES // row_bytes)

    def write_rows(self, slab: Any, axis: int, rows: slice, write: WriteRows) -> PendingRows:
        """Copy rows of a slab to the host, and write them, in the thread."""
        shape = (*slab.shape[:axis], rows.stop - rows.start, *slab.shape[axis + 1 :])
        with on_device(self._device):
            event = self._cupy.cuda.Event(disable_timing=True)
            stitched = self._cupy.cuda.get_current_stream().record(event)
            buffer = self._take_buffer(4 * prod(shape))

            def copy() -> None:
                self._cupy.cuda.get_current_stream().wait_event(stitched)
                buffer.copy_rows_from(slab, axis, rows)

            _, copied = self._stream.run(copy, block=True)  # the thread that writes waits for it

        def work() -> None:
            copied.synchronize()
            write(buffer.host[: 4 * prod(shape)].view(np.float32).reshape(shape))

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


class Slab:
    """Rows of a sample that are not complete yet: a ring, whose rows are used again.

    Parameters
    ----------
    rows : RowRange
        All rows that go through it.
    grid : TileGrid
        How the sample is tiled.
    n_channels, height : int
        Size of the ring.
    writer : SlabWriter
        Writes the rows that are complete.
    write : callable
        What the writer calls with image, sample, first row and rows C(Z)YX.
    """

    def __init__(
        self,
        rows: RowRange,
        grid: TileGrid,
        n_channels: int,
        height: int,
        writer: SlabWriter,
        write: Callable[[int, int, int, NDArray[np.float32]], object],
    ) -> None:
        self._rows, self._grid, self._height = rows, grid, height
        self._writer, self._write = writer, write
        size = list(grid.size)
        size[grid.slab_axis] = height
        self._array = writer.new((n_channels, *size))
        self._pending: deque[tuple[int, PendingRows]] = deque()  # with the first row

    def segment(self, part: BatchPart) -> Segment:
        """Return where tiles are stitched, once the rows that they overwrite are written."""
        while self._pending and self._pending[0][0] < part.written - self._height:
            self._pending.popleft()[1].wait()
        rows = self._rows.start, self._rows.stop
        return Segment(self._array, self._grid, part.first, part.count, rows)

    def write_rows(self, start: int, stop: int) -> None:
        """Write rows [start, stop) of the sample, which are complete."""
        axis = 1 + self._grid.slab_axis
        most = self._writer.most_rows(self._array.nbytes // self._height)
        while start < stop:
            first = start % self._height
            end = min(stop, start + most, start + self._height - first)  # of the ring
            write = partial(self._write, self._rows.image, self._rows.sample, start)
            place = slice(first, first + end - start)
            pending = self._writer.write_rows(self._array, axis, place, write)
            self._pending.append((start, pending))
            start = end

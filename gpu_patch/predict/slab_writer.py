"""Complete rows leave their slab for the output while the next batch is made."""

from __future__ import annotations

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
from gpu_patch.device.pinned import Piece, rounded_piece

Take: TypeAlias = Callable[[NDArray[np.float32]], object]
"""Takes rows C(Z)YX, which it may not keep."""

_MOST_PENDING = 4


class Departure(Protocol):
    """Rows on their way."""

    @abstractmethod
    def wait(self) -> None:
        """Let what follows write to where they were."""
        raise NotImplementedError


class Departures:
    """A thread that takes rows from slabs, in order, and does nothing more after an error.

    At most a few wait for it.
    """

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="gpu_patch_output")
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

    def leave(self, slab: Any, axis: int, rows: slice, take: Take) -> Departure:
        """Give rows of a slab to `take`, in the thread.

        Parameters
        ----------
        slab : array, shape (C, (Z), Y, X)
            The slab.
        axis : int
            Its axis that rows are counted along.
        rows : slice
            Which rows.
        take : callable
            What takes them, before `wait` returns or later.
        """
        return _Taken(self, self.then(partial(take, slab[(slice(None),) * axis + (rows,)])))

    def then(self, work: Callable[[], object]) -> Future[None]:
        """Do something in the thread, after all that went there before."""
        while len(self._pending) >= _MOST_PENDING:
            self.settle(self._pending.popleft())
        self._pending.append(self._writer.submit(self._do, work))
        return self._pending[-1]

    def settle(self, done: Future[None]) -> None:
        """Wait for something that the thread does, and raise the error that it met, if any."""
        done.result()
        # an error refers to all that stands here, by its traceback; if any of that referred to
        # the error, device memory would live on
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def finish(self) -> None:
        """Wait until the thread has nothing left to do."""
        while self._pending:
            self.settle(self._pending.popleft())

    def close(self) -> None:
        """End the thread when it has taken what was given to it: resuming will not need that."""
        self._writer.shutdown()

    def _do(self, work: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            work()
        except BaseException as error:
            self._failed, self._error = True, error


class _Taken(Departure):
    """Rows that are gone when the thread has taken them."""

    def __init__(self, departures: Departures, taken: Future[None]) -> None:
        self._departures, self._taken = departures, taken

    def wait(self) -> None:
        self._departures.settle(self._taken)


class CudaDepartures(Departures):
    """From a CUDA device, through pinned memory, copied on a stream of its own.

    Parameters
    ----------
    device : str
        "cuda:N".
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self._cupy = import_cupy()
        self._device = device
        self._stream = SideStream(device)
        self._copies: deque[tuple[Piece, Future[None]]] = deque()

    def new(self, shape: tuple[int, ...]) -> Any:
        """Return an array of float32 where the tiles are, with undefined values."""
        try:
            with on_device(self._device):
                return new_output(self._cupy, shape, np.float32)
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise out_of_memory(self._device, "predictions", error) from error

    def leave(self, slab: Any, axis: int, rows: slice, take: Take) -> Departure:
        """Copy rows of a slab to the host, and give them to `take`, in the thread."""
        shape = (*slab.shape[:axis], rows.stop - rows.start, *slab.shape[axis + 1 :])
        with on_device(self._device):
            stitched = self._cupy.cuda.get_current_stream().record()
            piece = self._take_piece(4 * prod(shape))

            def copy() -> None:
                self._cupy.cuda.get_current_stream().wait_event(stitched)
                piece.copy_rows_from(slab, axis, rows)

            _, copied = self._stream.run(copy)

        def work() -> None:
            copied.synchronize()
            take(piece.host[: 4 * prod(shape)].view(np.float32).reshape(shape))

        self._copies.append((piece, self.then(work)))
        return _Copied(self._cupy, self._device, copied)

    def close(self) -> None:
        """End the thread likewise, and copies too."""
        super().close()
        for piece, _ in self._copies:
            piece.copied.synchronize()
        self._copies.clear()

    def _take_piece(self, n_bytes: int) -> Piece:
        """Return pinned memory whose rows have been taken, or that is new."""
        if len(self._copies) >= _MOST_PENDING:
            piece, taken = self._copies.popleft()
            self.settle(taken)
            if piece.host.nbytes >= n_bytes:
                return piece
        return rounded_piece(self._cupy, n_bytes)


class _Copied(Departure):
    """Rows that are gone when they are copied, for which the current stream waits."""

    def __init__(self, cupy: Any, device: str, copied: Any) -> None:
        self._cupy, self._device, self._copied = cupy, device, copied

    def wait(self) -> None:
        with on_device(self._device):
            self._cupy.cuda.get_current_stream().wait_event(self._copied)


def make_departures(device: str) -> Departures:
    """Return what takes rows from slabs on a device."""
    return Departures() if device == "cpu" else CudaDepartures(device)

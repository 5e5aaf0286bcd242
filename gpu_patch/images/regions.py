"""Files of images that are read by chunk: kept open, used by several threads and processes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import finalize, ref

from numpy.typing import NDArray

from gpu_patch.chunks import RegionReader
from gpu_patch.chunks.per_process import PerProcess
from gpu_patch.images.dtypes import warn_of_lost_precision
from gpu_patch.images.readers import ImageReader
from gpu_patch.images.readers.array import ArrayReader
from gpu_patch.images.readers.base import FastReader

_MOST_OPEN = 64
_SHARE = 4
"""One of so many open files that the system allows: others are open beside ours."""


def most_open() -> int:
    """Return how many images may have an open file; they may be thousands."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return _MOST_OPEN
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return _MOST_OPEN
    return max(1, min(_MOST_OPEN, allowed // _SHARE))


class FileRegions(RegionReader):
    """Regions of one image, whose file is open only while it is among those read last.

    Parameters
    ----------
    reader : ImageReader
        The image.
    open_again : callable
        Returns another reader of it, for another process: what is open cannot be shared.
    """

    def __init__(self, reader: ImageReader, open_again: Callable[[], ImageReader]) -> None:
        self._open_again = open_again
        self._warned = False
        info = reader.info
        self.shape, self.dtype = info.canonical_shape, info.resident_dtype
        self.chunk_shape, self.for_threads = info.canonical_chunk_shape, reader.for_threads
        self._info, self._stamps, self._first = info, reader.stamps, [reader]
        # a forked process opens its own: the position in an open file is shared with the parent
        self._own: PerProcess[tuple[ImageReader, Any]] = PerProcess()
        self._fast: PerProcess[FastReader | None] = PerProcess()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._open_again, self._stamps)

    def read(self, region: Sequence[slice], out: NDArray[Any]) -> None:
        """Fill `out` with a region; see `ImageReader.read`."""
        reader, lock = self._own.get(self._open)
        with nullcontext() if self.for_threads else lock:
            reader.read(region, out)
        _open_files.used(self)
        if reader.largest_inexact and not self._warned:
            self._warned = True
            warn_of_lost_precision(reader.info.path, reader.info.dtype, reader.largest_inexact)

    def submit(self, region: Sequence[slice], out: NDArray[Any]) -> Any | None:
        """Begin to fill `out` with a region, where the file has a reader for that.

        Parameters
        ----------
        region : sequence of slice
            As in `read`.
        out : array
            As in `read`.

        Returns
        -------
        object or None
            With `done()` and `result()`; None where `read` should read it.
        """
        reader, _ = self._own.get(self._open)
        fast = self._fast.get(reader.fast)
        return None if fast is None else fast.begin(region, out)

    def _open(self) -> tuple[ImageReader, Any]:
        reader = self._first.pop() if self._first else self._open_again()
        if reader.info != self._info:
            raise ValueError(
                f"{self._info.path} has changed since it was opened: it was {self._info}, and is "
                f"{reader.info} now"
            )
        self._check(reader)
        finalize(self, reader.close)
        return reader, Lock()

    def _check(self, reader: ImageReader) -> None:
        """Raise where another process opens other files than the first one."""
        for path, stamp in reader.stamps.items():
            if self._stamps.get(path) != stamp:
                raise reader.changed(path)

    def close(self) -> None:
        """Let go of the file, unless it is being read."""
        reader, lock = self._own.get(self._open)
        if isinstance(reader, ArrayReader):  # it would forget its array
            return
        if lock.acquire(blocking=False):
            try:
                reader.close()
            finally:
                lock.release()


def _reopened(
    open_again: Callable[[], ImageReader], stamps: dict[Path, tuple[int, int]]
) -> FileRegions:
    reader = open_again()
    regions = FileRegions(reader, open_again)
    regions._stamps = stamps
    regions._check(reader)
    return regions


class _OpenFiles:
    """Closes the files that were read longest ago, so that not too many are open."""

    def __init__(self) -> None:
        self._order: OrderedDict[int, ref[FileRegions]] = OrderedDict()

    def used(self, regions: FileRegions) -> None:
        # threads may call this at once: each line is atomic by itself
        self._order.pop(id(regions), None)
        self._order[id(regions)] = ref(regions)
        most = most_open()
        while len(self._order) > most:
            other = self._order.popitem(last=False)[1]()
            if other is not None:
                other.close()


_open_files = _OpenFiles()

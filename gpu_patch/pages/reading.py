"""Reads of pages: by threads, or copies of what the system has in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Protocol

from numpy.typing import NDArray

from gpu_patch.chunks.image import ChunkedImage

_THREADS = 2


class Reading(Protocol):
    """A read that has begun; `concurrent.futures.Future` is one, and tensorstore's are."""

    @abstractmethod
    def done(self) -> bool:
        """Tell whether it has ended, well or not."""
        raise NotImplementedError

    @abstractmethod
    def result(self) -> Any:
        """Wait for its end; raise what went wrong."""
        raise NotImplementedError


class Copying:
    """A `Reading` that copies at once what is in memory, and the rest when somebody waits for it.

    Nothing is under way between the two: it can be forgotten.

    Parameters
    ----------
    copy : callable
        Takes whether to copy only what need not be waited for; tells whether that was all.
    """

    def __init__(self, copy: Callable[[bool], bool]) -> None:
        self._copy = copy
        self._error: Exception | None = None
        self._lock = Lock()
        self._is_done = self._go_on(at_once=True)

    def done(self) -> bool:
        """Tell whether it has ended, well or not."""
        return self._is_done

    def result(self) -> None:
        """Copy what is left; raise what went wrong."""
        with self._lock:
            if not self._is_done:
                self._is_done = self._go_on(at_once=False)
        if self._error is not None:
            raise self._error

    def _go_on(self, *, at_once: bool) -> bool:
        try:
            return self._copy(at_once)
        except Exception as error:
            self._error = error
            return True


class PageReader:
    """Begins reads: by an image's own fast reader where it has one, else in a few threads."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="gpu_patch_pages")

    def begin(self, image: ChunkedImage, region: Sequence[slice], out: NDArray[Any]) -> Reading:
        """Begin to fill `out` with a region of an image.

        Parameters
        ----------
        image : ChunkedImage
            The image.
        region : sequence of slice
            One per axis, with start and stop.
        out : array
            Of the region's shape and the image's data type. To be left alone until the end.
        """
        submit = getattr(image.reader, "submit", None)
        reading: Reading | None = None if submit is None else submit(region, out)
        return self.again(image, region, out) if reading is None else reading

    def again(self, image: ChunkedImage, region: Sequence[slice], out: NDArray[Any]) -> Reading:
        """Begin the same with the reader that tells file and chunk where it fails."""
        return self._executor.submit(image.read_region, region, out)

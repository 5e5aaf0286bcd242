"""Reads of pages that go on by themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from numpy.typing import NDArray

from gpu_patch.chunks.image import ChunkedImage

_THREADS = 2


class Reading(Protocol):
    """A read that is under way; `concurrent.futures.Future` is one, and tensorstore's are."""

    @abstractmethod
    def done(self) -> bool:
        """Tell whether it has ended, well or not."""
        raise NotImplementedError

    @abstractmethod
    def result(self) -> Any:
        """Wait for its end; raise what went wrong."""
        raise NotImplementedError


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

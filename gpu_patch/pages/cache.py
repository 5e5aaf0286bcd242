"""Pages of images in the memory of a device, up to a budget."""

from __future__ import annotations

from dataclasses import replace
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from gpu_patch import device as devices
from gpu_patch.checks import whole_number
from gpu_patch.chunks.image import ChunkedImage
from gpu_patch.chunks.per_process import PerProcess
from gpu_patch.pages.memory import slots_on
from gpu_patch.pages.pool import PagePool
from gpu_patch.pages.traffic import PageTraffic


class PageCache:
    """Keeps pages of images in the memory of a device, and lets operations read them there.

    Threads may share it; processes that are forked begin anew.

    Parameters
    ----------
    budget : int
        Bytes that the pages may take.
    device : str or None, default "cpu"
        See `gpu_patch.device.resolve`.

    Attributes
    ----------
    budget, device : int, str
        As given.

    Raises
    ------
    TypeError, ValueError
        The budget is no positive whole number, or there is no such device.
    """

    def __init__(self, budget: int, device: str | None = "cpu") -> None:
        self.device = devices.resolve(device)
        self.budget = whole_number("budget", budget, minimum=1)
        self._images: WeakValueDictionary[int, ChunkedImage] = WeakValueDictionary()
        self._traffic = PageTraffic()
        self._lock: PerProcess[Any] = PerProcess()
        self._pool: PagePool | None = None
        self._n_laid_out = 0

    def __repr__(self) -> str:
        return f"PageCache({self.budget}, {self.device!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return PageCache, (self.budget, self.device)

    def add(self, image: ChunkedImage) -> None:
        """Take an image; slots are laid out again for all of them when one is used next."""
        self._images[image.number] = image
        self._pool = None

    def _begin(self) -> Any:
        """Take it over: threads that read stay behind in a fork."""
        self._pool = None
        return Lock()

    @property
    def pool(self) -> PagePool:
        """The slots; others once images have come."""
        lock = self._lock.get(self._begin)
        found = self._pool
        if found is None:
            with lock:
                found = self._pool
                if found is None:
                    images = [self._images[number] for number in sorted(self._images)]
                    found = self._pool = PagePool(
                        images, self.budget, self._traffic, slots_on(self.device)
                    )
        return found

    @property
    def nbytes(self) -> int:
        """Bytes that pages take now."""
        self._lock.get(self._begin)
        return 0 if self._pool is None else self._pool.nbytes

    @property
    def traffic(self) -> PageTraffic:
        """What went through it so far."""
        return replace(self._traffic)

    def bytes_of(self, image: ChunkedImage) -> int:
        """Return how many bytes of an image are in memory.

        Parameters
        ----------
        image : ChunkedImage
            The image.

        Returns
        -------
        int
            0 where none of its pages is.
        """
        self._lock.get(self._begin)
        return 0 if self._pool is None else self._pool.bytes_of(image.number)

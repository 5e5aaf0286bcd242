"""What goes through pages."""

from __future__ import annotations

import time
from dataclasses import dataclass

from gpu_patch.chunks.lru import Traffic


@dataclass
class PageTraffic(Traffic):
    """What went through pages; printed, one line.

    Attributes
    ----------
    elapsed_s : float
        Seconds from the first batch that asked to the last one.
    """

    elapsed_s: float = 0.0
    _first: float | None = None

    @property
    def megabytes_per_second(self) -> float:
        """Megabytes read a second of that time; 0 where nothing asked yet."""
        return self.bytes_moved / 1e6 / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def waited_share(self) -> float:
        """Part of that time that batches waited."""
        return min(1.0, self.waited_s / self.elapsed_s) if self.elapsed_s else 0.0

    def asked(self, n_pages: int, n_fresh: int) -> None:
        """Count a batch that asks for pages, of which so many had to be read for it."""
        now = time.perf_counter()
        self._first = now if self._first is None else self._first
        self.elapsed_s = now - self._first
        self.hits += n_pages - n_fresh
        self.misses += n_fresh

    def waited(self, seconds: float) -> None:
        """Count a batch that waited."""
        self.waits += 1
        self.waited_s += seconds
        self.elapsed_s = max(self.elapsed_s, self.waited_s)

    def __str__(self) -> str:
        return (
            f"{super().__str__()}; {self.megabytes_per_second:.0f} MB/s, "
            f"{self.waited_share:.1%} of the time waited"
        )

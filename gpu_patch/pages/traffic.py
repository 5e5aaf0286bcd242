"""What goes through pages."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class PageTraffic:
    """What went through pages; printed, one line.

    Attributes
    ----------
    hits, misses : int
        Pages that batches asked for, each once per batch: a miss had to be read for it, whether
        now or ahead of time.
    bytes_moved : int
        Bytes read from files.
    waits : int
        Batches that had to wait for a page.
    waited_s : float
        How long they waited, in seconds.
    elapsed_s : float
        Seconds from the first batch that asked to the last one.
    """

    hits: int = 0
    misses: int = 0
    bytes_moved: int = 0
    waits: int = 0
    waited_s: float = 0.0
    elapsed_s: float = 0.0
    _first: float | None = None

    @property
    def hit_rate(self) -> float:
        """Part of the pages asked for that were in memory; 1 where none was asked for."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 1.0

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
            f"{self.hits} hits, {self.misses} misses ({self.hit_rate:.1%} hits), "
            f"{self.bytes_moved / 1e6:.1f} MB moved, {self.waits} waits of {self.waited_s:.2f} s; "
            f"{self.megabytes_per_second:.0f} MB/s, "
            f"{self.waited_share:.1%} of the time waited"
        )

"""When each page is needed: planned for many batches at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu_patch.distinct import distinct

NEVER = 1 << 60
"""Steps until a page is needed that is not needed again."""


class Schedule:
    """Which pages of a pool each step needs, and in how many steps each is needed again.

    Parameters
    ----------
    step, page : array of int64
        Steps, and beside them pages that they need; pairs may repeat.
    n_steps, n_pages : int
        How many there are of each.

    Attributes
    ----------
    page, step : array of int64
        The pairs, each once, in the order of steps.
    gap : array of int64
        Steps until each page is needed again, `NEVER` where it is not.
    """

    def __init__(
        self, step: NDArray[np.int64], page: NDArray[np.int64], n_steps: int, n_pages: int
    ) -> None:
        pairs = distinct(step * n_pages + page)
        self._n_steps, self._n_pages = n_steps, n_pages
        self.step, self.page = np.divmod(pairs, n_pages)
        self.gap = np.full(len(pairs), NEVER, np.int64)
        by_page = np.argsort(self.page, kind="stable")
        now, then = by_page[:-1], by_page[1:]
        again = self.page[now] == self.page[then]
        first = by_page[np.append(np.ones(min(1, len(pairs)), bool), ~again)]
        self._first_uses = self.page[first], self.step[first]
        self.gap[now[again]] = (self.step[then] - self.step[now])[again]
        self._first = np.searchsorted(self.step, np.arange(n_steps + 1)).tolist()

    def of(self, step: int) -> slice:
        """Return where the pages of a step are among all."""
        return slice(self._first[step], self._first[step + 1])

    def first_uses(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return every page once, and the step that needs it first."""
        return self._first_uses

    def followed_by(self, other: Schedule) -> None:
        """Tell of pages that are not needed again when another schedule needs them behind this."""
        then = np.full(self._n_pages, NEVER, np.int64)
        pages, steps = other.first_uses()
        then[pages] = steps
        last = self.gap == NEVER
        until = self._n_steps - self.step[last] + then[self.page[last]]
        self.gap[last] = np.minimum(until, NEVER)

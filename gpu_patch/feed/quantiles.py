"""Exact quantiles of more values than fit memory: one pass over small whole numbers, else two.

Whole numbers of 16 bits are counted one by one. Of other values the first pass counts the upper
half of their bits, which says in which of 65536 bins the wanted values lie, and the second counts
the lower half of the bits of those that lie there. The upper bits of a float32 are in the order of
the values, downwards where the sign is negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.feed.team import Team

_N_BINS = 1 << 16
_LOWEST, _N_WHOLE = -(1 << 15), 3 << 15
"""Whole numbers of 16 bits, with and without a sign: −32768 … 65535."""
_ASCENDING = np.concatenate([np.arange(0xFFFF, 0x7FFF, -1), np.arange(0x8000)])
"""Upper halves of the bits, in the order of the values."""
_NOT_FINITE = np.arange(_N_BINS) & 0x7F80 == 0x7F80
# Values counted at a time; counting takes about 20 bytes for each.
_STRIP = 1 << 20


class _Place(NamedTuple):
    """Where a wanted value lies: its bin, and how many values of the bin are below it."""

    upper: int
    rank: int


class Selection:
    """Values of one channel at some quantiles, interpolated as `numpy.quantile` does.

    Parameters
    ----------
    xp : module
        NumPy or CuPy, whose arrays the values are.
    levels : sequence of float
        Shares of the values below the quantiles.
    """

    def __init__(self, xp: Any, levels: Sequence[float]) -> None:
        self._xp, self._levels = xp, levels
        self._whole: Any = xp.zeros(_N_WHOLE, np.int64)
        self._upper: Any = xp.zeros(_N_BINS, np.int64)
        self._lower: dict[int, Any] = {}
        self._known: dict[int, NDArray[np.int64]] = {}
        """Of the lower halves, what every process knows alike."""
        self._places: list[tuple[_Place, _Place, float]] | None = None

    def update(self, values: Any, *, whole: bool) -> None:
        """Count values; in a second pass, all of them again.

        Parameters
        ----------
        values : array of float32, of any shape
            Some of the values.
        whole : bool
            Whether they are known to be whole numbers in −32768 … 65535.
        """
        flat = values.reshape(-1)
        for i in range(0, flat.size, _STRIP):
            strip = flat[i : i + _STRIP]
            if self._places is None:
                (self._count_whole if whole else self._count_upper)(strip)
            elif not whole:
                self._count_lower(strip)

    def join(self, team: Team) -> None:
        """Add what the other processes of a team have counted in this pass."""
        if self._places is None:
            for name in ("_whole", "_upper"):
                everywhere = team.all_of(_on_host(getattr(self, name)))
                setattr(self, name, self._xp.asarray(sum(everywhere)))
            return
        own = {b: _on_host(counts) - self._known[b] for b, counts in self._lower.items()}
        for counted in team.all_of(own):
            for bin_idx, found in counted.items():
                self._known[bin_idx] = self._known[bin_idx] + found
        self._lower = {b: self._xp.asarray(counts) for b, counts in self._known.items()}

    def needs_second_pass(self) -> bool:
        """Find where the wanted values lie; tell whether all must be counted again for that."""
        whole, upper = _on_host(self._whole), _on_host(self._upper)
        self._places = []
        if upper[_NOT_FINITE].any():
            return False
        (present,) = np.nonzero(whole)
        n_equal, bits = whole[present], (present + _LOWEST).astype(np.float32).view(np.uint32)
        in_order = (upper + _sums(bits >> 16, n_equal))[_ASCENDING]
        up_to = np.cumsum(in_order)
        last = int(up_to[-1]) - 1

        def place(rank: int) -> _Place:
            at = int(np.searchsorted(up_to, rank, "right"))
            return _Place(int(_ASCENDING[at]), rank - int(up_to[at] - in_order[at]))

        for level in self._levels:
            exact = last * level
            below = floor(exact)
            self._places.append((place(below), place(min(below + 1, last)), exact - below))
        for bin_idx in {
            place.upper for first, second, _ in self._places for place in (first, second)
        }:
            inside = bits >> 16 == bin_idx
            counted = _sums(bits[inside] & 0xFFFF, n_equal[inside])
            self._known[bin_idx] = counted
            self._lower[bin_idx] = self._xp.asarray(counted)
        return bool(upper[list(self._lower)].any())

    def result(self) -> list[float]:
        """Return the value at each level; NaN where there were values that are not finite."""
        return [
            _between(self._value(first), self._value(second), share)
            for first, second, share in self._places or []
        ] or [np.nan] * len(self._levels)

    def _count_whole(self, strip: Any) -> None:
        first = int(strip.min())
        counts = self._xp.bincount(strip.astype(np.int64) - first)
        at = first - _LOWEST
        self._whole[at : at + len(counts)] += counts

    def _count_upper(self, strip: Any) -> None:
        upper = (strip.view(np.uint32) >> 16).astype(np.int64)
        self._upper += self._xp.bincount(upper, minlength=_N_BINS)

    def _count_lower(self, strip: Any) -> None:
        bits = strip.view(np.uint32)
        upper = bits >> 16
        for bin_idx, counts in self._lower.items():
            lower = (bits[upper == bin_idx] & 0xFFFF).astype(np.int64)
            if lower.size:
                self._lower[bin_idx] = counts + self._xp.bincount(lower, minlength=_N_BINS)

    def _value(self, place: _Place) -> float:
        counts = _on_host(self._lower[place.upper])
        negative = place.upper >= _N_BINS // 2
        up_to = np.cumsum(counts[::-1] if negative else counts)
        at = int(np.searchsorted(up_to, place.rank, "right"))
        lower = _N_BINS - 1 - at if negative else at
        bits = np.array(place.upper << 16 | lower, np.uint32)
        return float(bits.view(np.float32)) + 0.0  # no negative zero


def _between(first: float, second: float, share: float) -> float:
    """Interpolate, from the nearer end as NumPy does."""
    width = second - first
    return first + width * share if share < 0.5 else second - width * (1 - share)


def _sums(bins: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add counts up in their bins."""
    return np.bincount(bins, counts, _N_BINS).astype(np.int64)


def _on_host(counts: Any) -> NDArray[np.int64]:
    host: NDArray[np.int64] = counts if isinstance(counts, np.ndarray) else counts.get()
    return host

"""Quantiles of more values than fit memory, as careamics estimates them.

careamics 0.3.5 (`careamics.dataset.normalization.running_quantile`) counts values in 65536 equal
bins over the range of the first patch and a tenth more at both ends. A patch that leaves the bins
makes new ones, over the range of all so far and a tenth more, and the counts move over. A quantile
is a place within a bin, as if its values were spread evenly. So the result depends on the order of
the patches, and is some 1e-5 of the range off the exact quantile; here are the same steps, for
whole batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

N_BINS = 1 << 16
_MARGIN = 0.1
# Values binned at a time; binning takes about 50 bytes for each.
_STRIP = 1 << 20


class Histogram:
    """Counts of one channel's values.

    Parameters
    ----------
    xp : module
        NumPy or CuPy, whose arrays the values are.
    """

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._low, self._high = np.inf, -np.inf
        self._counts = np.zeros(N_BINS, np.int64)
        self._edges = np.array([np.inf, -np.inf])  # no bins yet: anything is outside
        # edges and latest counts where the values are
        self._device_edges: Any = None
        self._recent: Any = None

    def update(self, values: Any, lows: NDArray[np.float64], highs: NDArray[np.float64]) -> None:
        """Count the values of a few patches, one patch after the other.

        Parameters
        ----------
        values : array of float32, shape (B, N)
            Finite.
        lows, highs : array of float64, shape (B,)
            Smallest and largest value of each patch, on the host.
        """
        lows = np.minimum.accumulate(np.minimum(lows, self._low))
        highs = np.maximum.accumulate(np.maximum(highs, self._high))
        at = 0
        while at < len(lows):
            if lows[at] < self._edges[0] or highs[at] > self._edges[-1]:
                self._widen(lows[at], highs[at])
            inside = (lows >= self._edges[0]) & (highs <= self._edges[-1])
            end = int(inside.sum())  # ranges only grow, so those inside come first
            flat = values[at:end].reshape(-1)
            for i in range(0, flat.size, _STRIP):
                self._count(flat[i : i + _STRIP])
            at = end
        self._low, self._high = lows[-1], highs[-1]

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return float(self._low), float(self._high)

    def quantile(self, level: float) -> float:
        """Return the value that the share `level` of all values lies below."""
        if level == 0 or self._low == self._high:
            return float(self._low)
        if level == 1:
            return float(self._high)
        self._settle()
        up_to = np.cumsum(self._counts)
        wanted = up_to[-1] * level
        bin_idx = int(np.searchsorted(up_to, wanted))
        share = (wanted - (up_to[bin_idx] - self._counts[bin_idx])) / self._counts[bin_idx]
        start, end = self._edges[bin_idx : bin_idx + 2]
        return float(start + share * (end - start))

    def _count(self, values: Any) -> None:
        first, last = self._edges[0], self._edges[-1]
        exact = values.astype(np.float64)
        bins = ((exact - first) * (N_BINS / (last - first))).astype(np.int64)
        bins = bins.clip(0, N_BINS - 1)
        # rounding may put a value at an edge into the next bin
        bins -= exact < self._device_edges[bins]
        bins += (exact >= self._device_edges[bins + 1]) & (bins < N_BINS - 1)
        counts = self._xp.bincount(bins, minlength=N_BINS)
        self._recent = counts if self._recent is None else self._recent + counts

    def _widen(self, low: float, high: float) -> None:
        """Make bins that hold `low` and `high` too."""
        low, high = min(low, self._edges[0]), max(high, self._edges[-1])
        margin = _MARGIN * ((high - low) or 1.0)
        edges = np.linspace(low - margin, high + margin, N_BINS + 1)
        self._settle()
        self._counts = rebinned(self._counts, self._edges, edges)
        self._edges, self._device_edges = edges, self._xp.asarray(edges)

    def _settle(self) -> None:
        """Add what was counted since to the counts on the host."""
        if self._recent is not None:
            self._counts += self._recent if self._xp is np else self._recent.get()
            self._recent = None


def rebinned(
    counts: NDArray[np.int64], edges: NDArray[np.float64], wider: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Move counts from bins to wider bins, of which each old bin touches one or two.

    A bin's count is divided by length into whole numbers; one that is left over goes where the
    larger fraction was cut off, to the left one of equals.
    """
    (old,) = np.nonzero(counts)
    count, start, end = counts[old], edges[old], edges[old + 1]
    left = np.searchsorted(wider, start, side="right") - 1
    right = left + 1  # there is one: the new range goes a tenth beyond the old one

    def share(into: NDArray[np.intp]) -> NDArray[np.float64]:
        overlap = np.minimum(end, wider[into + 1]) - np.maximum(start, wider[into])
        part: NDArray[np.float64] = count * (np.maximum(overlap, 0) / (end - start))
        return part

    into_left, into_right = share(left), share(right)
    kept = np.floor(into_left).astype(np.int64)
    moved = np.floor(into_right).astype(np.int64)
    rest = count - kept - moved
    to_left = into_left - kept >= into_right - moved
    result = np.zeros(len(wider) - 1, np.int64)
    np.add.at(result, left, kept + np.where(to_left, rest, 0))
    np.add.at(result, right, moved + np.where(to_left, 0, rest))
    return result

"""Two numbers per channel, of more values than fit memory, where the values are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_patch.feed._quantiles import Histogram
from gpu_patch.feed.normalization import Statistics


class Accumulator(Protocol):
    """Takes values in, and gives two numbers per channel."""

    def update(self, values: Any) -> None:
        """Take values (B, C, N)."""

    def result(self) -> Statistics:
        """Return both numbers of every channel."""


class MeanStd:
    """Mean and standard deviation, from sums of distances to a value near the mean.

    So nothing is lost where the mean is much larger than the standard deviation.
    """

    def __init__(self, first: Any) -> None:
        self._near = first[:1].mean(axis=2, keepdims=True)
        self._n = 0
        self._sum: Any = 0.0
        self._sum_of_squares: Any = 0.0

    def update(self, values: Any) -> None:
        distance = values - self._near
        self._n += values.size // values.shape[1]
        self._sum += _on_host(distance.sum(axis=(0, 2), dtype=np.float64))
        distance *= distance
        self._sum_of_squares += _on_host(distance.sum(axis=(0, 2), dtype=np.float64))

    def result(self) -> Statistics:
        shift = self._sum / self._n
        variance = np.maximum(self._sum_of_squares / self._n - shift**2, 0)
        mean = _on_host(self._near)[0, :, 0] + shift
        return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())


class MinMax:
    """Smallest and largest value."""

    def __init__(self) -> None:
        self._low: Any = np.inf
        self._high: Any = -np.inf

    def update(self, values: Any) -> None:
        self._low = np.minimum(self._low, _on_host(values.min(axis=(0, 2))))
        self._high = np.maximum(self._high, _on_host(values.max(axis=(0, 2))))

    def result(self) -> Statistics:
        return tuple(self._low.tolist()), tuple(self._high.tolist())


class Quantiles:
    """Two quantiles."""

    def __init__(self, library: Any, levels: Sequence[tuple[float, ...]]) -> None:
        self._levels = levels
        self._histograms = [Histogram(library) for _ in levels[0]]
        self._finite = True

    def update(self, values: Any) -> None:
        lows, highs = _on_host(values.min(axis=2)), _on_host(values.max(axis=2))
        self._finite &= bool(np.isfinite(lows).all() and np.isfinite(highs).all())
        if not self._finite:  # they have no bins
            return
        for c, histogram in enumerate(self._histograms):
            histogram.update(values[:, c], lows[:, c], highs[:, c])

    def result(self) -> Statistics:
        lower, upper = (
            tuple(
                histogram.quantile(level) if self._finite else np.nan
                for histogram, level in zip(self._histograms, levels, strict=True)
            )
            for levels in self._levels
        )
        return lower, upper


def _on_host(array: Any) -> NDArray[np.float64]:
    host: NDArray[Any] = array if isinstance(array, np.ndarray) else array.get()
    return host.astype(np.float64)

"""Two numbers per channel, of more values than fit memory, where the values are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_patch.feed.careamics_quantiles import Histogram
from gpu_patch.feed.kinds import Statistics
from gpu_patch.feed.quantiles import Selection
from gpu_patch.feed.team import Team


class Accumulator(Protocol):
    """Takes values in, and gives two numbers per channel."""

    def update(self, values: Any, *, whole: bool) -> None:
        """Take values (B, C, N), `whole` where they are known to be whole numbers of 16 bits."""

    def join(self, team: Team) -> None:
        """Take in what each process of a team has taken in, its values in the order of ranks."""

    def needs_second_pass(self) -> bool:
        """Tell, once all values are in, whether they must all come again."""

    def result(self) -> Statistics:
        """Return both numbers of every channel."""


class _OnePass:
    def needs_second_pass(self) -> bool:
        return False


class MeanStd(_OnePass):
    """Mean and standard deviation, from sums of distances to a value near the mean.

    So nothing is lost where the mean is much larger than the standard deviation.
    """

    def __init__(self, first: Any) -> None:
        self._near = first[:1].mean(axis=2, keepdims=True)
        # added up at the end, in one order however many processes share the work
        self._parts: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]] = []

    def update(self, values: Any, *, whole: bool) -> None:
        distance = values - self._near
        total = on_host(distance.sum(axis=(0, 2), dtype=np.float64))
        distance *= distance
        squares = on_host(distance.sum(axis=(0, 2), dtype=np.float64))
        self._parts.append((values.size // values.shape[1], total, squares))

    def join(self, team: Team) -> None:
        self._parts = [part for parts in team.all_of(self._parts) for part in parts]

    def result(self) -> Statistics:
        n, total, squares = (sum(column) for column in zip(*self._parts, strict=True))
        shift = total / n
        variance = np.maximum(squares / n - shift**2, 0)
        mean = on_host(self._near)[0, :, 0] + shift
        return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())


class MinMax(_OnePass):
    """Smallest and largest value."""

    def __init__(self) -> None:
        self._low: Any = np.inf
        self._high: Any = -np.inf

    def update(self, values: Any, *, whole: bool) -> None:
        self._low = np.minimum(self._low, on_host(values.min(axis=(0, 2))))
        self._high = np.maximum(self._high, on_host(values.max(axis=(0, 2))))

    def join(self, team: Team) -> None:
        lows, highs = zip(*team.all_of((self._low, self._high)), strict=True)
        self._low, self._high = np.minimum.reduce(lows), np.maximum.reduce(highs)

    def result(self) -> Statistics:
        return tuple(self._low.tolist()), tuple(self._high.tolist())


class Quantiles:
    """Two quantiles, exactly.

    Parameters
    ----------
    library : module
        NumPy or CuPy.
    lower, upper : sequence of float
        Shares of the values below, one per channel.
    """

    def __init__(self, library: Any, lower: Sequence[float], upper: Sequence[float]) -> None:
        self._channels = [Selection(library, levels) for levels in zip(lower, upper, strict=True)]

    def update(self, values: Any, *, whole: bool) -> None:
        for c, channel in enumerate(self._channels):
            channel.update(values[:, c], whole=whole)

    def join(self, team: Team) -> None:
        for channel in self._channels:
            channel.join(team)

    def needs_second_pass(self) -> bool:
        # all are asked, since asking also ends their first pass
        needs = [channel.needs_second_pass() for channel in self._channels]
        return any(needs)

    def result(self) -> Statistics:
        lower, upper = zip(*(channel.result() for channel in self._channels), strict=True)
        return lower, upper


class CareamicsQuantiles(_OnePass):
    """Two quantiles as careamics estimates them; parameters are those of `Quantiles`."""

    def __init__(self, library: Any, lower: Sequence[float], upper: Sequence[float]) -> None:
        self._levels = lower, upper
        self._histograms = [Histogram(library) for _ in lower]
        self._finite = True

    def update(self, values: Any, *, whole: bool) -> None:
        lows, highs = on_host(values.min(axis=2)), on_host(values.max(axis=2))
        self._finite &= bool(np.isfinite(lows).all() and np.isfinite(highs).all())
        if not self._finite:  # NaN and infinity have no bins
            return
        for c, histogram in enumerate(self._histograms):
            histogram.update(values[:, c], lows[:, c], highs[:, c])

    def join(self, team: Team) -> None:
        assert team.size == 1, "its results depend on the order of all values"

    def result(self) -> Statistics:
        lower, upper = (
            tuple(
                histogram.quantile(level) if self._finite else np.nan
                for histogram, level in zip(self._histograms, levels, strict=True)
            )
            for levels in self._levels
        )
        return lower, upper

    @property
    def ends(self) -> list[tuple[float, float]]:
        """Smallest and largest value of every channel."""
        return [histogram.ends for histogram in self._histograms]


def on_host(array: Any) -> NDArray[np.float64]:
    """Return numbers of NumPy or CuPy as NumPy's, in float64."""
    host: NDArray[Any] = array if isinstance(array, np.ndarray) else array.get()
    return host.astype(np.float64)

"""What is wrong with the values of an image: NaN, infinity, and samples of nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch import device as devices
from gpu_patch.images.loading import pieces
from gpu_patch.images.readers import ImageReader

_CPU_STRIP = 1 << 16
_CUDA_STRIP = 1 << 23
"""Values at once: what is looked at several times stays in a cache."""
_PIECE_BYTES = 1 << 25
_HALF_INFINITY = 0x7C00
"""Bits of an infinite float16; those of NaN are more."""


@dataclass(frozen=True)
class ValueCounts:
    """What is wrong with the values of an image; as a text, a line, "" for nothing.

    Attributes
    ----------
    n_values : int
        All of them.
    n_nan, n_infinite : int
        How many are not a number, and how many are infinite.
    empty : tuple of (int, int)
        Sample and channel of what holds nothing but zeros.
    constant : tuple of (int, int)
        Likewise of what holds one other value.
    n_planes : int
        How many channels of samples there are.
    """

    n_values: int
    n_nan: int
    n_infinite: int
    empty: tuple[tuple[int, int], ...]
    constant: tuple[tuple[int, int], ...]
    n_planes: int

    def __str__(self) -> str:
        found = [
            f"{n:,} of {self.n_values:,} values are {what}"
            for n, what in ((self.n_nan, "NaN"), (self.n_infinite, "infinite"))
            if n
        ]
        for which, what in ((self.empty, "nothing but zeros"), (self.constant, "one value")):
            if which:
                sample, channel = which[0]
                found.append(
                    f"{len(which)} of {self.n_planes} channels of samples hold {what}, the first "
                    f"is sample {sample}, channel {channel}"
                )
        return "; ".join(found)


class ValueCounter:
    """Counts the values of an image that comes in pieces, each of which is looked at once.

    Parameters
    ----------
    shape : sequence of int
        SC(Z)YX of the image.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._low = np.full(shape[:2], np.inf)
        self._high = np.full(shape[:2], -np.inf)
        self._n_values = self._n_nan = self._n_infinite = 0

    def add(self, start: tuple[int, int], piece: Any) -> None:
        """Take a piece in.

        Parameters
        ----------
        start : tuple of int
            Its first sample and channel.
        piece : array, SC(Z)YX
            NumPy's or CuPy's.
        """
        self._n_values += piece.size
        if devices.is_cuda_array(piece):
            with devices.on_device(f"cuda:{piece.device.id}"):
                self._add(start, piece, _CUDA_STRIP)
        else:
            self._add(start, piece, _CPU_STRIP)

    def _add(self, start: tuple[int, int], piece: Any, n: int) -> None:
        xp = devices.library_of(piece)
        places, strips = [], []
        for s, c in np.ndindex(piece.shape[:2]):
            flat = piece[s, c].reshape(-1)
            cut = [flat[i : i + n] for i in range(0, flat.size, n)]
            places += [(start[0] + s, start[1] + c)] * len(cut)
            strips += cut
        ends = xp.empty((2, len(strips)), piece.dtype)
        for i, strip in enumerate(strips):
            # NaN and infinity show here, so that finite strips need no other look
            ends[0, i], ends[1, i] = _ends(strip)
        lows, highs = (ends if xp is np else ends.get()).astype(np.float64)
        samples, channels = np.array(places).T
        np.minimum.at(self._low, (samples, channels), lows)
        np.maximum.at(self._high, (samples, channels), highs)
        if piece.dtype.kind == "f":
            for i in np.flatnonzero(~(np.isfinite(lows) & np.isfinite(highs))).tolist():
                n_nan, n_infinite = _not_finite(strips[i])
                self._n_nan += n_nan
                self._n_infinite += n_infinite

    def counts(self) -> ValueCounts:
        """Return what was counted."""
        is_constant, is_zero = self._low == self._high, self._low == 0
        return ValueCounts(
            self._n_values,
            self._n_nan,
            self._n_infinite,
            _places(is_constant & is_zero),
            _places(is_constant & ~is_zero),
            self._low.size,
        )


def count_values(array: Any) -> ValueCounts:
    """Count the values of an array SC(Z)YX, where it is."""
    counter = ValueCounter(array.shape)
    counter.add((0, 0), array)
    return counter.counts()


def count_values_of(reader: ImageReader, device: str) -> ValueCounts:
    """Count the values of an image in a file, of which a piece is in memory at a time.

    Parameters
    ----------
    reader : ImageReader
        The image.
    device : str
        "cpu" or "cuda:N", where the pieces are looked at.
    """
    info = reader.info
    counter = ValueCounter(info.canonical_shape)
    for region in pieces(info, _PIECE_BYTES):
        piece = np.empty([part.stop - part.start for part in region], info.resident_dtype)
        reader.read(region, piece)
        on_device = piece if device == "cpu" else devices.to_cuda(piece, device)
        counter.add((region[0].start, region[1].start), on_device)
    return counter.counts()


def _ends(strip: Any) -> Any:
    """Return minimum and maximum, of which one at least is NaN where there is NaN."""
    if not _is_half_on_host(strip):
        return strip.min(), strip.max()
    order = _in_order(strip.view(np.int16))
    return _in_order(np.array([order.min(), order.max()])).view(np.float16)


def _not_finite(strip: Any) -> tuple[int, int]:
    """Return how many values are NaN, and how many are infinite."""
    xp = devices.library_of(strip)
    if not _is_half_on_host(strip):
        return int(xp.count_nonzero(xp.isnan(strip))), int(xp.count_nonzero(xp.isinf(strip)))
    magnitude = strip.view(np.int16) & 0x7FFF
    return (
        int(np.count_nonzero(magnitude > _HALF_INFINITY)),
        int(np.count_nonzero(magnitude == _HALF_INFINITY)),
    )


def _is_half_on_host(strip: Any) -> bool:
    """Tell whether NumPy would look at values one by one, but at their bits many at a time."""
    return bool(strip.dtype == np.float16) and not devices.is_cuda_array(strip)


def _in_order(bits: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return integers in the order of the float16 of such bits; of such integers, the bits."""
    return bits ^ ((bits >> 15) & 0x7FFF)


def _places(where: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    return tuple((int(s), int(c)) for s, c in np.argwhere(where))

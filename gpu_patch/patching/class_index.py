"""Which pixels of label images are of a class, compactly: the n-th of them is found at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_patch.device import is_cuda_array

_RUNS = 64
"""Pairs of a gap and a run in a block: few, since a look-up goes through all of one block's."""
_LONGEST = 255
"""Of what is counted in a byte; what is longer takes several."""
_BITS = 512
"""Pixels in a block of bits."""
_PIXELS_AT_ONCE = 1 << 22


class PixelIndex(Protocol):
    """The pixels of a class, in order; images lie behind each other in one line of pixels."""

    columns: tuple[NDArray[Any], ...]
    """All that it is made of; equal ones are of equal pixels."""

    def pixels(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the rank-th pixel of the class, from 0 on, (n,) of (n,)."""


class Runs(PixelIndex):
    """Runs of pixels, as lengths of gaps and runs in bytes, with the sums at every 64th.

    Two bytes and a quarter a run, and as much for each 255 pixels of longer gaps and runs.

    Parameters
    ----------
    gaps, lengths : array of uint8, shape (n,)
        Pixels before each run that are not of the class, and pixels of the run.
    """

    def __init__(self, gaps: NDArray[np.uint8], lengths: NDArray[np.uint8]) -> None:
        rest = -len(gaps) % _RUNS
        self._gaps, self._lengths = (
            np.pad(column, (0, rest)).reshape(-1, _RUNS) for column in (gaps, lengths)
        )
        before = self._gaps.sum(axis=1, dtype=np.int64)
        within = self._lengths.sum(axis=1, dtype=np.int64)
        self._first_rank = within.cumsum() - within
        self._first_pixel = (before + within).cumsum() - before - within
        self.columns = self._gaps, self._lengths, self._first_rank, self._first_pixel

    def pixels(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the rank-th pixel of the class."""
        block = self._first_rank.searchsorted(rank, "right") - 1
        within = rank - self._first_rank[block]
        run = (self._lengths[block].cumsum(axis=1, dtype=np.int64) <= within[:, None]).sum(axis=1)
        gaps = self._gaps[block].cumsum(axis=1, dtype=np.int64)
        found: NDArray[np.int64] = (
            self._first_pixel[block] + gaps[np.arange(len(rank)), run] + within
        )
        return found

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """Yield whether pixels are of the class, some at a time, up to the last that is."""
        for i in range(0, len(self._gaps), _PIXELS_AT_ONCE // _LONGEST // _RUNS):
            part = slice(i, i + _PIXELS_AT_ONCE // _LONGEST // _RUNS)
            counts = np.stack([self._gaps[part], self._lengths[part]], axis=-1).ravel()
            yield np.resize([False, True], len(counts)).repeat(counts)


class Bits(PixelIndex):
    """A bit for each pixel, with counts at every 512th: where runs would take more.

    Parameters
    ----------
    masks : iterator of array of bool
        Whether pixels are of the class, piece by piece.
    """

    def __init__(self, masks: Iterator[NDArray[np.bool_]]) -> None:
        blocks, rest = [], np.empty(0, bool)
        for mask in masks:
            rest = np.concatenate([rest, mask])
            whole = len(rest) // _BITS * _BITS
            blocks.append(np.packbits(rest[:whole].reshape(-1, _BITS), axis=1))
            rest = rest[whole:]
        blocks.append(np.packbits(np.pad(rest, (0, -len(rest) % _BITS)).reshape(-1, _BITS), axis=1))
        self._bits = np.concatenate(blocks)
        within = np.concatenate([np.unpackbits(block, axis=1).sum(axis=1) for block in blocks])
        self._first_rank = within.astype(np.int64).cumsum() - within.astype(np.int64)
        self.columns = self._bits, self._first_rank

    def pixels(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the rank-th pixel of the class."""
        block = self._first_rank.searchsorted(rank, "right") - 1
        counts = np.unpackbits(self._bits[block], axis=1).cumsum(axis=1, dtype=np.int64)
        found: NDArray[np.int64] = (counts <= (rank - self._first_rank[block])[:, None]).sum(axis=1)
        return block * _BITS + found


class IndexBuilder:
    """Collects the runs of a class, piece by piece of the line of pixels."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.uint8]] = [np.empty((2, 0), np.uint8)]
        self._n_pixels = self._encoded = 0
        self._last = (0, 0)  # start and stop of a run that may go on

    def add(self, mask: NDArray[np.bool_]) -> int:
        """Take in whether the next pixels are of the class; return how many are."""
        edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)) + self._n_pixels
        starts, stops = edges[::2], edges[1::2]
        self._n_pixels += len(mask)
        if not len(starts):
            return 0
        n_found = int((stops - starts).sum())
        first, stop = self._last
        if stop > first and starts[0] == stop:  # so that pieces make no difference
            starts[0] = first
        elif stop > first:
            starts, stops = np.append(first, starts), np.append(stop, stops)
        self._encode(starts[:-1], stops[:-1])
        self._last = int(starts[-1]), int(stops[-1])
        return n_found

    def finish(self) -> PixelIndex:
        """Return the index: runs, or bits where these take less."""
        if self._last[1]:
            self._encode(*(np.array([end]) for end in self._last))
        gaps, lengths = np.concatenate(self._parts, axis=1)
        self._parts.clear()
        runs = Runs(gaps, lengths)
        bytes_of_runs = sum(column.nbytes for column in runs.columns)
        bytes_of_bits = -(-self._n_pixels // _BITS) * (_BITS // 8 + 8)
        return runs if bytes_of_runs <= bytes_of_bits else Bits(runs.masks())

    def _encode(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        if not len(starts):
            return
        gaps = starts - np.append(self._encoded, stops[:-1])
        lengths = stops - starts
        self._encoded = int(stops[-1])
        more_before, more_after = gaps // _LONGEST, (lengths - 1) // _LONGEST
        n_pairs = more_before + 1 + more_after
        own = np.cumsum(n_pairs) - 1 - more_after  # pairs with less than the longest gap
        is_before = np.arange(n_pairs.sum()) < own.repeat(n_pairs)
        part = np.where(is_before, [[_LONGEST], [0]], [[0], [_LONGEST]]).astype(np.uint8)
        part[0, own] = gaps - more_before * _LONGEST
        part[1, own] = lengths - more_after * _LONGEST
        self._parts.append(part)


def pixels_of(data: Any, sample: int, channel: int) -> Iterator[NDArray[Any]]:
    """Read a channel of a sample, some rows or planes at a time, flat and on the host.

    Parameters
    ----------
    data : array, SC(Z)YX
        NumPy's or CuPy's, or a `ChunkedImage`.
    sample, channel : int
        Which.
    """
    _, _, first, *others = data.shape
    in_chunk = getattr(data, "chunk_shape", (1, 1, 1))[2]
    step = max(1, _PIXELS_AT_ONCE // (int(np.prod(others)) * in_chunk)) * in_chunk
    whole = [slice(0, n) for n in others]
    for at in range(0, first, step):
        rows = slice(at, min(at + step, first))
        region = (slice(sample, sample + 1), slice(channel, channel + 1), rows, *whole)
        if hasattr(data, "read_region"):
            part = np.empty([axis.stop - axis.start for axis in region], data.dtype)
            data.read_region(region, part)
        else:
            part = data[region].get() if is_cuda_array(data) else data[region]
        yield part.reshape(-1)

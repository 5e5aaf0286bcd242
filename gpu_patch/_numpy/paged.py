"""Reading windows of images whose pages are in slots: the table says where each pixel is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.indexing import SMALL_WINDOW, rows_at
from gpu_patch.geometry import border_range, border_stretches, window_start
from gpu_patch.pages.image import PagedImage
from gpu_patch.sources import ChannelSources


class _Cut(NamedTuple):
    """A stretch of one axis of a window that lies in one page."""

    number: int
    """Of the page along the axis."""
    window: slice
    page: slice


def read_paged(
    image: PagedImage,
    sources: ChannelSources,
    start: NDArray[np.int64],
    todo: NDArray[np.bool_],
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    out: NDArray[Any] | list[NDArray[Any]],
    size: tuple[int, ...],
) -> None:
    """Read windows of one image.

    Parameters
    ----------
    image : PagedImage
        The image; the pages under the windows are there.
    sources, start, patch_size, n_scales, mode
        As in `_numpy.windows.read_windows`.
    todo : array of bool, shape (B, 1 or C)
        Which windows are of this image.
    out : array (B, C, (Z), Y, X), or list of B arrays (C, (Z), Y, X)
        Filled with the windows.
    size : tuple of int
        (Z)YX of a window.
    """
    page = np.array(image.page_shape[2:])
    lo = start // page
    n = np.array(image.shape[2:])
    inside = todo & ((start >= 0) & (start + size <= n)).all(axis=-1)
    first = image.base + sources.sample_idx // image.page_shape[0] * image.strides[0]
    first = first + (lo * image.strides[2:]).sum(axis=-1)
    if prod(size) <= SMALL_WINDOW:
        last = (start + (np.array(size) - 1)) // page
        in_one = inside & (lo == last).all(axis=-1)
        if in_one.any():
            _read_in_one(image, sources, start - lo * page, first, in_one, out, size)
        inside, todo = inside & ~in_one, todo & ~in_one
    reader = _Reader(image, sources)
    b, k = np.nonzero(inside)
    local = (start[b, k] - lo[b, k] * page).tolist()
    for i, j, at, origin in zip(b.tolist(), k.tolist(), local, first[b, k].tolist(), strict=True):
        cuts = [_cuts(*axis) for axis in zip(at, size, image.page_shape[2:], strict=True)]
        reader.copy(i, j, origin, cuts, out[i])
    for i, j in np.argwhere(todo & ~inside).tolist():
        cuts = _border_cuts(
            image, sources.coords[i, j], start[i, j], patch_size, n_scales, mode, size
        )
        origin = int(
            image.base + sources.sample_idx[i, j] // image.page_shape[0] * image.strides[0]
        )
        place = out[i] if len(todo[i]) == 1 else out[i][j : j + 1]
        covered = prod(sum(c.window.stop - c.window.start for c in axis) for axis in cuts)
        if covered < prod(size):
            place[...] = 0
        reader.copy(i, j, origin, cuts, out[i])


def _read_in_one(
    image: PagedImage,
    sources: ChannelSources,
    local: NDArray[np.int64],
    first: NDArray[np.int64],
    which: NDArray[np.bool_],
    out: NDArray[Any] | list[NDArray[Any]],
    size: tuple[int, ...],
) -> None:
    """Read windows that lie in one page each, `which` (B, 1 or C) of them, with one index."""
    samples_in, channels_in = image.page_shape[:2]
    b, k = np.nonzero(which)
    correlated = which.shape[1] == 1
    channels = sources.channels[None] if correlated else sources.channels[k]
    page, place = first[b, k], local[b, k]
    plane = sources.sample_idx[b, k] % samples_in * channels_in
    if correlated:
        page, plane, place = page[:, None], plane[:, None], place[:, None]
    slots = image.table[page + channels // channels_in * image.strides[1]]
    _check(image, slots)
    found = rows_at(image.planes, slots, plane + channels % channels_in, place, size, image.memory)
    if isinstance(out, np.ndarray):
        out[b if correlated else (b, k)] = found
        return
    for i, channel, pixels in zip(b.tolist(), k.tolist(), found, strict=True):
        out[i][... if correlated else channel] = pixels


class _Reader:
    """Copies windows out of several pages, channel by channel or all of a page at once."""

    def __init__(self, image: PagedImage, sources: ChannelSources) -> None:
        self._planes, self._slot_of = image.planes_of_slots, image.table.item
        self._strides = image.strides[2:].tolist()
        n_samples, n_channels = image.page_shape[:2]
        self._correlated = sources.image_idx.shape[1] == 1
        channels = sources.channels.tolist()
        self._first_plane = (sources.sample_idx % n_samples * n_channels).tolist()
        self._groups = [
            (c, channel // n_channels * int(image.strides[1]), channel % n_channels)
            for c, channel in enumerate(channels)
        ]
        every = self._correlated and channels == list(range(n_channels)) and n_samples == 1
        self._is_plain = every and image.ndim == 4

    def copy(
        self, b: int, k: int, origin: int, cuts: Sequence[Sequence[_Cut]], out: NDArray[Any]
    ) -> None:
        """Fill the channels of place k of sample b; `origin` is the page that cuts count from."""
        if self._is_plain:  # all planes of a page at once
            rows, columns = cuts
            row_stride, column_stride = self._strides
            for down, window_y, page_y in rows:
                first = origin + down * row_stride
                for right, window_x, page_x in columns:
                    planes = self._pixels(first + right * column_stride)
                    out[:, window_y, window_x] = planes[:, page_y, page_x]
            return
        groups = self._groups if self._correlated else self._groups[k : k + 1]
        for box in itertools.product(*cuts):
            page = origin
            for cut, stride in zip(box, self._strides, strict=True):
                page += cut.number * stride
            window = tuple([cut.window for cut in box])
            source = tuple([cut.page for cut in box])
            for c, offset, channel in groups:
                plane = self._pixels(page + offset)[self._first_plane[b][k] + channel]
                out[c][window] = plane[source]

    def _pixels(self, page: int) -> NDArray[Any]:
        slot = self._slot_of(page)
        if slot < 0:
            raise _absent()
        return self._planes[slot]


def _check(image: PagedImage, slots: NDArray[np.int32]) -> None:
    """Raise rather than read what is not there: pages must have been held."""
    if slots.min() < 0 or not image.pins[slots].all():
        raise _absent()


def _absent() -> RuntimeError:
    return RuntimeError("a window reads a page that nobody holds: this is a fault of gpu_patch")


@lru_cache(maxsize=1 << 16)
def _cuts(inside: int, size: int, page: int) -> tuple[_Cut, ...]:
    """Cut `size` pixels at the ends of pages; the first one lies `inside` page 0."""
    found = []
    at = number = 0
    while at < size:
        n = min(size - at, page - inside)
        found.append(_Cut(number, slice(at, at + n), slice(inside, inside + n)))
        at, inside, number = at + n, 0, number + 1
    return tuple(found)


def _border_cuts(
    image: PagedImage,
    own: NDArray[np.int64],
    start: NDArray[np.int64],
    patch_size: tuple[int, ...],
    n_scales: int,
    mode: str,
    size: tuple[int, ...],
) -> list[tuple[_Cut, ...]]:
    """Cut a window that leaves the image; what is zero of it is in no cut."""
    return [
        _folded_cuts(*axis, n_scales, mode)
        for axis in zip(
            own.tolist(),
            start.tolist(),
            patch_size,
            size,
            image.shape[2:],
            image.page_shape[2:],
            strict=True,
        )
    ]


@lru_cache(maxsize=1 << 14)
def _folded_cuts(
    own: int, start: int, patch: int, size: int, n: int, page: int, n_scales: int, mode: str
) -> tuple[_Cut, ...]:
    found = []
    lo, hi = border_range(window_start(own, patch, n_scales), patch << n_scales, n, mode)
    for at, first, length, step in border_stretches(start, size, lo, hi, mode):
        while length:
            number, inside = divmod(first, page)
            here = min(length, page - inside if step > 0 else inside + 1)
            stop = inside + step * here
            part = slice(inside, stop if stop >= 0 else None, step)
            found.append(_Cut(number, slice(at, at + here), part))
            at, first, length = at + here, first + step * here, length - here
    return tuple(found)

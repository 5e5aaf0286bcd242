"""Windows of paged images as the compiled kernels read them: in place, or as a copy.

A window that lies in one page is read there: the page is an image of its own to the kernel. Others
are put together from their pages first, and what lies beyond the image with them, in the data type
of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._numpy.paged import read_paged
from gpu_patch.device.host_memory import pool
from gpu_patch.geometry import window_start
from gpu_patch.ops.paged_set import PagedSet
from gpu_patch.pages import PagedImage
from gpu_patch.sources import ChannelSources
from gpu_patch.table import CHANNEL_SOURCE, PIXEL_TYPES, WindowTable, volume

_MOST_COPIED = 1 << 26
"""Bytes of windows that are put together at a time."""


class PagedTable(WindowTable):
    """Stands where a `table.ImageTable` stands, for the windows of one batch.

    Parameters
    ----------
    images : sequence of PagedImage
        The images; the pages under the windows are there as long as this is used.
    sources : ChannelSources
        What the batch reads.
    patch_size, scale, n_scales, mode
        The windows; see `pages.touches`.

    Attributes
    ----------
    places : ChannelSources
        What to read from this table: as many windows, each from its first pixel on.
    least_side : int
        No window leaves what is read.
    """

    least_side = 1 << 62

    def __init__(
        self,
        images: Sequence[PagedImage],
        sources: ChannelSources,
        patch_size: tuple[int, ...],
        scale: int,
        n_scales: int,
        mode: str,
    ) -> None:
        self._copies: list[NDArray[Any]] = []  # live as long as their addresses
        self._words = np.empty((*sources.shape, CHANNEL_SOURCE.itemsize // 8), np.int64)
        start = window_start(sources.coords, np.array(patch_size), scale)
        for number in np.unique(sources.image_idx).tolist():
            self._add(images[number], number, sources, start, patch_size, scale, n_scales, mode)
        zeros = np.zeros_like(sources.coords)
        self.places = sources._replace(coords=zeros)

    def sources(
        self, _: ChannelSources, weights: NDArray[np.float32] | None = None
    ) -> NDArray[np.void]:
        """Return `CHANNEL_SOURCE` records of shape (B, C)."""
        if weights is not None:
            self._words.view(np.float32)[..., 15] = weights
        found: NDArray[np.void] = self._words.view(CHANNEL_SOURCE)[..., 0]
        return found

    def sizes(self, sources: ChannelSources) -> NDArray[np.int64]:
        """Return sizes that no window leaves, (B, 1 or C, D)."""
        return np.full_like(sources.coords, self.least_side)

    def _add(
        self,
        image: PagedImage,
        number: int,
        sources: ChannelSources,
        start: NDArray[np.int64],
        patch_size: tuple[int, ...],
        scale: int,
        n_scales: int,
        mode: str,
    ) -> None:
        size = tuple(side << scale for side in patch_size)
        todo = sources.image_idx == number
        page = np.array(image.page_shape[2:])
        lo = start // page
        inside = ((start >= 0) & (start + size <= image.shape[2:])).all(axis=-1)
        in_one = todo & inside & (lo == (start + size - 1) // page).all(axis=-1)
        if in_one.any():
            self._in_place(image, sources, in_one, lo)
        rest = todo & ~in_one
        if not rest.any():
            return
        b = np.flatnonzero(rest.any(axis=1))
        n_channels = len(sources.channels)
        copies = pool.take((len(b), n_channels, *size), image.dtype)
        out: list[Any] = [None] * len(todo)
        for i, copy in zip(b.tolist(), copies, strict=True):
            out[i] = copy
        read_paged(image, sources, start, rest, patch_size, n_scales, mode, out, size)
        self._copies.append(copies)
        row = np.zeros(len(todo), np.int64)
        row[b] = np.arange(len(b))
        which, c = np.nonzero(np.broadcast_to(rest, sources.shape))
        bytes_of_one = prod(size) * image.dtype.itemsize
        address = copies.ctypes.data + (row[which] * n_channels + c) * bytes_of_one
        middle = window_start(np.zeros(len(size), np.int64), np.array(patch_size), scale)
        self._put(which, c, address, size, -middle, image)

    def _in_place(
        self,
        image: PagedImage,
        sources: ChannelSources,
        in_one: NDArray[np.bool_],
        lo: NDArray[np.int64],
    ) -> None:
        """Point at pages."""
        b, c = np.nonzero(np.broadcast_to(in_one, sources.shape))
        k = c if in_one.shape[1] > 1 else np.zeros_like(c)
        samples_in, channels_in, *side = image.page_shape
        channel, sample = sources.channels[c], sources.sample_idx[b, k]
        at = np.concatenate(
            [(sample // samples_in)[:, None], (channel // channels_in)[:, None], lo[b, k]], axis=1
        )
        slot = image.table[image.base + at @ image.strides].astype(np.int64)
        if slot.min() < 0 or not image.pins[slot].all():
            raise RuntimeError("a window reads a page that nobody holds: a fault of gpu_patch")
        plane = sample % samples_in * channels_in + channel % channels_in
        plane_bytes = prod(side) * image.dtype.itemsize
        memory = image.memory
        address = memory.ctypes.data + slot * memory.strides[0] + plane * plane_bytes
        self._put(b, c, address, side, sources.coords[b, k] - lo[b, k] * side, image)

    def _put(
        self,
        b: NDArray[np.int64],
        c: NDArray[np.int64],
        address: NDArray[np.int64],
        size: Sequence[int],
        coords: NDArray[np.int64],
        image: PagedImage,
    ) -> None:
        words = np.zeros((len(b), self._words.shape[-1]), np.int64)
        words[:, 0] = address
        words[:, 1:4] = volume(size)
        words[:, 7 - len(size) : 7] = coords
        words.view(np.int32)[:, 14] = PIXEL_TYPES[image.dtype]
        self._words[b, c] = words


def by_parts(
    pages: PagedSet,
    sources: ChannelSources,
    patch_size: tuple[int, ...],
    scale: int,
    n_scales: int,
    mode: str,
    make: Callable[[PagedTable, slice], Sequence[Any]],
) -> list[Any]:
    """Return what a compiled kernel makes of a batch, part by part as pages and memory allow.

    Parameters
    ----------
    pages : PagedSet
        The images.
    sources, patch_size, scale, n_scales, mode
        What is read; see `pages.touches`.
    make : callable
        Takes a table, and which samples it is of; returns arrays of these, or None.
    """
    most = max(image.dtype.itemsize for image in pages.images())
    window = prod(patch_size) << scale * len(patch_size)
    step = max(1, _MOST_COPIED // (window * most * len(sources.channels)))
    made: list[Sequence[Any]] = []

    def part(images: Sequence[Any], own: ChannelSources, samples: slice) -> None:
        begin = samples.start or 0
        for first in range(0, len(own.image_idx), step):
            some = slice(first, min(first + step, len(own.image_idx)))
            few = own._replace(
                image_idx=own.image_idx[some],
                sample_idx=own.sample_idx[some],
                coords=own.coords[some],
            )
            table = PagedTable(images, few, patch_size, scale, n_scales, mode)
            made.append(make(table, slice(begin + some.start, begin + some.stop)))

    pages.read(sources, patch_size, scale, n_scales, mode, part)
    if len(made) == 1:
        return list(made[0])
    return [None if each[0] is None else np.concatenate(each) for each in zip(*made, strict=True)]

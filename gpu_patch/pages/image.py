"""The pages of an image: their grid and numbers, and where their pixels are while in memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.chunks.image import ChunkedImage, kept_chunk_shape

_MOST_TOGETHER = 1 << 20
"""Bytes of a page that may hold all channels."""
_LEAST_SLOTS = 32
"""So many pages that hold all channels must fit."""
_MOST_GROWN = 1 << 22
"""Bytes up to which pages grow, where another image has large ones."""


class PagedImage:
    """An image SC(Z)YX whose pages come and go; the table tells in which slot each one is.

    Pages are numbered in the order of their grid, from `base` on. Those at the end of an axis fill
    their slot in part.

    Parameters
    ----------
    image : ChunkedImage
        The image.
    page_shape : tuple of int
        SC(Z)YX.
    base : int
        Number of its first page in the pool.

    Attributes
    ----------
    shape, dtype : tuple of int, numpy.dtype
        Of the whole image.
    page_shape, base : tuple of int, int
        As given.
    grid : tuple of int
        Number of pages along each axis.
    strides : array of int64
        How far apart the numbers of neighbours along each axis are.
    n_pages : int
        Number of pages.
    table : array of int32
        Slot of each page of the pool, −1 where it is not there.
    memory : array of uint8, (slots, bytes)
        All slots, where the device has them.
    planes : numpy.ndarray, (slots, S·C, (Z), Y, X)
        Pixels of all slots, as this image's pages lie in them; on the host alone.
    pins : array of int32
        How many use each slot; 0 of the slot −1, of pages that are not there.
    """

    table: NDArray[np.int32]
    planes: NDArray[Any]
    memory: Any
    pins: NDArray[np.int32]

    def __init__(self, image: ChunkedImage, page_shape: tuple[int, ...], base: int) -> None:
        self.number = image.number
        self.shape, self.dtype = image.shape, image.dtype
        self.page_shape, self.base = page_shape, base
        self.grid = tuple(-(-n // p) for n, p in zip(self.shape, page_shape, strict=True))
        self.n_pages = prod(self.grid)
        self.strides = np.array([prod(self.grid[axis + 1 :]) for axis in range(len(self.grid))])
        self.page_bytes = prod(page_shape) * self.dtype.itemsize
        self.planes_of_slots: list[NDArray[Any]] = []
        self._axes = list(zip(self.grid, page_shape, self.shape, strict=True))[::-1]

    def __repr__(self) -> str:
        return f"PagedImage({self.shape}, {self.dtype}, pages of {self.page_shape})"

    @property
    def ndim(self) -> int:
        """Number of axes: 4 for SCYX, 5 for SCZYX."""
        return len(self.shape)

    def lie_in(self, slots: Any, table: NDArray[np.int32], pins: NDArray[np.int32]) -> None:
        """Take slots (n, bytes) as where the pages are, and the table that says which is where."""
        self.memory, self.table, self.pins = slots, table, pins
        if isinstance(slots, np.ndarray):
            samples, channels, *spatial = self.page_shape
            own = slots[:, : self.page_bytes].view(self.dtype)
            self.planes = own.reshape(len(slots), samples * channels, *spatial)
            self.planes_of_slots = list(self.planes)  # faster than to index each time

    def region(self, page: int) -> tuple[slice, ...]:
        """Return what a page is of the image.

        Parameters
        ----------
        page : int
            Its number in the pool.

        Returns
        -------
        tuple of slice
            One per axis, with start and stop.
        """
        rest, found = page - self.base, []
        for n_pages, side, length in self._axes:
            rest, i = divmod(rest, n_pages)
            first = i * side
            found.append(slice(first, min(first + side, length)))
        return tuple(found[::-1])

    def part(self, region: Sequence[slice], slot: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the pixels of a slot's bytes that a page of a region fills, of its shape."""
        lengths = tuple([part.stop - part.start for part in region])
        whole: NDArray[Any] = slot[: self.page_bytes].view(self.dtype).reshape(self.page_shape)
        return whole if lengths == self.page_shape else whole[tuple(map(slice, lengths))]


def page_shapes(images: Sequence[ChunkedImage], budget: int) -> list[tuple[int, ...]]:
    """Return the shapes SC(Z)YX of images' pages: multiples of their chunks, of about one size.

    All slots are as large as the largest page, so that small ones grow. A page holds all channels
    where that is not much: patches read them together, and look up one page instead of several.

    Parameters
    ----------
    images : sequence of ChunkedImage
        The images.
    budget : int
        Bytes that all pages in memory may take.
    """
    most_together = min(_MOST_TOGETHER, budget // _LEAST_SLOTS)
    shapes = []
    for image in images:
        samples, channels, *spatial = image.chunk_shape
        together = (samples, image.shape[1], *spatial)
        fits = prod(together) * image.dtype.itemsize <= most_together
        shapes.append(together if fits else (samples, channels, *spatial))
    sizes = [prod(s) * i.dtype.itemsize for s, i in zip(shapes, images, strict=True)]
    least = min(max(sizes), _MOST_GROWN) // 2 if len(set(sizes)) > 1 else 0
    return [
        kept_chunk_shape(image.shape, shape, image.dtype.itemsize, least)
        for image, shape in zip(images, shapes, strict=True)
    ]

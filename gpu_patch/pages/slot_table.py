"""The table of a batch whose images lie in slots: which slots, as kernels read it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from gpu_patch.geometry import window_start
from gpu_patch.pages.image import PagedImage
from gpu_patch.pages.touches import check_indices
from gpu_patch.sources import ChannelSources
from gpu_patch.table import (
    CHANNEL_SOURCE,
    PIXEL_TYPES,
    Addresses,
    WindowTable,
    all_within,
    volume,
)

PAGE_BOX = np.dtype(
    [
        ("slot_bytes", np.int64),
        ("first_slot", np.int32),
        ("grid", np.int32, 3),
        ("first", np.int32, 3),
        ("stride", np.int32, 2),
        ("side", np.int32, 3),
        ("x_bits", np.int32),
        ("unused", np.int32),
    ]
)
"""`struct PageBox`."""


class SlotTable(WindowTable):
    """Stands where a `table.ImageTable` stands, for images whose pages are in slots.

    Parameters
    ----------
    addresses : Addresses
        What tells where the slots are.
    images : sequence of PagedImage
        The images.

    Attributes
    ----------
    n_dims, pixel_types, most_pixels, least_side
        As those of `table.ImageTable`.
    """

    def __init__(self, addresses: Addresses, images: Sequence[PagedImage]) -> None:
        self._images = images
        self.n_dims = n_dims = images[0].ndim - 2
        self.pixel_types = {PIXEL_TYPES[image.dtype] for image in images}
        self.most_pixels = max(prod(image.shape[2:]) for image in images)
        self.least_side = min(min(image.shape[2:]) for image in images)
        self._sizes = np.array([image.shape[2:] for image in images], np.int64)
        self._fewest = [min(image.shape[axis] for image in images) for axis in (0, 1)]
        self._sides = np.array([image.page_shape for image in images], np.int64)
        self._grids = np.array([image.grid for image in images], np.int64)
        self._strides = np.array([image.strides for image in images], np.int64)
        self._bases = np.array([image.base for image in images], np.int64)
        self._plane_bytes = np.array(
            [prod(image.page_shape[2:]) * image.dtype.itemsize for image in images]
        )
        # of each image: a record of a source whose plane is the first of the first slot
        self._records = np.zeros((len(images), CHANNEL_SOURCE.itemsize // 8), np.int64)
        self._boxes = np.zeros((len(images), PAGE_BOX.itemsize // 4), np.int32)
        for i, image in enumerate(images):
            self._records[i, 0] = addresses.pointer(image.memory)
            self._records[i, 1:4] = volume(image.shape[2:])
            self._records.view(np.int32)[i, 14] = PIXEL_TYPES[image.dtype]
            self._boxes[i, :2].view(np.int64)[0] = image.memory.shape[1]
            self._boxes[i, 3:6] = volume(image.grid[2:])
            self._boxes[i, 11:14] = volume(image.page_shape[2:])
            self._boxes[i, 14] = (image.page_shape[-1] - 1).bit_length()
        self._whole_boxes = self._boxes.copy()
        self._whole_boxes[:, 9:11] = self._strides[:, -3:-1] if n_dims == 3 else 0
        self._whole_boxes[:, 10] = self._strides[:, -2]
        self._tables = [image.table for image in images]
        self._is_one_pool = all(table is self._tables[0] for table in self._tables)

    def sources(
        self, sources: ChannelSources, weights: NDArray[np.float32] | None = None
    ) -> NDArray[np.void]:
        """Return `CHANNEL_SOURCE` records of shape (B, C): planes of the first slot.

        Raises
        ------
        IndexError
            Where an image, sample or channel does not exist.
        """
        image_idx, sample_idx, coords, channels = sources
        which = 0 if len(self._images) == 1 else image_idx
        if not (
            all_within(image_idx, 0, len(self._images))
            and all_within(sample_idx, 0, self._fewest[0])
            and all_within(channels, 0, self._fewest[1])
        ):
            check_indices(self._images, sources)
        own = self._sides[which]
        plane = sample_idx % own[..., 0] * own[..., 1] + channels % own[..., 1]
        words = np.empty((*sources.shape, CHANNEL_SOURCE.itemsize // 8), np.int64)
        words[:] = self._records[which]
        words[..., 0] += plane * self._plane_bytes[which]
        words[..., 7 - self.n_dims : 7] = coords
        if weights is not None:
            words.view(np.float32)[..., 15] = weights
        found: NDArray[np.void] = words.view(CHANNEL_SOURCE)[..., 0]
        return found

    def sizes(self, sources: ChannelSources) -> NDArray[np.int64]:
        """Return the images' (Z)YX sizes, (B, 1 or C, D)."""
        return self._sizes[sources.image_idx]

    def pages(
        self,
        sources: ChannelSources,
        patch_size: Sequence[int],
        scale: int,
        n_scales: int,
        mode: str,
    ) -> tuple[NDArray[np.void], NDArray[np.int32]]:
        """Return `PAGE_BOX` records of shape (B, C), and the slots of their pages.

        Parameters
        ----------
        sources, patch_size, scale, n_scales, mode
            The windows; see `pages.touches`. Their pages are held.

        Raises
        ------
        RuntimeError
            A page is not held: this is a fault of gpu_patch.
        """
        first, count, exact = self._spans(sources, patch_size, scale, n_scales, mode)
        n_pages = tuple(count.reshape(-1, self.n_dims).max(axis=0).tolist())
        steps = _steps(n_pages)  # (n, D)
        which = 0 if len(self._images) == 1 else sources.image_idx
        page = self._first_pages(sources, which)
        strides, grids = self._strides[which], self._grids[which]
        at = first[..., None, :] + steps
        if mode == "periodic":
            beyond = at >= grids[..., None, 2:]
            at = np.where(beyond, at - grids[..., None, 2:], at)
        offset = (at * strides[..., None, 2:]).sum(axis=-1)
        read = (steps < count[..., None, :]).all(axis=-1) & exact[..., None]
        slots = self._slots(sources.image_idx, page[..., None] + offset, read)
        words = np.empty((*sources.shape, PAGE_BOX.itemsize // 4), np.int32)
        words[:] = self._boxes[which]
        n_slots = slots.shape[-1]
        words[..., 2] = np.arange(0, slots.size, n_slots).reshape(sources.shape)
        words[..., 9 - self.n_dims : 9] = first
        words[..., 9], words[..., 10] = n_pages[-2] * n_pages[-1], n_pages[-1]
        found: NDArray[np.void] = words.view(PAGE_BOX)[..., 0]
        return found, slots

    def all_pages(self, sources: ChannelSources) -> tuple[NDArray[np.void], NDArray[np.int32]]:
        """Return the same for a kernel of the host, which reads the whole page table.

        Raises
        ------
        ValueError
            The images are in several pools, which have a table each.
        """
        if not self._is_one_pool:
            raise ValueError("the images are in several pools")
        which = 0 if len(self._images) == 1 else sources.image_idx
        words = np.empty((*sources.shape, PAGE_BOX.itemsize // 4), np.int32)
        words[:] = self._whole_boxes[which]
        words[..., 2] = self._first_pages(sources, which)
        found: NDArray[np.void] = words.view(PAGE_BOX)[..., 0]
        return found, self._tables[0]

    def _first_pages(
        self, sources: ChannelSources, which: int | NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the first page of each sample and channel, (B, C)."""
        sides, strides = self._sides[which], self._strides[which]
        page = self._bases[which] + sources.sample_idx // sides[..., 0] * strides[..., 0]
        found: NDArray[np.int64] = page + sources.channels // sides[..., 1] * strides[..., 1]
        return found

    def _spans(
        self,
        sources: ChannelSources,
        patch_size: Sequence[int],
        scale: int,
        n_scales: int,
        mode: str,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return first page and number of pages per axis, and whether all of them are read."""
        size = np.array(patch_size, np.int64)
        length = size << scale
        which = 0 if len(self._images) == 1 else sources.image_idx
        sides, n = self._sides[which][..., 2:], self._sizes[which]
        start = window_start(sources.coords, size, scale)
        last = start + (length - 1)
        exact = np.ones(start.shape[:2], bool)
        outside = (start < 0) | (last >= n)
        if not outside.any():
            first = start // sides
            return first, last // sides - first + 1, exact
        leaves: NDArray[np.bool_] = np.any(outside, axis=-1)
        n = self.sizes(sources)
        if mode == "periodic":
            return *self._around(sources, start, length, leaves), exact
        if mode == "zero":  # of a window of zeros alone nothing is read
            exact = np.all((start < n) & (last >= 0), axis=-1)
        elif (folds := self._folds(sources, size, leaves, mode)).any():
            exact, start = ~folds, start.copy()
            cuts = window_start(sources.coords, size, n_scales)[folds]
            lo, hi = (np.clip(end, 0, n[folds]) for end in (cuts, cuts + (size << n_scales)))
            start[folds], last[folds] = lo, hi - 1
        if mode == "reflect":  # mirrored at the first pixel, one pixel more is read
            last = last + leaves[..., None]
        # outside of the image on one side, the page at its end stands for none
        first = np.minimum(np.maximum(start, 0), n - 1) // sides
        return first, np.minimum(np.maximum(last, 0), n - 1) // sides - first + 1, exact

    def _folds(
        self, sources: ChannelSources, size: NDArray[np.int64], leaves: NDArray[np.bool_], mode: str
    ) -> NDArray[np.bool_]:
        """Tell which windows may read any page of the cut that borders fold into."""
        if mode == "wrap":
            return leaves
        centre = sources.coords + size // 2
        far: NDArray[np.bool_] = np.any((centre < 0) | (centre >= self.sizes(sources)), axis=-1)
        return leaves & far

    def _around(
        self,
        sources: ChannelSources,
        start: NDArray[np.int64],
        length: NDArray[np.int64],
        leaves: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first page and number of pages of windows that go round the image."""
        sides, n = self._sides[sources.image_idx, 2:], self.sizes(sources)
        grids = self._grids[sources.image_idx, 2:]
        own = start % n
        end = own + (length - 1)
        whole = (length >= n) & leaves[..., None]
        first = np.where(whole, 0, own // sides)
        stop = end % n // sides + np.where(end >= n, grids, 0) + 1
        return first, np.where(whole, grids, np.minimum(stop - first, grids))

    def _slots(
        self,
        image_idx: NDArray[np.int64],
        pages: NDArray[np.int64],
        read: NDArray[np.bool_],
    ) -> NDArray[np.int32]:
        """Look the slots of pages (B, C, n) up; those that are `read` (B, 1 or C, n) are held."""
        # those that are not read may be of no page
        if self._is_one_pool:
            found: NDArray[np.int32] = self._tables[0].take(pages, mode="clip")
            held = (found >= 0) & (self._images[0].pins.take(found, mode="clip") > 0)
        else:
            found = np.empty(pages.shape, np.int32)
            held = np.empty(pages.shape, bool)
            for i in np.unique(image_idx).tolist():
                own = np.broadcast_to(image_idx == i, pages.shape[:2])
                found[own] = slots = self._tables[i].take(pages[own], mode="clip")
                held[own] = (slots >= 0) & (self._images[i].pins.take(slots, mode="clip") > 0)
        if not (held | ~read).all():
            raise RuntimeError(
                "a window reads a page that nobody holds: this is a fault of gpu_patch"
            )
        return found


@lru_cache(maxsize=64)
def _steps(n_pages: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the pages of a box as steps along the axes, (n, D)."""
    return np.indices(n_pages).reshape(len(n_pages), -1).T

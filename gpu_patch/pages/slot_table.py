"""The table of a batch whose images lie in slots: which slots, as kernels read it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from gpu_patch.chunks.windows import check_indices
from gpu_patch.geometry import border_range, window_start
from gpu_patch.pages.image import PagedImage
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
        self._tables = [image.table for image in images]
        self._is_one_pool = all(table is self._tables[0] for table in self._tables)
        assert n_dims in (2, 3)

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
        if not (
            all_within(image_idx, 0, len(self._images))
            and all_within(sample_idx, 0, self._fewest[0])
            and all_within(channels, 0, self._fewest[1])
        ):
            check_indices(self._images, sources)
        own = self._sides[image_idx]
        plane = sample_idx % own[..., 0] * own[..., 1] + channels % own[..., 1]
        words = np.empty((*sources.shape, CHANNEL_SOURCE.itemsize // 8), np.int64)
        words[:] = self._records[image_idx]
        words[..., 0] += plane * self._plane_bytes[image_idx]
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
        image_idx, sample_idx, _, channels = sources
        first, count, exact = self._spans(sources, patch_size, scale, n_scales, mode)
        n_pages = count.reshape(-1, self.n_dims).max(axis=0)
        sides, strides, grids = (t[image_idx] for t in (self._sides, self._strides, self._grids))
        origin = self._bases[image_idx] + sample_idx // sides[..., 0] * strides[..., 0]
        page = origin + channels // sides[..., 1] * strides[..., 1]  # (B, C)
        there = np.ones((*image_idx.shape, 1), bool)
        offset = np.zeros((*image_idx.shape, 1), np.int64)
        for d in range(self.n_dims):
            step = np.arange(n_pages[d])
            at = first[..., d, None] + step
            at = np.where(at >= grids[..., 2 + d, None], at - grids[..., 2 + d, None], at)
            at = np.minimum(at, grids[..., 2 + d, None] - 1) * strides[..., 2 + d, None]
            offset = (offset[..., None] + at[..., None, :]).reshape(*image_idx.shape, -1)
            inside = step < count[..., d, None]
            there = (there[..., None] & inside[..., None, :]).reshape(*image_idx.shape, -1)
        slots = self._slots(image_idx, page[..., None] + offset, there & exact[..., None])
        words = np.empty((*sources.shape, PAGE_BOX.itemsize // 4), np.int32)
        words[:] = self._boxes[image_idx]
        n_slots = slots.shape[-1]
        words[..., 2] = np.arange(slots.size // n_slots).reshape(sources.shape) * n_slots
        words[..., 9 - self.n_dims : 9] = first
        words[..., 9], words[..., 10] = n_pages[-2] * n_pages[-1], n_pages[-1]
        found: NDArray[np.void] = words.view(PAGE_BOX)[..., 0]
        return found, slots

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
        sides, n = self._sides[sources.image_idx, 2:], self.sizes(sources)
        start = window_start(sources.coords, size, scale)
        last = start + (length - 1)
        exact = np.ones(start.shape[:2], bool)
        leaves: NDArray[np.bool_] = np.any((start < 0) | (last >= n), axis=-1)
        if not leaves.any():
            first = start // sides
            return first, last // sides - first + 1, exact
        around = np.zeros_like(exact)
        if mode == "periodic":
            around = leaves
        elif mode != "zero":  # borders fold into the cut
            centre = sources.coords + size // 2
            far: NDArray[np.bool_] = np.any((centre < 0) | (centre >= n), axis=-1)
            folds = leaves & (far | (mode == "wrap"))
            if mode == "reflect":  # mirrored at the first pixel, one pixel more is read
                last = last + leaves[..., None]
            if folds.any():
                cut = window_start(sources.coords, size, n_scales)
                ends = [
                    border_range(int(c), int(p) << n_scales, int(m), mode)
                    for c, p, m in zip(
                        cut[folds].ravel(), np.tile(size, int(folds.sum())), n[folds].ravel(),
                        strict=True,
                    )
                ]  # fmt: skip
                lo, hi = np.array(ends).reshape(-1, self.n_dims, 2).transpose(2, 0, 1)
                start, exact = start.copy(), ~folds
                start[folds], last[folds] = lo, hi - 1
        low, high = np.clip(start, 0, n - 1), np.clip(last, 0, n - 1)
        # of a window of zeros alone nothing is read
        exact &= np.all((start < n) & (last >= 0), axis=-1)
        first, stop = low // sides, high // sides + 1
        if around.any():
            grids = self._grids[sources.image_idx, 2:][around]
            own, m = start[around] % n[around], n[around]
            end = own + (length - 1)
            whole = length >= m
            first_page = np.where(whole, 0, own // sides[around])
            end_page = end % m // sides[around]
            count = np.where(end >= m, end_page + grids, end_page) - first_page + 1
            first[around] = first_page
            stop[around] = first_page + np.where(whole, grids, np.minimum(count, grids))
            exact |= around
        return first, stop - first, exact

    def _slots(
        self,
        image_idx: NDArray[np.int64],
        pages: NDArray[np.int64],
        read: NDArray[np.bool_],
    ) -> NDArray[np.int32]:
        """Look the slots of pages (B, C, n) up; those that are `read` (B, 1 or C, n) are held."""
        if self._is_one_pool:
            found: NDArray[np.int32] = self._tables[0][pages]
            held = (found >= 0) & (self._images[0].pins[found] > 0)
        else:
            found = np.empty(pages.shape, np.int32)
            held = np.empty(pages.shape, bool)
            for i in np.unique(image_idx).tolist():
                own = np.broadcast_to(image_idx == i, pages.shape[:2])
                found[own] = slots = self._tables[i][pages[own]]
                held[own] = (slots >= 0) & (self._images[i].pins[slots] > 0)
        if not (held | ~read).all():
            raise RuntimeError(
                "a window reads a page that nobody holds: this is a fault of gpu_patch"
            )
        return found

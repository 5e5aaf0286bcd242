"""The table of a batch whose images lie in slots: which slots, as kernels read it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.distinct import distinct
from gpu_patch.pages.image import PagedImage
from gpu_patch.pages.spans import Spans
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
PAGED_IMAGE = np.dtype(
    [
        ("box", PAGE_BOX),
        *((name, np.int64, 3) for name in ("grid", "side", "stride")),
        ("base", np.int64),
        *((name, np.int64, 2) for name in ("together", "apart")),
        *((name, np.uint64) for name in ("slots", "pins")),
    ]
)
"""`struct PagedImage` in _host/boxes.h."""
_MOST_BLANKS = 64


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
        self._plane_bytes: NDArray[np.int64] = np.array(
            [prod(image.page_shape[2:]) * image.dtype.itemsize for image in images], np.int64
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
        self._spans = Spans(images)
        self._blanks: dict[tuple[tuple[int, int], tuple[int, ...]], NDArray[np.int32]] = {}
        self.fewest_channels = self._fewest[1]
        counts = [image.shape[0] for image in images]
        self.samples = np.stack(
            [counts, self._sides[:, 0], self._sides[:, 1] * self._plane_bytes], axis=1
        )
        # channels, and their first pages in each image
        self._known_pages: tuple[NDArray[np.int64] | None, NDArray[np.int64]]
        self._known_pages = (None, self._bases)
        self._tables = [image.table for image in images]
        if all(table is self._tables[0] for table in self._tables):
            self.slots = self._tables[0]
        self.paged = np.zeros(len(images), PAGED_IMAGE)
        self.paged["box"] = self._boxes.view(PAGE_BOX)[:, 0]
        for own, image in zip(self.paged, images, strict=True):
            own["grid"], own["side"] = volume(image.grid[2:]), volume(image.page_shape[2:])
            own["stride"][-n_dims:] = image.strides[2:]
            own["base"], own["together"] = image.base, image.page_shape[:2]
            own["apart"] = image.strides[:2]
            own["slots"], own["pins"] = image.table.ctypes.data, image.pins.ctypes.data

    def check(self, sources: ChannelSources) -> None:
        image_idx, sample_idx, _, channels = sources
        if not (
            all_within(image_idx, 0, len(self._images))
            and all_within(sample_idx, 0, self._fewest[0])
            and (self.has_checked(channels) or all_within(channels, 0, self.fewest_channels))
        ):
            check_indices(self._images, sources)

    def _of_channels(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        words = np.repeat(self._records[:, None], len(channels), axis=1)
        words[..., 0] += channels % self._sides[:, 1:2] * self._plane_bytes[:, None]
        return words

    def _pages_of(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first pages of these channels in each image, (n_images, C)."""
        known, found = self._known_pages
        if channels is not known:
            groups = channels // self._sides[:, 1:2]
            found = self._bases[:, None] + groups * self._strides[:, 1:2]
            if not channels.flags.writeable:
                self._known_pages = (channels, found)
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
        self.check(sources)
        first, last, exact = self._spans.of(sources, patch_size, scale, n_scales, mode)
        most = np.maximum.reduce((last - first).reshape(-1, self.n_dims))
        n_pages = tuple([n + 1 for n in most.tolist()])
        # a box of as many pages for all; what a window has fewer of, stands for its last ones
        at = np.minimum(first[..., None, :] + _steps(n_pages), last[..., None, :])
        which = self._which(sources)
        if mode == "periodic":
            grids = self._grids[which][..., None, 2:]
            at -= np.where(at >= grids, grids, 0)
        if len(self._images) == 1:
            offset = at @ self._strides[0, 2:]
        else:
            offset = (at * self._strides[which][..., None, 2:]).sum(axis=-1)
        pages = self._first_pages(sources)[..., None] + offset
        slots = self._slots(sources.image_idx, pages, exact)
        words = self._blank_boxes(sources, n_pages)
        words[..., 9 - self.n_dims : 9] = first
        found: NDArray[np.void] = words.view(PAGE_BOX)[..., 0]
        return found, slots

    def _which(self, sources: ChannelSources) -> Any:
        """Return the images as an index of tables: 0 where there is one, which is quicker."""
        return 0 if len(self._images) == 1 else sources.image_idx

    def _blank_boxes(self, sources: ChannelSources, n_pages: tuple[int, ...]) -> NDArray[np.int32]:
        """Return boxes of so many pages as words, but for the first page of each."""
        key = sources.shape, n_pages
        words = self._blanks.get(key)
        if words is None:
            words = np.empty((*sources.shape, PAGE_BOX.itemsize // 4), np.int32)
            words[:] = self._boxes[self._which(sources)]
            n = prod(n_pages)
            words[..., 2] = np.arange(0, n * prod(sources.shape), n).reshape(sources.shape)
            words[..., 9], words[..., 10] = n_pages[-2] * n_pages[-1], n_pages[-1]
            if len(self._images) == 1 and len(self._blanks) < _MOST_BLANKS:
                self._blanks[key] = words  # the same for each batch
        return words.copy()

    def _first_pages(self, sources: ChannelSources) -> NDArray[np.int64]:
        """Return the first page of each sample and channel, (B, C)."""
        image_idx, sample_idx, _, channels = sources
        known, sides, strides = self._pages_of(channels), self._sides, self._strides
        if len(known) == 1:
            group = sample_idx if sides[0, 0] == 1 else sample_idx // sides[0, 0]
            found: NDArray[np.int64] = known + group * strides[0, 0]
        else:
            found = known[image_idx, np.arange(len(channels))]
            found = found + sample_idx // sides[image_idx, 0] * strides[image_idx, 0]
        return found

    def _slots(
        self,
        image_idx: NDArray[np.int64],
        pages: NDArray[np.int64],
        exact: NDArray[np.bool_] | None,
    ) -> NDArray[np.int32]:
        """Look the slots of pages (B, C, n) up; those of windows that are `exact` are held."""
        # those that are not read may be of no page
        if self.slots is not None:
            found: NDArray[np.int32] = self.slots.take(pages, mode="clip")
            pins = self._images[0].pins.take(found)
        else:
            found = np.empty(pages.shape, np.int32)
            pins = np.empty(pages.shape, np.int32)
            for i in distinct(image_idx).tolist():
                own = np.broadcast_to(image_idx == i, pages.shape[:2])
                found[own] = slots = self._tables[i].take(pages[own], mode="clip")
                pins[own] = self._images[i].pins.take(slots)
        if np.minimum.reduce(pins, axis=None) < 1 and (
            exact is None or not ((pins > 0) | ~exact[..., None]).all()
        ):
            raise RuntimeError(
                "a window reads a page that nobody holds: this is a fault of gpu_patch"
            )
        return found


@lru_cache(maxsize=64)
def _steps(n_pages: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the pages of a box as steps along the axes, (n, D)."""
    return np.indices(n_pages).reshape(len(n_pages), -1).T

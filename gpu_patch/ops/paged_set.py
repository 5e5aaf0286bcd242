"""Images whose pages come and go, as operations read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpu_patch.chunks.image import ChunkedImage
from gpu_patch.distinct import distinct
from gpu_patch.pages import PagedImage, PagePool
from gpu_patch.pages.slot_table import SlotTable
from gpu_patch.pages.touches import check_indices, touches
from gpu_patch.sources import ChannelSources
from gpu_patch.table import Addresses

PagesOfSamples: TypeAlias = dict[PagePool, tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Of each pool, numbers of samples and beside them pages that they read; pairs may repeat."""
Make: TypeAlias = Callable[[Sequence[Any], ChannelSources, slice], None]
"""Makes some samples of a batch of images, arrays or paged ones."""
MakeInPlace: TypeAlias = Callable[[SlotTable, ChannelSources, slice], None]
"""Makes some samples of a batch by a kernel that looks slots up."""


class PagedSet:
    """Images in the pools of their caches.

    Parameters
    ----------
    images : sequence of ChunkedImage
        Of `PageCache`s.
    """

    def __init__(self, images: Sequence[ChunkedImage]) -> None:
        self._images = images
        self._caches = list({id(image.cache): image.cache for image in images}.values())
        self._pools: list[PagePool] = []
        self._paged: list[PagedImage] = []
        self._table: tuple[Any, SlotTable] | None = None  # and the images that it is of

    def pools(self) -> list[PagePool]:
        """Return the pools that the images are in now."""
        self.images()
        return self._pools

    def images(self) -> list[PagedImage]:
        """Return the images as they lie in the pools now."""
        pools = [cache.pool for cache in self._caches]
        if pools != self._pools:
            self._paged = [image.cache.pool.paged[image.number] for image in self._images]
            self._pools = pools
        return self._paged

    def pages(
        self,
        sources: ChannelSources,
        patch_size: Sequence[int],
        scale: int,
        n_scales: int,
        mode: str,
    ) -> PagesOfSamples:
        """Return the pages that a batch reads; see `pages.touches`."""
        images = self.images()
        found: dict[PagePool, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {}
        for number, sample, page in touches(images, sources, patch_size, scale, n_scales, mode):
            pool = self._images[number].cache.pool
            found.setdefault(pool, []).append((sample, page))
        return {
            pool: (np.concatenate([s for s, _ in pairs]), np.concatenate([p for _, p in pairs]))
            for pool, pairs in found.items()
        }

    def read(
        self,
        sources: ChannelSources,
        patch_size: Sequence[int],
        scale: int,
        n_scales: int,
        mode: str,
        make: Make,
    ) -> None:
        """Call `make` while the pages that it reads are there, for some samples at a time.

        Most often for all at once. Where somebody holds a batch's pages already, so do we.

        Parameters
        ----------
        sources, patch_size, scale, n_scales, mode
            What is read; see `pages.touches`.
        make : callable
            Takes the images, and what to read of which samples.

        Raises
        ------
        IndexError
            `sources` has an image, sample or channel that is not there.
        MemoryError
            One sample needs more pages than there are slots.
        """
        images = self.images()
        if all(pool.held_here for pool in self._pools):
            make(images, sources, slice(None))
            return
        check_indices(self._images, sources)
        needed = self.pages(sources, patch_size, scale, n_scales, mode)
        for samples, pages in _parts(needed, len(sources.image_idx)):
            part = sources._replace(
                image_idx=sources.image_idx[samples],
                sample_idx=sources.sample_idx[samples],
                coords=sources.coords[samples],
            )
            with ExitStack() as stack:
                # every thread takes them in one order, or two could wait for each other
                for pool in sorted(pages, key=id):
                    stack.enter_context(pool.hold(pages[pool]))
                make(images, part, samples)

    def read_in_place(
        self,
        addresses: Addresses,
        sources: ChannelSources,
        patch_size: Sequence[int],
        scale: int,
        n_scales: int,
        mode: str,
        make: MakeInPlace,
    ) -> None:
        """Do the same with what kernels read, of the images whose pages are there.

        Parameters
        ----------
        addresses : Addresses
            Tells where the slots are.
        sources, patch_size, scale, n_scales, mode
            As in `read`.
        make : callable
            Takes the table of slots, and what to read of which samples.
        """

        def of_table(images: Sequence[Any], part: ChannelSources, samples: slice) -> None:
            # not of the pools of this moment, which may be others by now
            if self._table is None or self._table[0] is not images:
                self._table = images, SlotTable(addresses, images)
            make(self._table[1], part, samples)

        self.read(sources, patch_size, scale, n_scales, mode, of_table)


def _parts(
    needed: PagesOfSamples, n_samples: int
) -> list[tuple[slice, dict[PagePool, NDArray[np.int64]]]]:
    """Split a batch where the slots do not hold all its pages at once."""
    every = {pool: distinct(page) for pool, (_, page) in needed.items()}
    if n_samples == 1 or all(len(pages) <= pool.n_slots for pool, pages in every.items()):
        return [(slice(0, n_samples), every)]
    parts = []
    first, current = 0, dict.fromkeys(needed, np.empty(0, np.int64))
    for i in range(n_samples):
        own = {pool: distinct(page[sample == i]) for pool, (sample, page) in needed.items()}
        more = {pool: np.union1d(current[pool], pages) for pool, pages in own.items()}
        if i > first and any(len(pages) > pool.n_slots for pool, pages in more.items()):
            parts.append((slice(first, i), current))
            first, more = i, own
        current = more
    return [*parts, (slice(first, n_samples), current)]

"""Which pages windows read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.distinct import distinct
from gpu_patch.geometry import border_index, border_range, window_start
from gpu_patch.pages.image import PagedImage
from gpu_patch.sources import ChannelSources


class Touched(NamedTuple):
    """Pages of one image, beside the samples of a batch that read them; pairs may repeat.

    Attributes
    ----------
    image_idx : int
        The image.
    sample : array of int64
        Numbers of samples within the batch.
    page : array of int64
        A page that each of them reads, by its number in the pool.
    """

    image_idx: int
    sample: NDArray[np.int64]
    page: NDArray[np.int64]


def check_indices(images: Sequence[Any], sources: ChannelSources) -> None:
    """Check that all images, samples and channels of a batch exist; raises IndexError."""
    n_images = len(images)
    if sources.image_idx.min() < 0 or sources.image_idx.max() >= n_images:
        wrong = sources.image_idx[(sources.image_idx < 0) | (sources.image_idx >= n_images)][0]
        raise IndexError(f"sources.image_idx holds {wrong}, which must be in 0 … {n_images - 1}")
    counts = np.array([image.shape[:2] for image in images])[sources.image_idx]
    for name, values, below in (
        ("sample_idx", sources.sample_idx, counts[..., 0]),
        ("channels", sources.channels, counts[..., 1]),
    ):
        values, below = np.broadcast_arrays(values, below)
        outside = (values < 0) | (values >= below)
        if outside.any():
            raise IndexError(
                f"sources.{name} holds {values[outside][0]}, which must be in "
                f"0 … {below[outside][0] - 1}"
            )


def touches(
    images: Sequence[PagedImage],
    sources: ChannelSources,
    patch_size: Sequence[int],
    scale: int,
    n_scales: int,
    mode: str,
) -> Iterator[Touched]:
    """Yield the pages that the windows of a batch read.

    Parameters
    ----------
    images : sequence of PagedImage
        The images.
    sources : ChannelSources
        What the batch reads of them.
    patch_size : sequence of int
        (Z)YX.
    scale : int
        The largest one that is read: 0 for the patches alone.
    n_scales, mode : int, str
        What borders fold into; see `geometry.border_range`.
    """
    size = np.array(patch_size, np.int64)
    length = size << scale
    for number in distinct(sources.image_idx).tolist():
        image = images[number]
        b, k = np.nonzero(sources.image_idx == number)
        own = sources.coords[b, k]
        start = window_start(own, size, scale)
        n = np.array(image.shape[2:])
        leaves: NDArray[np.bool_] = np.any((start < 0) | (start + length > n), axis=1)
        folds = leaves if mode in ("wrap", "periodic") else np.zeros_like(leaves)
        if mode == "reflect":  # around a centre that is outside it may read anything
            centre = own + size // 2
            folds = leaves & np.any((centre < 0) | (centre >= n), axis=1)
        for first, rows in _first_pages(image, sources, b, k):
            some = rows[~folds[rows]]
            # mirrored at the first pixel, a window reads one pixel beyond its own last one
            last = start[some] + length - 1 + (leaves[some, None] & (mode == "reflect"))
            for found, page in _boxes(image, start[some], last):
                yield Touched(number, b[some[found]], first[some[found]] + page)
            for i in rows[folds[rows]].tolist():
                axes = [
                    _folded_pages(*each, n_scales, mode)
                    for each in zip(
                        start[i].tolist(),
                        length.tolist(),
                        own[i].tolist(),
                        size.tolist(),
                        image.shape[2:],
                        image.page_shape[2:],
                        strict=True,
                    )
                ]
                offsets = np.meshgrid(*axes, indexing="ij")
                page = first[i] + np.tensordot(image.strides[2:], offsets, 1).ravel()
                yield Touched(number, np.full(len(page), b[i]), page)


def _first_pages(
    image: PagedImage, sources: ChannelSources, b: NDArray[np.int64], k: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the first page of the sample and channels of places, and which places these are of."""
    s_stride, c_stride = image.strides[:2]
    groups = sources.channels // image.page_shape[1]
    first = image.base + sources.sample_idx[b, k] // image.page_shape[0] * s_stride
    every = np.arange(len(b))
    if sources.image_idx.shape[1] > 1:  # a place per channel
        yield first + groups[k] * c_stride, every
        return
    for group in distinct(groups):
        yield first + group * c_stride, every


def _boxes(
    image: PagedImage, first: NDArray[np.int64], last: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pages between first and last pixels, less what is outside; and which box reads each."""
    n, page = np.array(image.shape[2:]), np.array(image.page_shape[2:])
    there = ((first < n) & (last >= 0)).all(axis=1)
    lo = np.clip(first, 0, n - 1) // page
    hi = np.clip(last, 0, n - 1) // page
    if not len(lo):
        return
    for step in itertools.product(*(range(int(m) + 1) for m in (hi - lo).max(axis=0))):
        at = lo + step
        found = np.flatnonzero(there & (at <= hi).all(axis=1))
        yield found, (at[found] * image.strides[2:]).sum(axis=1)


@lru_cache(maxsize=1 << 12)
def _folded_pages(
    start: int, length: int, own: int, size: int, n: int, page: int, n_scales: int, mode: str
) -> tuple[int, ...]:
    """Return the pages along one axis of a window that goes around the image, or is mirrored."""
    lo, hi = border_range(window_start(own, size, n_scales), size << n_scales, n, mode)
    if lo >= hi:
        raise ValueError(
            "sources.coords holds places whose patch and context miss the image: under "
            f"{mode!r} there is nothing to fill them with"
        )
    read = border_index(start + np.arange(length), lo, hi, mode)
    return tuple(distinct(read // page).tolist())

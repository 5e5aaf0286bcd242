"""The order "sweep": patches that come close in time read the same pages, from all over the images.

The pages of all images are put in one row, in random order of images and along their longest axis.
The row is cut into strips, which are swept at once. A page has room for as long as it takes the
sweep to go over as many pages as the strip has slots; a patch comes at a random time between the
arrival of its last page and the leave of its first one. So each page is read once, and a batch
mixes everything that is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import prod

import numpy as np
from numpy.typing import NDArray

from gpu_patch.locations import Locations
from gpu_patch.pages import PagedImage

LEAST_STRIPS = 4
"""With fewer a training with batch normalisation may end worse than with a shuffle."""
_MOST_STRIPS = 8
_READ_AHEAD = 1 / 8
"""Part of the slots that reading ahead has for itself."""
_READ_TWICE = 0.1
"""Part of the pages that may be read twice where images are cut into columns."""


@dataclass(frozen=True)
class Sweep:
    """How images are swept.

    Attributes
    ----------
    n_strips : int
        Strips that are swept at once.
    n_columns : int
        Columns that images are cut into first, so that strips are shorter and more of them fit.
    n_slots : float
        Pages that all strips have room for, the channels of a page counted once.
    pages : str
        Stands for the shapes of all images and pages.
    """

    n_strips: int
    n_columns: int
    n_slots: float
    pages: str


def fit(
    images: Sequence[PagedImage], window_size: Sequence[int], n_slots: float, twice: float | None
) -> Sweep:
    """Choose as many strips as there are slots for, at most eight.

    Parameters
    ----------
    images : sequence of PagedImage
        The images.
    window_size : sequence of int
        (Z)YX that a patch reads.
    n_slots : float
        Pages that there is room for, the channels of a page counted once.
    twice : float or None
        Part of the pages that may be read twice; None is a tenth.
    """
    room = round(n_slots * (1 - _READ_AHEAD), 3)
    pages = digest(images)
    if n_slots >= sum(image.grid[0] * prod(image.grid[2:]) for image in images):
        return Sweep(_MOST_STRIPS, 1, n_slots, pages)  # everything fits
    limit = _READ_TWICE if twice is None else twice
    best = Sweep(1, 1, room, pages)
    for n_columns in range(1, max(max(image.grid[2:]) for image in images) + 1):
        needed, again = 0.0, 0.0
        for image in images:
            own, reread = _needed(image, window_size, n_columns)
            needed, again = max(needed, own), max(again, reread)
        if n_columns > 1 and again > limit:
            break
        n_strips = min(_MOST_STRIPS, int(room / needed))
        if n_strips > best.n_strips:
            best = Sweep(n_strips, n_columns, room, pages)
        if best.n_strips >= LEAST_STRIPS:
            break
    return best


def digest(images: Sequence[PagedImage]) -> str:
    """Return a few letters that stand for the shapes of images and their pages."""
    shapes = [[list(image.shape), list(image.page_shape)] for image in images]
    return blake2b(json.dumps(shapes).encode(), digest_size=6).hexdigest()


def _needed(image: PagedImage, window_size: Sequence[int], n_columns: int) -> tuple[float, float]:
    """Return the slots that a strip needs, and the part of an image's pages that is read twice."""
    axes = _axes(image)
    reach = [_reach(window_size[a], image.page_shape[2 + a], image.grid[2 + a]) for a in axes]
    grid = [image.grid[2 + a] for a in axes]
    again = 0.0
    if len(grid) > 1:
        again = (min(n_columns, grid[1]) - 1) * reach[1] / grid[1]
        grid[1] = -(-grid[1] // n_columns)
    return sum(r * prod(grid[i + 1 :]) for i, r in enumerate(reach)) + 0.3, again


def _reach(window: int, page: int, n_pages: int) -> int:
    """Return how many pages beyond its first one a window may read."""
    return min((max(window, 1) + page - 2) // page, n_pages - 1)


def _axes(image: PagedImage) -> list[int]:
    """Return the spatial axes, the one first along which images are swept."""
    grid = image.grid[2:]
    return sorted(range(len(grid)), key=lambda axis: -grid[axis])


def sweep_order(
    places: Locations,
    images: Sequence[PagedImage],
    window: tuple[NDArray[np.int64], NDArray[np.int64]],
    sweep: Sweep,
    times: NDArray[np.float64],
    draws: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Return the order of patches.

    Parameters
    ----------
    places : Locations
        Of all patches, in the images.
    images : sequence of PagedImage
        The images.
    window : (array, array), (N, D) each
        First and last pixel that each patch reads.
    sweep : Sweep
        How to sweep.
    times : array, (N,)
        A uniform number for each patch.
    draws : array
        Uniform numbers: at least three for each image and column.
    """
    first, last, n_pages = _in_row(places, images, window, sweep.n_columns, draws)
    length = n_pages / sweep.n_strips
    strip = np.minimum(first // length, sweep.n_strips - 1)
    low = np.clip(first - strip * length, 0, length)
    high = np.clip(last - strip * length, 0, length)
    # neighbours are swept towards each other, and meet: what reads both finds both
    backwards = strip % 2 == 1
    low, high = (
        np.where(backwards, length - high, low),
        np.where(backwards, length - low, high),
    )
    room = min(sweep.n_slots / sweep.n_strips, length)
    comes = np.maximum(high, room)
    leaves = np.minimum(low + room, length)
    when = comes + times * np.maximum(leaves - comes, 0)
    return np.lexsort((times, when))


def _in_row(
    places: Locations,
    images: Sequence[PagedImage],
    window: tuple[NDArray[np.int64], NDArray[np.int64]],
    n_columns: int,
    draws: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Return the places in the row of the first and last page of each patch, and its length.

    A patch that reads beyond its column has there the place of the last page within it.
    """
    n = len(places.data_idx)
    first, last = np.zeros(n), np.zeros(n)
    column_of = np.zeros(n, np.int64)
    sizes: list[int] = []
    order = draws[: len(images) * n_columns]
    flips = draws[len(order) :].reshape(-1, 2)
    number = np.zeros(n, np.int64)
    for i, image in enumerate(images):
        here = np.flatnonzero(places.data_idx == i)
        axes = _axes(image)
        grid, page = np.array(image.grid[2:]), np.array(image.page_shape[2:])
        size = np.array(image.shape[2:])
        low = np.clip(window[0][here], 0, size - 1) // page
        high = np.clip(window[1][here], 0, size - 1) // page
        sample = places.sample_idx[here] // image.page_shape[0]
        cut = axes[1] if len(axes) > 1 else axes[0]
        edges = np.linspace(0, grid[cut], n_columns + 1).astype(np.int64)
        column = np.searchsorted(edges, (low[:, cut] + high[:, cut]) // 2, "right") - 1
        for c in range(n_columns):
            own = column == c
            begin, end = int(edges[c]), int(edges[c + 1])
            a, b = low[own].copy(), high[own].copy()
            a[:, cut] = np.clip(a[:, cut], begin, max(end - 1, begin)) - begin
            b[:, cut] = np.clip(b[:, cut], begin, max(end - 1, begin)) - begin
            lengths = grid.copy()
            lengths[cut] = max(end - begin, 0)
            k = i * n_columns + c
            if flips[k, 0] < 0.5:  # swept from the other end
                a[:, axes[0]], b[:, axes[0]] = (
                    lengths[axes[0]] - 1 - b[:, axes[0]],
                    lengths[axes[0]] - 1 - a[:, axes[0]],
                )
            at, to = sample[own].astype(float), sample[own].astype(float)
            for axis in axes:
                at, to = at * lengths[axis] + a[:, axis], to * lengths[axis] + b[:, axis]
            first[here[own]], last[here[own]] = at, to
            number[here[own]] = k
            sizes.append(image.grid[0] * int(lengths.prod()))
    column_of = number
    starts = np.empty(len(sizes))
    ranked = np.argsort(order, kind="stable")
    starts[ranked] = np.concatenate([[0], np.cumsum(np.array(sizes)[ranked])[:-1]])
    return first + starts[column_of], last + starts[column_of], int(sum(sizes))

"""What a batch reads of chunked images, as small resident images.

A window is copied out of the chunks together with what lies beyond the image's borders, so that
nothing is folded any more: the same operation on the copies gives the same, bit by bit. Along axes
that a window covers anyway the image is copied whole, and is folded as ever.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gpu_patch.chunks.cache import ChunkCache
from gpu_patch.chunks.image import ChunkedImage, ChunkKey
from gpu_patch.geometry import Stretch, border_range, border_stretches, window_start
from gpu_patch.sources import ChannelSources

Keys: TypeAlias = dict[ChunkCache, list[ChunkKey]]
"""Chunks, each once."""


class ChunkStretch(NamedTuple):
    """A stretch of one axis of a cut, read from one chunk at a constant stride."""

    at: int
    """First pixel, in the cut."""
    length: int
    chunk: int
    """Number of the chunk along the axis, −1 where the cut is zero."""
    first: int
    """First pixel, in the chunk."""
    step: int
    cut: slice
    """The stretch as a slice of the cut."""
    source: slice
    """The stretch as a slice of the chunk."""

    @classmethod
    def make(cls, at: int, length: int, chunk: int, first: int = 0, step: int = 1) -> ChunkStretch:
        """Return a stretch; its slices are made here once, and used by many copies."""
        stop = first + step * length
        source = slice(first, stop if stop >= 0 else None, step)
        return cls(at, length, chunk, first, step, slice(at, at + length), source)


class ChunkCopy(NamedTuple):
    """A box of a cut, and what it is a copy of."""

    group: int
    cut: int
    """Number of the cut within its group."""
    key: ChunkKey | None
    """Chunk; None for zeros."""
    sample: int
    """Of the chunk."""
    axes: tuple[ChunkStretch, ...]
    """C(Z)YX."""


class Cuts(NamedTuple):
    """How to make the images that a batch reads.

    Attributes
    ----------
    sources : ChannelSources
        Where the batch reads them.
    groups : list of (dtype, shape)
        The images, SC(Z)YX; each sample of theirs is one cut.
    copies : list of ChunkCopy
        What they are made from. The boxes fill the images, and none overlaps another.
    """

    sources: ChannelSources
    groups: list[tuple[np.dtype[Any], tuple[int, ...]]]
    copies: list[ChunkCopy]

    @property
    def keys(self) -> Keys:
        """The chunks that are needed, each once."""
        return _keys(self.copies)

    def parts(self) -> Iterator[tuple[Keys, list[ChunkCopy]]]:
        """Split the copies where the caches have no room for all chunks at once.

        Most often there is one part. No cut is split.
        """
        keys = self.keys
        if all(cache.has_room(wanted) for cache, wanted in keys.items()):
            yield keys, self.copies
            return
        part: list[ChunkCopy] = []
        for _, group in itertools.groupby(self.copies, key=lambda copy: copy[:2]):
            own = list(group)
            more = _keys(part + own)
            if part and not all(cache.has_room(wanted) for cache, wanted in more.items()):
                yield _keys(part), part
                part = []
            part += own
        yield _keys(part), part


def _keys(copies: Sequence[ChunkCopy]) -> Keys:
    found: dict[ChunkCache, dict[ChunkKey, None]] = {}
    for copy in copies:
        if copy.key is not None:
            found.setdefault(copy.key.image.cache, {})[copy.key] = None
    return {cache: list(keys) for cache, keys in found.items()}


def plan_cuts(
    images: Sequence[ChunkedImage],
    sources: ChannelSources,
    patch_size: Sequence[int],
    scale: int,
    n_scales: int,
    mode: str,
) -> Cuts:
    """Plan the cuts of a batch: one for each place.

    Parameters
    ----------
    images : sequence of ChunkedImage
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
    n_samples, n_places = sources.image_idx.shape
    correlated = n_places == 1
    channels, row_channels = np.unique(sources.channels, return_inverse=True)
    if not correlated:
        row_channels = np.zeros(len(sources.channels), np.int64)
    check_indices(images, sources)
    coords = np.array(sources.coords, np.int64)
    image_idx, sample_idx = np.empty_like(sources.image_idx), np.empty_like(sources.sample_idx)
    # number of the last cut of each data type and shape
    last_cut: dict[tuple[np.dtype[Any], tuple[int, ...]], int] = {}
    copies: list[ChunkCopy] = []
    starts = window_start(coords, np.array(patch_size), scale).tolist()
    images_read, samples_read = sources.image_idx.tolist(), sources.sample_idx.tolist()
    channels_read = [channels.tolist()] if correlated else [[c] for c in sources.channels.tolist()]
    channels_by_chunk = lru_cache(maxsize=None)(_channels_by_chunk)
    for b, k in itertools.product(range(n_samples), range(n_places)):
        image = images[images_read[b][k]]
        wanted = channels_read[k]
        size, axes = [len(wanted)], [channels_by_chunk(tuple(wanted), image.chunk_shape[1])]
        for d, (patch, n, chunk) in enumerate(
            zip(patch_size, image.shape[2:], image.chunk_shape[2:], strict=True)
        ):
            start, length = starts[b][k][d], patch << scale
            if start >= 0 and start + length <= n:
                stretches = [Stretch(0, start, length, 1)]
                coords[b, k, d] -= start
            else:
                own = int(coords[b, k, d])
                folded = window_start(own, patch, n_scales), patch << n_scales
                stretches, length, start = _at_border(start, length, n, folded, mode)
                coords[b, k, d] = own - start
            size.append(length)
            axes.append(_by_chunk(stretches, length, chunk))
        kind = (image.dtype, tuple(size))
        cut = last_cut[kind] = last_cut.get(kind, -1) + 1
        image_idx[b, k] = group = list(last_cut).index(kind)
        sample_idx[b, k] = cut
        s_chunk, s = divmod(samples_read[b][k], image.chunk_shape[0])
        for box in itertools.product(*axes):
            place = (s_chunk, *[stretch.chunk for stretch in box])
            key = None if min(place) < 0 else ChunkKey(image, place)
            copies.append(ChunkCopy(group, cut, key, s, box))
    shapes = [(dtype, (last + 1, *size)) for (dtype, size), last in last_cut.items()]
    return Cuts(ChannelSources(image_idx, sample_idx, coords, row_channels), shapes, copies)


def _at_border(
    start: int, length: int, n: int, folded: tuple[int, int], mode: str
) -> tuple[list[Stretch], int, int]:
    """Cut a window that leaves an axis of `n` pixels; return its length and start in the cut too.

    `folded` is start and size of what the border folds into. An axis that is no longer than the
    window is copied as it is, and folded by whatever reads the copy.
    """
    lo, hi = border_range(*folded, n, mode)
    if lo >= hi:
        raise ValueError(
            "sources.coords holds places whose patch and context miss the image: under "
            f"{mode!r} there is nothing to fill them with"
        )
    if n <= length:
        return [Stretch(0, 0, n, 1)], n, 0
    return border_stretches(start, length, lo, hi, mode), length, start


def touched(
    images: Sequence[ChunkedImage], sources: ChannelSources, patch_size: Sequence[int], scale: int
) -> Keys:
    """Return the chunks under the windows of a batch, each once.

    Those that a window reads by going round an image are not among them.
    """
    length = np.array(patch_size) << scale
    starts = window_start(np.array(sources.coords, np.int64), np.array(patch_size), scale)
    found: Keys = {}
    for i in np.unique(sources.image_idx).tolist():
        image = images[i]
        here = sources.image_idx == i
        size, chunk = np.array(image.shape[2:]), np.array(image.chunk_shape[2:])
        first = np.clip(starts[here], 0, size - 1) // chunk
        last = np.clip(starts[here] + length - 1, 0, size - 1) // chunk
        samples = sources.sample_idx[here] // image.chunk_shape[0]
        channels = sources.channels // image.chunk_shape[1]
        if here.shape[1] > 1:  # a place per channel
            channels = np.broadcast_to(channels, here.shape)[here][:, None]
        else:
            channels = np.broadcast_to(np.unique(channels), (len(first), len(np.unique(channels))))
        steps = np.indices((last - first).max(axis=0) + 1).reshape(len(size), -1).T
        spatial = first[:, None] + steps
        inside = (spatial <= last[:, None]).all(axis=2)
        shape = (len(first), channels.shape[1], len(steps))
        columns = [
            np.broadcast_to(samples[:, None, None], shape),
            np.broadcast_to(channels[:, :, None], shape),
            *(np.broadcast_to(spatial[:, None, :, d], shape) for d in range(len(size))),
        ]
        there = np.broadcast_to(inside[:, None], shape)
        places = set(zip(*(column[there].tolist() for column in columns), strict=True))
        found.setdefault(image.cache, []).extend(ChunkKey(image, place) for place in places)
    return found


def _by_chunk(stretches: Sequence[Stretch], length: int, chunk: int) -> list[ChunkStretch]:
    """Cut the stretches of a window at the borders of chunks; what is in none of them is zero."""
    found = []
    done = 0
    for at, first, n, step in stretches:
        if at > done:
            found.append(ChunkStretch.make(done, at - done, -1))
        done = at + n
        while n:
            number, inside = divmod(first, chunk)
            here = min(n, chunk - inside if step > 0 else inside + 1)
            found.append(ChunkStretch.make(at, here, number, inside, step))
            at, first, n = at + here, first + step * here, n - here
    if done < length:
        found.append(ChunkStretch.make(done, length - done, -1))
    return found


def _channels_by_chunk(channels: Sequence[int], chunk: int) -> list[ChunkStretch]:
    """Put neighbouring channels of one chunk together; they ascend."""
    stretches: list[Stretch] = []
    for at, channel in enumerate(channels):
        last = stretches[-1] if stretches else None
        if last and last.first + last.length == channel:
            stretches[-1] = last._replace(length=last.length + 1)
        else:
            stretches.append(Stretch(at, channel, 1, 1))
    return _by_chunk(stretches, len(channels), chunk)


def check_indices(images: Sequence[Any], sources: ChannelSources) -> None:
    """Check what would otherwise be read from another place."""
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

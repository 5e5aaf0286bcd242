"""The range of every sample's values: what is not finite is refused, what is empty is remarked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.feed.accumulators import on_host
from gpu_patch.feed.team import Team
from gpu_patch.finite import is_finite
from gpu_patch.ops import ImageSet
from gpu_patch.sources import ChannelSources


class Ranges:
    """Smallest and largest value of each channel of each sample, as far as patches show it.

    Parameters
    ----------
    part : {"input", "target"}
        What messages call the images.
    images : ImageSet
        Where patches come from.
    channels : array of int64, shape (C,)
        Channels of the images that patches hold.
    """

    def __init__(self, part: str, images: ImageSet, channels: NDArray[np.int64]) -> None:
        self.part, self.images, self.channels = part, images, channels
        n_channels = len(channels)
        n_samples = np.array([array.shape[0] for array in images.arrays])
        self._first = np.cumsum(n_samples) - n_samples
        self._low = np.full((n_samples.sum(), n_channels), np.inf)
        self._high = np.full((n_samples.sum(), n_channels), -np.inf)

    def update(self, patches: Any, sources: ChannelSources) -> None:
        """Take patches (B, C, (Z), Y, X) in.

        Raises
        ------
        ValueError
            Where a value is not finite; names the image, the sample, the channel and the pixel.
        """
        lows, highs = finite_range(self.part, self.images, patches, sources)
        at = self._first[sources.image_idx] + sources.sample_idx, np.arange(lows.shape[1])
        np.minimum.at(self._low, at, lows)
        np.maximum.at(self._high, at, highs)

    def join(self, team: Team) -> None:
        """Take in what each process of a team has seen."""
        lows, highs = zip(*team.all_of((self._low, self._high)), strict=True)
        self._low, self._high = np.minimum.reduce(lows), np.maximum.reduce(highs)

    def single_value(self, channel: int | None) -> float | None:
        """Return the one value of a channel, or of all; None where there are several."""
        which = slice(None) if channel is None else channel
        low, high = float(self._low[:, which].min()), float(self._high[:, which].max())
        return low if low == high else None

    def seen(self) -> str:
        """Name the samples that patches came from."""
        (samples,) = np.nonzero((self._low <= self._high).any(axis=1))
        first = self._named(int(samples[0]))
        return first if len(samples) == 1 else f"all {len(samples)} samples, the first is {first}"

    def remarks(self) -> Iterator[str]:
        """Say which samples hold one value each, among others that do not."""
        seen = (self._low <= self._high).any(axis=1)
        (empty,) = np.nonzero(seen & (self._low >= self._high).all(axis=1))
        if not 0 < len(empty) < seen.sum():
            return
        first = int(empty[0])
        values = self._low[first][np.isfinite(self._low[first])]
        yield (
            f"{len(empty)} of {seen.sum()} samples of the {self.part} images are empty, they hold "
            f"one value each wherever patches lie: the first is {self._named(first)}, of "
            f"{values[0]:g}. They count in the statistics, and are trained on. To leave them out, "
            "use StratifiedPatching and call filter_background(…, filtered_patch_prob=0) before"
        )

    def _named(self, sample: int) -> str:
        image = int(self._first.searchsorted(sample, "right")) - 1
        return place_named(self.images, image, sample - int(self._first[image]))


def place_named(images: ImageSet, image_idx: int, sample_idx: int) -> str:
    """Name a sample for messages."""
    return f"sample {sample_idx} of {images.names[image_idx]} (image stack {image_idx})"


def finite_range(
    part: str, images: ImageSet, patches: Any, sources: ChannelSources
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and the largest value of patches, (B, C) each.

    Raises
    ------
    ValueError
        Where a value is not finite.
    """
    values = patches.reshape(*patches.shape[:2], -1)
    lows, highs = on_host(values.min(axis=2)), on_host(values.max(axis=2))
    wrong = ~(np.isfinite(lows) & np.isfinite(highs))
    if wrong.any():
        raise _not_finite(part, images, patches, sources, *np.argwhere(wrong)[0].tolist())
    return lows, highs


def _not_finite(
    part: str, images: ImageSet, patches: Any, sources: ChannelSources, b: int, c: int
) -> ValueError:
    """Return what to raise where channel `c` of patch `b` is not finite."""
    patch = patches[b, c]
    patch = patch if isinstance(patch, np.ndarray) else patch.get()
    where = np.argwhere(~np.isfinite(patch))
    k = c if sources.image_idx.shape[1] > 1 else 0
    image, sample = int(sources.image_idx[b, k]), int(sources.sample_idx[b, k])
    pixel = sources.coords[b, k] + where[0]
    inside = ((pixel >= 0) & (pixel < images.arrays[image].shape[2:])).all()
    at = f" at pixel {tuple(pixel.tolist())}" if inside else ""
    value = "NaN" if np.isnan(patch[tuple(where[0])]) else "infinity"
    return ValueError(
        f"the {part} images must hold finite values, found {value}{at}, channel "
        f"{sources.channels[c]}, {place_named(images, image, sample)}"
        f"{_others(images, image, sample)}. "
        "Replace such values, or leave their surroundings out of the patching strategy"
    )


def _others(images: ImageSet, image_idx: int, sample_idx: int) -> str:
    """Say how many more samples are not finite, where that is known without reading files."""
    if images.pages is not None:
        return ""
    n = sum(
        not is_finite(array[s])
        for i, array in enumerate(images.arrays)
        if array.dtype.kind == "f"
        for s in range(len(array))
        if (i, s) != (image_idx, sample_idx)
    )
    return f", and in {n} more sample{'s' * (n > 1)}" if n else ""

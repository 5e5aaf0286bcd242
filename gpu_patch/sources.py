"""The table of a batch: which image, place and channel each channel of each sample is read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.locations import Locations


def fixed(channels: Sequence[int]) -> NDArray[np.int64]:
    """Return channels as an array that nobody can change, so that it is checked once."""
    array = np.array(channels, np.int64)
    array.setflags(write=False)
    return array


class ChannelSources(NamedTuple):
    """What the channels of each sample read.

    Places are (B, 1) where all channels of a sample come from one, (B, C) where each has its own.

    Attributes
    ----------
    image_idx, sample_idx : array of int64, shape (B, 1 or C)
        Image, and sample within it.
    coords : array of int64, shape (B, 1 or C, D)
        First pixel of the patch, (Z)YX.
    channels : array of int64, shape (C,)
        Channel of the image that each channel of the patch reads.
    """

    image_idx: NDArray[np.int64]
    sample_idx: NDArray[np.int64]
    coords: NDArray[np.int64]
    channels: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(B, C)."""
        return len(self.image_idx), len(self.channels)

    def rows(self, index: NDArray[np.int64]) -> ChannelSources:
        """Return what some of the samples read."""
        image_idx, sample_idx, coords, channels = self
        return ChannelSources(
            image_idx.take(index, axis=0),
            sample_idx.take(index, axis=0),
            coords.take(index, axis=0),
            channels,
        )

    @classmethod
    def correlated(cls, places: Locations, channels: NDArray[np.int64]) -> ChannelSources:
        """All channels of a sample from one place."""
        return cls(
            places.data_idx[:, None], places.sample_idx[:, None], places.coords[:, None], channels
        )

    @classmethod
    def uncorrelated(
        cls,
        places: Sequence[Locations],
        channels: NDArray[np.int64],
        first_image: Sequence[int] | None = None,
    ) -> ChannelSources:
        """Each channel from a place of its own; `first_image` is added to its image index."""
        # filled rather than stacked: np.stack takes longer than all the rest
        shape = (len(places[0].data_idx), len(places))
        image_idx, sample_idx = np.empty(shape, np.int64), np.empty(shape, np.int64)
        coords = np.empty((*shape, places[0].coords.shape[1]), np.int64)
        for c, place in enumerate(places):
            image_idx[:, c] = place.data_idx
            sample_idx[:, c], coords[:, c] = place.sample_idx, place.coords
        if first_image is not None:
            image_idx += np.array(first_image)
        return cls(image_idx, sample_idx, coords, channels)

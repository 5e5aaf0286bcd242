"""Where the other channels of an uncorrelated sample come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import choice
from gpu_patch.constructors.placement import Placement
from gpu_patch.draws import DrawPurpose, DrawSpec, integers
from gpu_patch.locations import Locations
from gpu_patch.ops.draws import CounterDraws

PartnerPlaces = Literal["anywhere", "near"]
N_CANDIDATES = 64
"""Places that are drawn for a partner that is to be near."""
ACROSS = 4
"""How many times as far a partner may be along the shorter axes, along which nobody sweeps."""


class Partners:
    """Draws the places of all channels but the first, by counter.

    Parameters
    ----------
    partners : {"anywhere", "near"}
        As the constructor takes it.
    placement : Placement
        Of the first channel, and of the others.
    n_channels : int
        Of a sample.

    Raises
    ------
    ValueError
        Other `partners`, or "near" with a strategy that does not place batches.
    """

    def __init__(self, partners: str, placement: Placement, n_channels: int) -> None:
        choice("partners", partners, ("anywhere", "near"))
        self._is_near = partners == "near"
        if self._is_near and not placement.places_batches:
            raise ValueError(
                f"partners='near' needs a strategy of this package, {placement.name} is a "
                f"{type(placement.strategy).__name__}"
            )
        self._placement = placement
        n, others = N_CANDIDATES if self._is_near else 1, range(1, n_channels)
        self._draws = CounterDraws(
            [DrawSpec(DrawPurpose.PARTNER, c, n) for c in others]
            + [DrawSpec(DrawPurpose.LOCATION, c, n * placement.n_uniforms) for c in others]
        )
        self._n_others = len(others)
        self._sorted: tuple[object, tuple[NDArray[np.int64], NDArray[np.int64]] | None] = (0, None)

    def __call__(
        self, seed: int, epoch: int, index: NDArray[np.int64], places: Locations
    ) -> Iterator[Locations]:
        """Yield the places of each further channel.

        Parameters
        ----------
        seed, epoch : int
            Of the draws.
        index : array of int64, shape (B,)
            Samples.
        places : Locations
            Of their first channel.
        """
        drawn = self._draws(seed, epoch, index)
        for partner, uniforms in zip(drawn[: self._n_others], drawn[self._n_others :], strict=True):
            if self._is_near:
                yield self._nearest(places, partner, uniforms)
            else:
                other = integers(partner[0], self._placement.n_patches)
                yield self._placement.locate(other, uniforms)

    def _nearest(
        self, places: Locations, partner: NDArray[np.float64], uniforms: NDArray[np.float64]
    ) -> Locations:
        """Of patches of each sample's own image, take the nearest as `ACROSS` weighs it."""
        by_image, starts = self._patches_of_images()
        first, stop = starts[places.data_idx], starts[places.data_idx + 1]
        other = by_image[first + integers(partner, stop - first)]
        candidates = self._placement.locate(
            other.ravel(),
            uniforms.reshape(-1, other.size),  # uniform u of candidate k: u · K + k
        )
        shapes = self._placement.shapes[places.data_idx]
        each = np.arange(len(shapes))
        weights = np.full((len(shapes), shapes.shape[1] - 1), 1 / ACROSS)
        weights[each, shapes[:, 1:].argmax(axis=1)] = 1
        apart = np.abs(candidates.coords.reshape(*other.shape, -1) - places.coords)
        distance = (apart * weights).sum(axis=-1)
        sample = candidates.sample_idx.reshape(other.shape)
        distance += (sample != places.sample_idx) * shapes[:, 1:].sum(axis=1)
        return candidates.rows(distance.argmin(axis=0) * len(each) + each)

    def _patches_of_images(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the patches sorted by image, and where those of each image begin."""
        key = (self._placement.version, self._placement.n_patches)
        known, found = self._sorted
        if found is None or known != key:
            image = self._placement.sites()[:, 0]
            order = np.argsort(image, kind="stable")
            ends = np.arange(len(self._placement.shapes) + 1)
            found = (order, np.searchsorted(image[order], ends))
            self._sorted = (key, found)
        return found

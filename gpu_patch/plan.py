"""From indices to a table: what a batch reads and writes, decided before any pixel is touched.

A plan is small and pure. The same plan on two backends gives the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from gpu_patch.epilogue import Epilogue
from gpu_patch.locations import Locations
from gpu_patch.specs import PatchSpecs


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


@dataclass(frozen=True, slots=True)
class Plan:
    """What a batch reads.

    Attributes
    ----------
    sources : ChannelSources
        Sources of the input's channels.
    weights : array of float32, shape (B, C)
        Mixing weights.
    patch_size : tuple of int
        (Z)YX.
    specs : sequence of PatchSpecs
        One dict per sample, made when it is looked at.
    epilogue : Epilogue or None
        What happens to the values before they are handed out.
    """

    sources: ChannelSources
    weights: NDArray[np.float32]
    patch_size: tuple[int, ...]
    specs: Specs
    epilogue: Epilogue | None = None


class Specs(Sequence[PatchSpecs]):
    """The spec dicts of a batch, each made when it is looked at.

    Parameters
    ----------
    places : sequence of Locations
        One, or one per channel where channels may come from different places.
    principal_channel : int, default 0
        The channel that the plain keys describe.
    uncorrelated : array of bool, shape (B,), optional
        Samples whose channels come from different places, and whose specs say so; default none.
    """

    def __init__(
        self,
        places: Sequence[Locations],
        principal_channel: int = 0,
        uncorrelated: NDArray[np.bool_] | None = None,
    ) -> None:
        self._places = places
        self._principal_channel = principal_channel
        self._uncorrelated = uncorrelated

    def __len__(self) -> int:
        return len(self._places[0].data_idx)

    @overload
    def __getitem__(self, i: int) -> PatchSpecs: ...
    @overload
    def __getitem__(self, i: slice) -> list[PatchSpecs]: ...
    def __getitem__(self, i: int | slice) -> PatchSpecs | list[PatchSpecs]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        at = range(len(self))[i]
        spec: dict[str, Any] = {**self._places[self._principal_channel].spec(at)}
        if self._uncorrelated is not None and self._uncorrelated[at]:
            spec["principal_channel"] = self._principal_channel
            spec["all_data_idx"] = [int(p.data_idx[at]) for p in self._places]
            spec["all_sample_idx"] = [int(p.sample_idx[at]) for p in self._places]
            spec["all_coords"] = [tuple(p.coords[at].tolist()) for p in self._places]
        return spec  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"Specs({list(self)!r})"

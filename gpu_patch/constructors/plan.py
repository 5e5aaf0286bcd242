"""A batch, decided: all that is needed to make it, before any pixel is touched.

The same plan on two backends gives the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from gpu_patch.epilogue import Epilogue
from gpu_patch.locations import Locations
from gpu_patch.ops import ImageSet
from gpu_patch.sources import ChannelSources
from gpu_patch.specs import PatchSpecs


class Read(NamedTuple):
    """What a batch reads from some images.

    Attributes
    ----------
    images : ImageSet
        The images.
    sources : ChannelSources
        Which of them, and where.
    n_scales : int, default 0
        Scales of the lateral context; 0 for plain patches.
    mode : {"zero", "reflect", "wrap", "periodic"}
        What a window holds beyond the image.
    """

    images: ImageSet
    sources: ChannelSources
    n_scales: int = 0
    mode: str = "zero"


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch of B samples, decided.

    Attributes
    ----------
    input : Read
        What the input is made from.
    target : Read or None
        What the target is made from, where it has images of its own.
    is_mixture : bool
        Whether the input is a mixture of the channels of the target: these are then what `input`
        reads.
    weights : array of float32, shape (B, C), or None
        Mixing weights of what `input` reads; None for plain patches.
    patch_size : tuple of int
        (Z)YX.
    specs : sequence of PatchSpecs
        One dict per sample, made when it is looked at.
    epilogue : Epilogue or None
        What happens to the values before they are handed out.
    """

    input: Read
    target: Read | None
    is_mixture: bool
    weights: NDArray[np.float32] | None
    patch_size: tuple[int, ...]
    specs: Specs
    epilogue: Epilogue | None = None

    @property
    def sources(self) -> ChannelSources:
        """What the input's channels read."""
        return self.input.sources

    @property
    def reads(self) -> list[Read]:
        """All that is read."""
        return [self.input] if self.target is None else [self.input, self.target]

    @property
    def n_channels(self) -> tuple[int, int]:
        """Channels of input and target that an epilogue tells apart; 0 where there is no target."""
        n_read = len(self.input.sources.channels)
        if self.target is not None:
            n_targets = len(self.target.sources.channels)
        else:
            n_targets = n_read if self.is_mixture else 0
        return n_read if self.weights is None else 1, n_targets

    def moved(self, sources: ChannelSources, **changes: Any) -> Plan:
        """Return a plan that reads other places of the same images.

        Parameters
        ----------
        sources : ChannelSources
            What the input is to read; the target reads its own channels there.
        **changes
            What else is different.
        """
        target = self.target
        if target is not None:
            own = sources._replace(channels=target.sources.channels)
            target = target._replace(sources=own)
        return replace(self, input=self.input._replace(sources=sources), target=target, **changes)

    def rows(self, index: NDArray[np.int64]) -> Plan:
        """Return the plan of some of the samples.

        Parameters
        ----------
        index : array of int64
            Which; nobody may change it later.
        """
        images, of_all, n_scales, mode = self.input
        target, weights, epilogue = self.target, self.weights, self.epilogue
        sources = of_all.rows(index)
        if target is not None:
            target = target._replace(sources=sources._replace(channels=target.sources.channels))
        return Plan(
            Read(images, sources, n_scales, mode),
            target,
            self.is_mixture,
            None if weights is None else weights.take(index, axis=0),
            self.patch_size,
            self.specs.rows(index),
            None if epilogue is None else epilogue.rows(index),
        )


class Specs(Sequence[PatchSpecs]):
    """The spec dicts of a batch, each made when it is looked at.

    Parameters
    ----------
    places : sequence of Locations
        One, or one per channel where channels may come from different places.
    principal_channel : int, default 0
        The channel that the plain keys describe.
    uncorrelated : array of bool, shape (n,), optional
        Samples whose channels come from different places, and whose specs say so; default none.
    rows : array of int64, shape (B,), optional
        Which of the places are the batch's; default all of them.
    """

    def __init__(
        self,
        places: Sequence[Locations],
        principal_channel: int = 0,
        uncorrelated: NDArray[np.bool_] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._places = places
        self.principal_channel = principal_channel
        self._uncorrelated = uncorrelated
        self._rows = rows

    def __len__(self) -> int:
        return len(self._places[0].data_idx if self._rows is None else self._rows)

    @overload
    def __getitem__(self, i: int) -> PatchSpecs: ...
    @overload
    def __getitem__(self, i: slice) -> list[PatchSpecs]: ...
    def __getitem__(self, i: int | slice) -> PatchSpecs | list[PatchSpecs]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        at = range(len(self))[i]
        if self._rows is not None:
            at = int(self._rows[at])
        spec: dict[str, Any] = {**self._places[self.principal_channel].spec(at)}
        if self._uncorrelated is not None and self._uncorrelated[at]:
            spec["principal_channel"] = self.principal_channel
            spec["all_data_idx"] = [int(p.data_idx[at]) for p in self._places]
            spec["all_sample_idx"] = [int(p.sample_idx[at]) for p in self._places]
            spec["all_coords"] = [tuple(p.coords[at].tolist()) for p in self._places]
        return spec  # type: ignore[return-value]

    @property
    def places(self) -> Sequence[Locations]:
        """Where the patches lie, as they were given; of the batch's alone."""
        if self._rows is None:
            return self._places
        return [places.rows(self._rows) for places in self._places]

    @property
    def uncorrelated(self) -> NDArray[np.bool_] | None:
        """Samples whose channels come from different places, of the batch's."""
        if self._uncorrelated is None or self._rows is None:
            return self._uncorrelated
        return self._uncorrelated[self._rows]

    @property
    def principal(self) -> Locations:
        """Where the patches lie that indices count."""
        return self.places[self.principal_channel]

    def rows(self, index: NDArray[np.int64]) -> Specs:
        """Return the specs of some of the samples, which go on to refer to all."""
        own = index if self._rows is None else self._rows[index]
        return Specs(self._places, self.principal_channel, self._uncorrelated, own)

    def by_channel(self, n_channels: int) -> Specs:
        """Return the same specs, each with the places of all channels.

        Parameters
        ----------
        n_channels : int
            Of a patch.
        """
        places = list(self.places)
        if len(places) == 1:
            places *= n_channels
        return Specs(places, self.principal_channel, np.ones(len(self), bool))

    def __reduce__(self) -> tuple[Any, ...]:
        # without the places of other samples
        return Specs, (self.places, self.principal_channel, self.uncorrelated)

    def __repr__(self) -> str:
        return f"Specs({list(self)!r})"

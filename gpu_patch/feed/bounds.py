"""Quantiles that are given, against all values of the images they are for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gpu_patch.constructors import (
    BasicPatchConstr,
    IndependentTargetsMsPatchConstr,
    MultiChannelTargetMsPatchConstr,
)
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.feed.normalization import Normalization
from gpu_patch.feed.survey import beyond
from gpu_patch.images import PatchExtractor
from gpu_patch.patching import FixedPatching

Ends = list[tuple[float, float]]
"""Smallest and largest value of each channel."""


def quantiles_beyond(constructor: PlannedConstr, normalization: Normalization) -> Iterator[str]:
    """Say which quantiles are beyond all values of the images. Mixtures are not looked at.

    Parameters
    ----------
    constructor : PlannedConstr
        Of resident images.
    normalization : Normalization
        Of the kind "quantile".
    """
    given = {"input": normalization.input_statistics, "target": normalization.target_statistics}
    for part, ends in _ends(constructor, [part for part, found in given.items() if found]).items():
        statistics = given[part]
        assert statistics is not None
        if len(statistics[0]) == 1:
            lows, highs = zip(*ends, strict=True)
            ends = [(min(lows), max(highs))]
        zero = [0.0] if _reads_zeros(constructor) else []
        for c, (low, high, channel) in enumerate(zip(*statistics, ends, strict=False)):
            if np.isfinite(channel).all():
                yield from beyond(part, c, low, high, (min(*zero, *channel), max(*zero, *channel)))


def _reads_zeros(constructor: PlannedConstr) -> bool:
    """Tell whether patches may lie beyond a border, where there are zeros."""
    return any(
        isinstance(source.strategy, FixedPatching)
        or any(
            np.any(np.array(size) > shape[2:])
            for size in source.patch_sizes
            for shape in source.extractor.shapes
        )
        for source in constructor.sampling.placements
    )


def _ends(constructor: PlannedConstr, parts: Sequence[str]) -> dict[str, Ends]:
    """Return the ends of those parts that are patches of images as they are."""
    if isinstance(constructor, IndependentTargetsMsPatchConstr):
        extractors = constructor.target_extractors
        return {p: [_of(e)[0] for e in extractors] for p in parts if p == "target"}
    mixes = isinstance(constructor, MultiChannelTargetMsPatchConstr)
    found = {}
    for part in parts:
        extractor = getattr(constructor, f"{part}_extractor", None)
        if extractor is not None:
            selects = mixes or (part == "input" and isinstance(constructor, BasicPatchConstr))
            channels = getattr(constructor, "channels", None) if selects else None
            found[part] = _of(extractor, channels)
    return found


def _of(extractor: PatchExtractor, channels: Sequence[int] | None = None) -> Ends:
    arrays = extractor.images.arrays
    return [
        (
            min(float(array[:, c].min()) for array in arrays),
            max(float(array[:, c].max()) for array in arrays),
        )
        for c in (range(extractor.n_channels) if channels is None else channels)
    ]

"""Quantiles that are given, against all values of the images they are for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.feed.normalization import Normalization
from gpu_patch.feed.survey import beyond
from gpu_patch.images import PatchExtractor

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
    placements = constructor.sampling.placements
    # what lies beyond a border is zero
    zero = [0.0] if any(placement.may_leave_images for placement in placements) else []
    for part, channels in constructor.sampling.channels.items():
        statistics = given[part]
        if statistics is None:
            continue
        ends = _ends(channels)
        if len(statistics[0]) == 1:
            lows, highs = zip(*ends, strict=True)
            ends = [(min(lows), max(highs))]
        for c, (low, high, channel) in enumerate(zip(*statistics, ends, strict=False)):
            if np.isfinite(channel).all():
                yield from beyond(part, c, low, high, (min(*zero, *channel), max(*zero, *channel)))


def _ends(channels: Sequence[tuple[PatchExtractor, int]]) -> Ends:
    return [
        (
            min(float(array[:, c].min()) for array in images.images.arrays),
            max(float(array[:, c].max()) for array in images.images.arrays),
        )
        for images, c in channels
    ]

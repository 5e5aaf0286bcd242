"""All pixels that patches at random places may come to read, whatever an epoch draws."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.plan import Plan
from gpu_patch.sources import ChannelSources


def reach(constructor: PlannedConstr, like: Plan) -> Iterator[Plan]:
    """Plan patches that tile whatever a constructor's strategies may draw, sample by sample.

    Nothing comes of strategies that always give the same patches, and of those that are not of
    this package.

    Parameters
    ----------
    constructor : PlannedConstr
        Where the patches come from.
    like : Plan
        One of its plans.
    """
    placements = constructor.sampling.placements
    channels = like.sources.channels if len(placements) == 1 else like.sources.channels[:1]
    for placement in placements:
        for places in placement.reach():
            sources = ChannelSources.correlated(places, channels)
            sources = sources._replace(image_idx=sources.image_idx + placement.first_image)
            yield like.moved(sources, patch_size=places.patch_size, epilogue=None)

"""All pixels that patches at random places may come to read, whatever an epoch draws."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.placement import Placement
from gpu_patch.constructors.plan import Plan
from gpu_patch.locations import Locations
from gpu_patch.patching import RandomPatching, StratifiedPatching
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
        for places in _cells(placement):
            sources = ChannelSources.correlated(places, channels)
            sources = sources._replace(image_idx=sources.image_idx + placement.first_image)
            yield like.moved(sources, patch_size=places.patch_size, epilogue=None)


def _cells(placement: Placement) -> Iterator[Locations]:
    strategy = placement.strategy
    if not placement.places_batches or not placement.n_uniforms:
        return
    if isinstance(strategy, StratifiedPatching):
        grids = strategy.get_included_grid_coords()
        size = strategy.patch_size
        cells = (
            (key, np.array(grid, np.int64).reshape(-1, len(size))) for key, grid in grids.items()
        )
    elif isinstance(strategy, RandomPatching):
        size = strategy.patch_size
        cells = (
            ((image, sample), np.argwhere(np.ones(-(-np.array(shape[2:]) // size), bool)))
            for image, shape in enumerate(strategy.data_shapes)
            for sample in range(shape[0])
        )
    else:
        return
    for (image, sample), grid in cells:
        if len(grid):
            yield Locations(
                np.full(len(grid), image), np.full(len(grid), sample), grid * np.array(size), size
            )

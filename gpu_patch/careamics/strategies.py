"""Strategies of careamics as strategies of this package."""

from __future__ import annotations

import copy
from typing import Any

from gpu_patch.careamics.recognise import careamics_class, replaced
from gpu_patch.patching import (
    FixedPatching,
    Patching,
    RandomPatching,
    SequentialPatching,
    StratifiedPatching,
    TiledPatching,
    WholeSamplePatching,
)

CHOICES = ("own", "theirs")
_STRATEGIES = (
    "RandomPatching",
    "FixedRandomPatching",
    "SequentialPatching",
    "StratifiedPatching",
    "TiledPatching",
    "WholeSamplePatching",
    "FixedPatching",
)


def strategy_of(theirs: Any, memo: dict[int, Any], choice: str) -> Patching:
    """Return a strategy with the same places and the same state, or a copy where there is none.

    Parameters
    ----------
    theirs : careamics strategy, or a user's own
        Left as it is.
    memo : dict
        Of `copy.deepcopy`: generators that are shared stay shared.
    choice : {"own", "theirs"}
        Whether `StratifiedPatching` becomes this package's, whose design differs, or a copy.
    """
    base = careamics_class(theirs, _STRATEGIES)
    kind = "" if base is None or replaced(theirs, base) else base.__name__
    match kind:
        case "RandomPatching":
            ours = RandomPatching(theirs.data_shapes, theirs.patch_size)
            ours.rng = copy.deepcopy(theirs.rng, memo)
            return ours
        case "SequentialPatching":
            return SequentialPatching(theirs.data_shapes, theirs.patch_size, theirs.overlaps)
        case "TiledPatching":
            return TiledPatching(theirs.data_shapes, theirs.patch_size, theirs.overlaps)
        case "WholeSamplePatching":
            return WholeSamplePatching(theirs.data_shapes)
        case "StratifiedPatching" if choice == "own":
            return _stratified(theirs, memo)
        # a list, empty where a validation set was split off with no patch
        case "FixedPatching" | "FixedRandomPatching" if theirs.fixed_patch_specs:
            return FixedPatching(theirs.fixed_patch_specs)
    copied: Patching = copy.deepcopy(theirs, memo)
    return copied


def _stratified(theirs: Any, memo: dict[int, Any]) -> StratifiedPatching:
    """Return this package's strategy with the same cells excluded and the same probabilities.

    careamics' grid has no cells of less than a patch at the end of an axis: those that ours has
    there stay included, and are covered together with their neighbours or not at all.
    """
    ours = StratifiedPatching(theirs.data_shapes, theirs.patch_size)
    ours.rng = copy.deepcopy(theirs.rng, memo)
    for data_idx, samples in enumerate(theirs.image_patching):
        for sample_idx, sample in enumerate(samples):
            cells = {number: cell for cell, number in sample.grid_coords.items()}
            grid = set(ours.get_all_grid_coords()[data_idx, sample_idx])
            # where an axis ends one pixel short of a cell, careamics counts that cell
            excluded = [cell for cell in sample.excluded_patches if cell in grid]
            probs = {
                cells[number]: p for number, p in sample.relative_probs.items()
                if cells[number] in grid
            }  # fmt: skip
            if excluded:
                ours.exclude_patches(data_idx, sample_idx, excluded)
            if probs:
                ours.set_region_probs(data_idx, sample_idx, probs)
    return ours

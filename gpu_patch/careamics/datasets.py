"""Two datasets of careamics from one: for training, and for validation on what it never reads."""

from __future__ import annotations

import copy
from typing import Any

from gpu_patch.careamics.strategies import strategy_of
from gpu_patch.patching import Split, split_validation


def split_dataset(
    dataset: Any, fraction_or_count: float | int, *, seed: int
) -> tuple[Any, Any, list[Split]]:
    """Split validation patches off a dataset; see `gpu_patch.split_validation`.

    Parameters
    ----------
    dataset : CareamicsDataset
        For training; it stays as it is.
    fraction_or_count : float or int
        Part of the places in (0, 1), or number of patches; of each structure in mode II.
    seed : int
        Decides among places that cost the same.

    Returns
    -------
    training, validation : CareamicsDataset
        With the same images, and strategies of this package.
    splits : list of Split
        Of each strategy.
    """
    theirs = dataset.patch_constructor
    several = hasattr(theirs, "patching_strategies")
    strategies = theirs.patching_strategies if several else [theirs.patching_strategy]
    shapes = [e.shapes for e in theirs.target_extractors] if several else [theirs.input_shapes]
    memo: dict[int, Any] = {}
    splits = [
        split_validation(
            strategy_of(strategy, memo, "own"),
            fraction_or_count,
            multiscale_count=getattr(theirs, "multiscale_count", 1),
            padding_mode=getattr(theirs, "padding_mode", "reflect"),
            data_shapes=own,
            seed=seed,
        )
        for strategy, own in zip(strategies, shapes, strict=True)
    ]
    constructors = []
    for chosen in ([split.training for split in splits], [split.validation for split in splits]):
        constructor = copy.copy(theirs)
        if several:
            constructor.patching_strategies = chosen
        else:
            (constructor.patching_strategy,) = chosen
        constructors.append(constructor)
    training = copy.copy(dataset)
    training.patch_constructor = constructors[0]
    validation = type(dataset)(dataset.config.convert_mode("validating"), constructors[1])
    return training, validation, splits

"""Two constructors of one: for training, and for validation on what it never reads."""

from __future__ import annotations

import copy
import inspect
from typing import Any, NamedTuple

from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.protocol import PatchConstr, checked_constructor
from gpu_patch.patching import Split, split_validation


class ConstructorSplit(NamedTuple):
    """A constructor split into two.

    Attributes
    ----------
    training, validation : PatchConstr
        The constructors.
    splits : list of Split
        Of each strategy: one, or one per structure of mode II.
    """

    training: PatchConstr
    validation: PatchConstr
    splits: list[Split]


def split_constructor(
    constructor: PatchConstr,
    fraction_or_count: float | int,
    *,
    strict: bool = True,
    seed: int,
) -> ConstructorSplit:
    """Split validation patches off a constructor, so that training never reads them.

    See `gpu_patch.split_validation`, which is told the constructor's scales and padding. In mode
    II each structure is split by itself, and partners come from the own side.

    Parameters
    ----------
    constructor : PatchConstr
        One of this package; it stays as it is.
    fraction_or_count : float or int
        Part of the places in (0, 1), or number of patches; of each structure in mode II.
    strict : bool, default True
        Whether validation's surroundings are kept from training too, or its targets alone.
    seed : int
        Decides among places that cost the same.

    Returns
    -------
    ConstructorSplit
        (training, validation, splits).

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or there is too little data; the message says what would fit.
    """
    checked = checked_constructor("constructor", constructor)
    if not isinstance(checked, PlannedConstr):
        raise TypeError(
            f"constructor must be one of gpu_patch's own, found {type(constructor).__name__}"
        )
    splits = [
        split_validation(
            placement.strategy,
            fraction_or_count,
            multiscale_count=max(placement.n_scales, 1),
            padding_mode=getattr(constructor, "padding_mode", "reflect"),
            data_shapes=placement.extractor.shapes,
            strict=strict,
            seed=seed,
        )
        for placement in checked.sampling.placements
    ]
    training = _with(checked, [split.training for split in splits])
    validation = _with(checked, [split.validation for split in splits])
    return ConstructorSplit(training, validation, splits)


def _with(constructor: PlannedConstr, strategies: list[Any]) -> PatchConstr:
    """Make a constructor like another, of other strategies and with a generator of its own."""
    names = inspect.signature(type(constructor)).parameters
    arguments = {name: getattr(constructor, name) for name in names}
    if "patching_strategies" in arguments:
        arguments["patching_strategies"] = strategies
    else:
        (arguments["patching_strategy"],) = strategies
    if "rng" in arguments:
        arguments["rng"] = copy.deepcopy(arguments["rng"])
    made: PatchConstr = type(constructor)(**arguments)
    return made

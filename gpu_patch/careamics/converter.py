"""Patch constructors of careamics as constructors of this package."""

from __future__ import annotations

import copy
from typing import Any

from gpu_patch.careamics.images import Kept, extractor_of
from gpu_patch.careamics.recognise import careamics_class, check_nothing_replaced, described
from gpu_patch.careamics.strategies import strategy_of
from gpu_patch.constructors import (
    BasicPatchConstr,
    IndependentTargetsMsPatchConstr,
    MultiChannelTargetMsPatchConstr,
    PairedInputTargetMsPatchConstr,
    PredMsPatchConstr,
)
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.plan import Specs
from gpu_patch.images import PatchExtractor
from gpu_patch.patching import Patching

DATASET = "CareamicsDataset"
_CONSTRUCTORS = (
    "BasicPatchConstr",
    "MultiChannelTargetMsPatchConstr",
    "IndependentTargetsMsPatchConstr",
    "PairedInputTargetMsPatchConstr",
    "PredMsPatchConstr",
)


class Converter:
    """One conversion: generators that are shared in careamics stay shared.

    Parameters
    ----------
    kept : Kept
        Where images go.
    strategies : {"own", "theirs"}
        As in `from_careamics`.
    """

    def __init__(self, kept: Kept, strategies: str) -> None:
        self._kept, self._strategies = kept, strategies
        self._memo: dict[int, Any] = {}

    def constructor(self, name: str, obj: Any, seed: int | None) -> PlannedConstr:
        """Return the counterpart of a constructor.

        Parameters
        ----------
        name : str
            Of the argument, for messages.
        obj : careamics patch constructor
            Left as it is.
        seed : int or None
            Of the batches' draws.
        """
        base = careamics_class(obj, _CONSTRUCTORS)
        if base is None:
            raise TypeError(
                f"{name} must be a {DATASET} of careamics, or one of its patch constructors "
                f"{', '.join(_CONSTRUCTORS)}; found {described(obj)}"
            )
        check_nothing_replaced(name, obj, base)
        match base.__name__:
            case "BasicPatchConstr":
                return BasicPatchConstr(
                    self._strategy(obj.patching_strategy),
                    self._extractor("input_extractor", obj.input_extractor),
                    None
                    if obj.target_extractor is None
                    else self._extractor("target_extractor", obj.target_extractor),
                    obj.channels,
                    seed=seed,
                )
            case "MultiChannelTargetMsPatchConstr":
                p = obj.uncorrelated_channel_prob
                kind = _CollatableConstr if 0 < p < 1 else MultiChannelTargetMsPatchConstr
                return kind(
                    self._strategy(obj.patching_strategy),
                    self._extractor("target_extractor", obj.target_extractor),
                    obj.multiscale_count,
                    obj.padding_mode,
                    obj.alpha_ranges,
                    p,
                    obj.channels,
                    copy.deepcopy(obj.rng, self._memo),
                    seed=seed,
                )
            case "IndependentTargetsMsPatchConstr":
                return IndependentTargetsMsPatchConstr(
                    [self._strategy(strategy) for strategy in obj.patching_strategies],
                    [
                        self._extractor(f"target_extractors[{i}]", extractor)
                        for i, extractor in enumerate(obj.target_extractors)
                    ],
                    obj.multiscale_count,
                    obj.padding_mode,
                    obj.alpha_ranges,
                    copy.deepcopy(obj.rng, self._memo),
                    seed=seed,
                )
            case "PairedInputTargetMsPatchConstr":
                return PairedInputTargetMsPatchConstr(
                    self._strategy(obj.patching_strategy),
                    self._extractor("input_extractor", obj.input_extractor),
                    self._extractor("target_extractor", obj.target_extractor),
                    obj.multiscale_count,
                    obj.padding_mode,
                    seed=seed,
                )
            case _:
                return PredMsPatchConstr(
                    self._strategy(obj.patching_strategy),
                    self._extractor("input_extractor", obj.input_extractor),
                    obj.multiscale_count,
                    obj.padding_mode,
                    seed=seed,
                )

    def _strategy(self, theirs: Any) -> Patching:
        return strategy_of(theirs, self._memo, self._strategies)

    def _extractor(self, name: str, theirs: Any) -> PatchExtractor:
        return extractor_of(name, theirs, self._kept)


class _CollatableConstr(MultiChannelTargetMsPatchConstr):
    """Mode I with specs that have the same keys whether channels are correlated or not.

    So that PyTorch's collate function takes any of them together.
    """

    def _specs(self, specs: Specs) -> Specs:
        return specs.by_channel(len(self._channels))

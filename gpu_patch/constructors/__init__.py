"""Patch constructors: input, target and spec of a network's patch, one by one or in batches."""

from gpu_patch.constructors._basic import BasicPatchConstr
from gpu_patch.constructors._microsplit import (
    IndependentTargetsMsPatchConstr,
    MultiChannelTargetMsPatchConstr,
    PairedInputTargetMsPatchConstr,
    PredMsPatchConstr,
)
from gpu_patch.constructors._protocol import PatchConstr

__all__ = [
    "BasicPatchConstr",
    "IndependentTargetsMsPatchConstr",
    "MultiChannelTargetMsPatchConstr",
    "PairedInputTargetMsPatchConstr",
    "PatchConstr",
    "PredMsPatchConstr",
]

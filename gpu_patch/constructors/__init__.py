"""Patch constructors: input, target and spec of a network's patch, one by one or in batches."""

from gpu_patch.constructors._basic import BasicPatchConstr
from gpu_patch.constructors._independent import IndependentTargetsMsPatchConstr
from gpu_patch.constructors._multichannel import MultiChannelTargetMsPatchConstr
from gpu_patch.constructors._protocol import PatchConstr
from gpu_patch.constructors._single_input import (
    PairedInputTargetMsPatchConstr,
    PredMsPatchConstr,
)

__all__ = [
    "BasicPatchConstr",
    "IndependentTargetsMsPatchConstr",
    "MultiChannelTargetMsPatchConstr",
    "PairedInputTargetMsPatchConstr",
    "PatchConstr",
    "PredMsPatchConstr",
]

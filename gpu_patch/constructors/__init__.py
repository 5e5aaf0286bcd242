"""Patch constructors: input, target and spec of a network's patch, one by one or in batches."""

from gpu_patch.constructors.basic import BasicPatchConstr
from gpu_patch.constructors.independent import IndependentTargetsMsPatchConstr
from gpu_patch.constructors.multichannel import MultiChannelTargetMsPatchConstr
from gpu_patch.constructors.protocol import PatchConstr
from gpu_patch.constructors.single_input import (
    PairedInputTargetMsPatchConstr,
    PredMsPatchConstr,
)
from gpu_patch.constructors.split import ConstructorSplit, split_constructor

__all__ = [
    "BasicPatchConstr",
    "ConstructorSplit",
    "IndependentTargetsMsPatchConstr",
    "MultiChannelTargetMsPatchConstr",
    "PairedInputTargetMsPatchConstr",
    "PatchConstr",
    "PredMsPatchConstr",
    "split_constructor",
]

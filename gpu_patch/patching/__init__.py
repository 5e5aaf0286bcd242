"""Patching strategies: how many patches there are and where each lies."""

from gpu_patch.patching.class_balanced import ClassBalancedPatching
from gpu_patch.patching.grid import SequentialPatching, TiledPatching
from gpu_patch.patching.protocol import Patching
from gpu_patch.patching.random import FixedRandomPatching, RandomPatching
from gpu_patch.patching.split import Parts, Split, split_validation
from gpu_patch.patching.stratified import StratifiedPatching
from gpu_patch.patching.switi import SwitiPatching, stride_for
from gpu_patch.patching.table import FixedPatching, WholeSamplePatching

__all__ = [
    "ClassBalancedPatching",
    "FixedPatching",
    "FixedRandomPatching",
    "Parts",
    "Patching",
    "RandomPatching",
    "SequentialPatching",
    "Split",
    "StratifiedPatching",
    "SwitiPatching",
    "TiledPatching",
    "WholeSamplePatching",
    "split_validation",
    "stride_for",
]

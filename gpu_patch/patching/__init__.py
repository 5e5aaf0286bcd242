"""Patching strategies: how many patches there are and where each lies."""

from gpu_patch.patching.grid import SequentialPatching, TiledPatching
from gpu_patch.patching.protocol import Patching
from gpu_patch.patching.random import FixedRandomPatching, RandomPatching
from gpu_patch.patching.stratified import StratifiedPatching
from gpu_patch.patching.table import FixedPatching, WholeSamplePatching

__all__ = [
    "FixedPatching",
    "FixedRandomPatching",
    "Patching",
    "RandomPatching",
    "SequentialPatching",
    "StratifiedPatching",
    "TiledPatching",
    "WholeSamplePatching",
]

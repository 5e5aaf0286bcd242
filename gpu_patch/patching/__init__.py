"""Patching strategies: how many patches there are and where each lies."""

from gpu_patch.patching._grid import SequentialPatching, TiledPatching
from gpu_patch.patching._protocol import Patching
from gpu_patch.patching._random import FixedRandomPatching, RandomPatching
from gpu_patch.patching._stratified import StratifiedPatching
from gpu_patch.patching._table import FixedPatching, WholeSamplePatching

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

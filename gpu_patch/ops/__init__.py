"""Operations on whole batches: each checks its arguments, then runs where the images are."""

from gpu_patch.ops.accumulate import accumulate, means
from gpu_patch.ops.answer import answer, flags_of
from gpu_patch.ops.compiling import compile_for
from gpu_patch.ops.gather import Gather, gather
from gpu_patch.ops.image_set import ImageSet
from gpu_patch.ops.lateral_context import LateralContext, lateral_context
from gpu_patch.ops.moments import add_sample
from gpu_patch.ops.quantiles import quantiles
from gpu_patch.ops.stitch import stitch
from gpu_patch.tiling import Segment

__all__ = [
    "Gather",
    "ImageSet",
    "LateralContext",
    "Segment",
    "accumulate",
    "add_sample",
    "answer",
    "compile_for",
    "flags_of",
    "gather",
    "lateral_context",
    "means",
    "quantiles",
    "stitch",
]

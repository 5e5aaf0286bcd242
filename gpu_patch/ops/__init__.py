"""Operations on whole batches: each checks its arguments, then runs where the images are."""

from gpu_patch.ops._images import Images
from gpu_patch.ops.gather import gather
from gpu_patch.ops.lateral_context import lateral_context

__all__ = ["Images", "gather", "lateral_context"]

"""From a plan to its batch: an operation for the input, and one for a target of its own."""

from __future__ import annotations

from typing import Any

from numpy.typing import DTypeLike

from gpu_patch.constructors.plan import Plan
from gpu_patch.ops import gather, lateral_context
from gpu_patch.ops.arguments import checked_dtype


def execute(plan: Plan, dtype: DTypeLike, target_dtype: DTypeLike | None = None) -> tuple[Any, Any]:
    """Make a batch.

    Parameters
    ----------
    plan : Plan
        Of any constructor.
    dtype : {float32, float16}
        Of the results.
    target_dtype : integer type, bool or None, default None
        Of a target of its own that is copied exactly, and turned at most; None is `dtype`.

    Returns
    -------
    input : array, (B, L or C, (Z), Y, X)
        Where the images are.
    target : array, (B, C, (Z), Y, X), or None
        Likewise; None where the plan has none.
    """
    dtype = checked_dtype(dtype)  # of integers there is no input
    images, sources, n_scales, mode = plan.input
    size, epilogue = plan.patch_size, plan.epilogue
    targets = None
    if plan.weights is None:
        inputs = gather(images, sources, size, mode=mode, dtype=dtype, epilogue=epilogue)
    else:
        inputs, targets = lateral_context(
            images,
            sources,
            plan.weights,
            size,
            n_scales,
            mode=mode,
            targets=plan.is_mixture,
            dtype=dtype,
            epilogue=epilogue,
        )
    if plan.target is not None:
        own, places, *_ = plan.target
        epilogue = epilogue and epilogue.of_target()
        kind = dtype if target_dtype is None else target_dtype
        targets = gather(own, places, size, dtype=kind, epilogue=epilogue)
    return inputs, targets

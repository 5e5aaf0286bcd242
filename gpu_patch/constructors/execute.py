"""From a plan to its batch: an operation for the input, and one for a target of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.constructors.plan import Plan
from gpu_patch.ops import Gather, LateralContext
from gpu_patch.ops.arguments import checked_dtype


class Execution:
    """Makes a plan's batch, or batches of any rows of it.

    Parameters
    ----------
    plan : Plan
        Of any constructor.
    dtype : {float32, float16}
        Of the results.
    target_dtype : integer type, bool or None, default None
        Of a target of its own that is copied exactly, and turned at most; None is `dtype`.
    """

    def __init__(self, plan: Plan, dtype: DTypeLike, target_dtype: DTypeLike | None = None) -> None:
        dtype = checked_dtype(dtype)  # of integers there is no input
        images, sources, n_scales, mode = plan.input
        size, epilogue = plan.patch_size, plan.epilogue
        self._make: Gather | LateralContext
        self._target: Gather | None = None
        if plan.weights is None:
            self._make = Gather(images, sources, size, mode=mode, dtype=dtype, epilogue=epilogue)
        else:
            self._make = LateralContext(
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
            self._target = Gather(own, places, size, dtype=kind, epilogue=epilogue)

    def __call__(self, rows: NDArray[np.int64] | None = None) -> tuple[Any, Any]:
        """Make a batch.

        Parameters
        ----------
        rows : array of int64, shape (B,), optional
            Which of the plan's samples are its own; default all.

        Returns
        -------
        input : array, (B, L or C, (Z), Y, X)
            Where the images are.
        target : array, (B, C, (Z), Y, X), or None
            Likewise; None where the plan has none.
        """
        made = self._make(rows)
        inputs, targets = made if isinstance(self._make, LateralContext) else (made, None)
        return inputs, targets if self._target is None else self._target(rows)


def execute(plan: Plan, dtype: DTypeLike, target_dtype: DTypeLike | None = None) -> tuple[Any, Any]:
    """Return input and target of a plan, as `Execution` makes them."""
    return Execution(plan, dtype, target_dtype)()

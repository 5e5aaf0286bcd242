"""What users of `predict` are warned of, at the line that calls it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from math import prod

from gpu_patch.checks import Message, argument
from gpu_patch.chunks import ChunkedImage
from gpu_patch.finite import count_not_finite
from gpu_patch.images import ImageStack

_MOST_NAMED = 5
"""Images that one warning names."""


def warn(remark: str) -> None:
    """Warn at the line that calls this package."""
    package, level = __name__.rpartition(".")[0], 1
    while sys._getframe(level).f_globals.get("__name__", "").startswith(f"{package}."):
        level += 1
    warnings.warn(remark, stacklevel=level + 1)


def not_finite(stacks: Sequence[ImageStack]) -> str:
    """Say which images have pixels that are not finite, and how many; "" where none has."""
    named = []
    for stack in stacks:
        data = stack.data
        n = data.n_not_finite if isinstance(data, ChunkedImage) else count_not_finite(data)
        if n:
            named.append(f"{n:,} of {prod(stack.data_shape):,} in {stack.source}")
    if not named:
        return ""
    more = len(named) - _MOST_NAMED
    return (
        "pixels that are NaN or infinite have been predicted from, and what is made of tiles with "
        f"such pixels may be wrong: {'; '.join(named[:_MOST_NAMED])}"
        + (f"; and in {more} more image{'s' * (more > 1)}" if more > 0 else "")
    )


def evaluating_samples() -> str:
    """Say that a module is put into evaluation mode, whose samples may then be equal."""
    return Message(
        "model is in training mode, and is put into evaluation mode for this run: its "
        "samples may all be equal. Give ",
        argument("training_mode", "keep"),
        " to leave it as it is, or put what is to vary into training mode alone: "
        "model.eval(), then model.dropout.train() for a part of that name",
    )


def equal_samples(n_samples: int, *, module: bool) -> str:
    """Say that samples did not vary; of a torch module what would make them."""
    remark = (
        f"the standard deviation is 0 at every pixel: model gave the same in all {n_samples} "
        "samples, and one of them would do"
    )
    if not module:
        return remark
    return Message(
        f"{remark}. Dropout varies in training mode alone: model.eval(), then "
        "model.dropout.train() for a part of that name, or ",
        argument("training_mode", "keep"),
    )


def unknown_model(unknown: Sequence[str]) -> str:
    """Say that a run may go on with another model, of which nothing is known."""
    return Message(
        "model may be another one than that of the earlier run: nothing is known of "
        f"{', '.join(unknown)}. Give ",
        argument("model_id"),
        " from the first run on, such as a version, or a digest of its file",
    )

"""Normalisation as arithmetic: factor and summand of each channel, and the way back."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument, shorten
from gpu_patch.feed.kinds import Statistics

_STD_EPS, _RANGE_EPS = 1e-6, 1e-8
_Float = TypeVar("_Float", bound=np.floating[Any])


class Affine(NamedTuple):
    """Per channel, or one for all: ``(value - center) * scale``, or ``value * scale + offset``."""

    center: NDArray[np.float64]
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]


def affine(kind: str, statistics: Statistics | None) -> Affine:
    """Return what statistics of a kind do to values; nothing where there are none."""
    low, width = np.zeros(1), np.ones(1)
    if statistics is not None:
        low, width = _low_and_width(kind, statistics)
        width = width + (_STD_EPS if kind == "mean_std" else _RANGE_EPS)
    return Affine(
        _fixed(low),
        _fixed((1 / width).astype(np.float32)),
        _fixed((-low / width).astype(np.float32)),
    )


class Inverse(NamedTuple):
    """How predictions are taken back, per channel: ``value * scale + rest + center``.

    Attributes
    ----------
    scale : array of float32, shape (C,)
        Factor.
    rest : array of float32, shape (C,)
        What the float32 center lacks of the exact one; added before it.
    center : array of float32, shape (C,)
        What 0 becomes.
    """

    scale: NDArray[np.float32]
    rest: NDArray[np.float32]
    center: NDArray[np.float32]


def with_inverse(prediction: Any, inverse: Inverse | None) -> Any:
    """Return a prediction (B, C, …) of any library as float32, taken back where that is wanted."""
    # only torch's tensors have such a method
    if hasattr(prediction, "float"):
        values = prediction.float()
    else:
        values = prediction.astype(np.float32, copy=False)
    if inverse is None:
        return values
    # channel by channel, since plain numbers go with the arrays of any library
    result = values + 0
    columns = zip(*(numbers.tolist() for numbers in inverse), strict=True)
    for c, (scale, rest, center) in enumerate(columns):
        result[:, c] = values[:, c] * scale + rest + center
    return result


def channels_of(prediction: Any) -> int:
    """Return how many channels a prediction has, where it is one."""
    if not hasattr(prediction, "shape"):
        raise TypeError(
            "prediction must be an array or tensor, "
            f"found {shorten(prediction)} ({type(prediction).__name__})"
        )
    shape = tuple(prediction.shape)
    if len(shape) not in (4, 5):
        raise ValueError(f"prediction must be BCYX or BCZYX, found the shape {shape}")
    return int(shape[1])


def inverse_of(kind: str, statistics: Statistics, n_channels: int) -> Inverse:
    """Return the way back for predictions of so many channels."""
    low, width = _low_and_width(kind, statistics)
    if len(low) not in (1, n_channels):
        raise ValueError(
            Message(
                f"prediction must have {len(low)} channels, as many as ",
                argument("normalization"),
                f" has statistics, found {n_channels}",
            )
        )
    factor = width + _STD_EPS if kind == "mean_std" else width
    center = low.astype(np.float32)
    parts = (factor, low - center, center)
    return Inverse(*(np.broadcast_to(v.astype(np.float32), (n_channels,)) for v in parts))


def _low_and_width(
    kind: str, statistics: Statistics
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what becomes 0, and how far from there what becomes 1 is."""
    first, second = (np.array(numbers) for numbers in statistics)
    return first, second if kind == "mean_std" else second - first


def _fixed(values: NDArray[_Float]) -> NDArray[_Float]:
    """Return values that nobody can change."""
    values.setflags(write=False)
    return values

"""`Answer`: what is asked of a model's values: channels, quantiles, labels, data type, scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gpu_patch.checks import (
    Message,
    argument,
    choice,
    probability,
    sequence,
    shorten,
    whole_numbers,
)

DTYPES = ("float32", "float16", "uint8", "int8", "uint16", "int16")
_LABELS = tuple(np.dtype(name) for name in ("uint8", "uint16"))
"""Of the numbers of channels."""


@dataclass(frozen=True)
class Answer:
    """What is asked of what a model returns; each as in `predict`.

    Parameters
    ----------
    reduce : "argmax", sequence of float, or None
        What becomes of channels, or of samples.
    channels : sequence of int or None
        Channels of the model.
    dtype : data type or None
        Of the result.
    scale_factor, add_offset : float
        What stored values are to be multiplied by, and what is to be added, to have the result.
    """

    reduce: str | Sequence[float] | None = None
    channels: Sequence[int] | None = None
    dtype: DTypeLike | None = None
    scale_factor: float = 1.0
    add_offset: float = 0.0

    def __post_init__(self) -> None:
        reduce = _checked_reduce(self.reduce)
        dtype = self.dtype
        if dtype is None and reduce != "argmax":
            dtype = np.float32
        checked = {
            "reduce": reduce,
            "channels": _checked_channels(self.channels),
            "dtype": None if dtype is None else _checked_dtype(dtype),
            "scale_factor": _checked_number("scale_factor", self.scale_factor),
            "add_offset": _checked_number("add_offset", self.add_offset),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.scale_factor == 0:
            raise ValueError(Message(argument("scale_factor"), " must not be 0"))
        self._check_together()

    def _check_together(self) -> None:
        """Raise where what is asked for does not go together."""
        dtype = None if self.dtype is None else np.dtype(self.dtype)
        if self.is_labels and dtype is not None and dtype.kind == "f":
            raise ValueError(
                Message(
                    argument("dtype"),
                    " must be of whole numbers for ",
                    argument("reduce", "argmax"),
                    f", found {dtype}: leave it out for the smallest that does",
                )
            )
        for name, default in (("scale_factor", 1), ("add_offset", 0)):
            value = getattr(self, name)
            if value == default:
                continue
            if self.is_labels:
                raise ValueError(
                    Message(argument(name), " has no place in ", argument("reduce", "argmax"))
                )
            if dtype == np.float32:
                raise ValueError(
                    Message(
                        argument(name), " needs ", argument("dtype"), " of whole numbers or float16"
                    )
                )

    @property
    def is_labels(self) -> bool:
        """Whether the result is the number of the largest channel."""
        return isinstance(self.reduce, str)

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The quantiles of samples that are asked for."""
        return () if self.reduce is None or isinstance(self.reduce, str) else tuple(self.reduce)

    @property
    def is_scaled(self) -> bool:
        """Whether stored values are others than those of the result."""
        return self.scale_factor != 1 or self.add_offset != 0

    def n_channels(self, n_channels: int) -> int:
        """Return how many channels the result has, of so many channels of tiles."""
        return 1 if self.is_labels else n_channels * (len(self.quantiles) or 1)

    def stored_type(self, n_channels: int) -> np.dtype[Any]:
        """Return the data type of the result.

        Raises
        ------
        ValueError
            Where it cannot hold the numbers of so many channels, or there is one channel alone.
        """
        if not self.is_labels:
            return np.dtype(self.dtype)
        its = argument("reduce", "argmax")
        if n_channels < 2:
            raise ValueError(
                Message(its, " needs at least 2 channels, of which one is the largest")
            )
        fitting = [
            kind
            for kind in (_LABELS if self.dtype is None else [np.dtype(self.dtype)])
            if n_channels - 1 <= np.iinfo(kind).max
        ]
        if not fitting:
            dtype = argument("dtype", str(self.dtype or _LABELS[-1]))
            raise ValueError(
                Message(its, f" of {n_channels} channels has numbers that ", dtype, " cannot hold")
            )
        return fitting[0]

    def names(self, channel_names: Sequence[str]) -> tuple[str, ...]:
        """Return what the channels of the result are called, where those of tiles have names."""
        if self.is_labels:
            return ()
        if not self.quantiles:
            return tuple(channel_names)
        return tuple(f"{name} q{at:g}" for name in channel_names for at in self.quantiles)

    def notes(self, channel_names: Sequence[str]) -> dict[str, Any]:
        """Return what is needed to understand stored values, as JSON has it."""
        if self.is_labels and channel_names:
            return {"labels": list(channel_names)}
        if self.is_scaled:
            return {"scale_factor": self.scale_factor, "add_offset": self.add_offset}
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "dtype": None if self.dtype is None else np.dtype(self.dtype).name,
            "reduce": self.reduce,
            "channels": self.channels,
            "scale_factor": self.scale_factor,
            "add_offset": self.add_offset,
        }


def _checked_reduce(reduce: object) -> str | tuple[float, ...] | None:
    if reduce is None:
        return None
    if isinstance(reduce, str):
        return choice("reduce", reduce, ("argmax",))
    if not isinstance(reduce, (Sequence, np.ndarray)) or not len(reduce):
        raise TypeError(
            Message(
                argument("reduce"),
                " must be 'argmax', or quantiles such as [0.05, 0.5, 0.95], found "
                f"{shorten(reduce)}",
            )
        )
    return tuple(probability(f"reduce[{i}]", at) for i, at in enumerate(reduce))


def _checked_channels(channels: Sequence[int] | None) -> tuple[int, ...] | None:
    if channels is None:
        return None
    found = whole_numbers("channels", sequence("channels", channels, "whole numbers"), minimum=0)
    if not found or len(set(found)) < len(found):
        raise ValueError(
            Message(
                argument("channels"),
                f" must be some channels, each once, found {shorten(channels)}",
            )
        )
    return found


def _checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return a data type that predictions can be of."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in DTYPES:
        raise ValueError(
            Message(
                argument("dtype"), f" must be one of {', '.join(DTYPES)}, found {shorten(dtype)}"
            )
        )
    return found


def _checked_number(name: str, value: object) -> float:
    wanted = Message(argument(name), f" must be a finite number, found {shorten(value)}")
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(wanted)
    if not isfinite(value):
        raise ValueError(wanted)
    return float(value)

"""Data types of resident images."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gpu_patch.checks import Message, argument

STORED_DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "float16", "float32")
"""Data types that stay as they are; all others become float32."""

LABEL_DTYPES = tuple(f"{kind}{bits}" for bits in (8, 16, 32, 64) for kind in ("uint", "int"))
"""Data types of labels that stay as they are, beside bool."""

_STORED = frozenset(map(np.dtype, STORED_DTYPES))
_FLOAT32 = np.dtype(np.float32)

EXACT = 2**24
"""float32 has every whole number up to here."""


def stored_dtype(dtype: np.dtype[Any], *, labels: bool = False) -> np.dtype[Any]:
    """Return the data type that pixels of `dtype` are kept in; labels stay what they are."""
    if dtype.kind == "c":
        raise TypeError(f"data must be real, found {dtype}: give its parts as channels")
    if dtype.kind not in "biuf":
        raise TypeError(f"data must be numbers or bool, found {dtype}")
    native: np.dtype[Any] = dtype.newbyteorder("=")
    if labels:
        if dtype.kind == "f":
            raise TypeError(f"labels must be integers or bool, found {dtype}")
        return native
    return native if native in _STORED else _FLOAT32  # names of types take NumPy long


def largest_inexact(values: Any, stored: np.dtype[Any]) -> int:
    """Return the size of the largest value where some are integers that `stored` rounds, else 0."""
    if values.dtype.kind not in "iu" or stored.kind != "f" or not values.size:
        return 0
    largest = max(abs(int(values.max())), abs(int(values.min())))
    return largest if largest > EXACT else 0


def warn_of_lost_precision(
    source: str, dtype: np.dtype[Any], largest: int, *, stacklevel: int = 2
) -> None:
    """Warn that not all values of an image, the largest of which is given, are kept as they are."""
    origin = f"{source}: " if source else ""
    # float32 has 2^23 values from one power of 2 to the next
    step = 1 << ((largest - 1).bit_length() - 24)
    warnings.warn(
        Message(
            f"{origin}{dtype} data with values beyond 2^24 are kept as float32 and lose precision: "
            f"near {largest} only multiples of {step} are kept, {step - 1} of {step} grey levels "
            "are lost. Give smaller values, such as labels numbered from 1 on, or ",
            argument("labels", True),
            ", which keeps labels as they are",
        ),
        stacklevel=stacklevel + 1,
    )

"""Predicted values as the data type that they are written in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.checks import Message, argument, shorten

_DTYPES = ("float32", "float16", "uint8", "int8", "uint16", "int16")


def checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return a data type that predictions can be of."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in _DTYPES:
        raise ValueError(
            Message(
                argument("dtype"), f" must be one of {', '.join(_DTYPES)}, found {shorten(dtype)}"
            )
        )
    return found


def converted(values: NDArray[np.float32], dtype: np.dtype[Any], source: str) -> NDArray[Any]:
    """Return values of `dtype`: for whole numbers rounded to the nearest, within its range.

    Raises
    ------
    ValueError
        Where a value is not finite and `dtype` has no such value.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(dtype, copy=False)
    if not np.isfinite(values).all():
        raise ValueError(
            f"the prediction of {source} has values that are not finite, which {dtype} cannot "
            "hold: look for them in the image and in the model, or ask for float32"
        )
    limits = np.iinfo(dtype)
    rounded = np.rint(values)
    return np.clip(rounded, limits.min, limits.max, out=rounded).astype(dtype)

"""Arguments that several operations share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gpu_patch.errors import shorten


def checked_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return float32 or float16."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be float32 or float16, found {shorten(dtype)}") from None
    if found not in (np.float32, np.float16):
        raise ValueError(f"dtype must be float32 or float16, found {found}")
    return found

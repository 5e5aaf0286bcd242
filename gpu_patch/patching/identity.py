"""What tells a strategy's patches from another's, in a few numbers that files can hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpu_patch.patching.base import BatchPatching
from gpu_patch.patching.protocol import Patching


def identity(strategy: Patching) -> dict[str, Any]:
    """Return what decides where a strategy's patches lie, or may lie.

    Parameters
    ----------
    strategy : Patching
        Of this package, or somebody's own; of the latter no more is told than it says.

    Returns
    -------
    dict
        Of strings, whole numbers, lists and None: class, patch_size, overlaps, seed, n_patches
        and "places", a digest of the shapes of the samples and of exclusions, probabilities and
        lists of places.
    """
    return {
        "class": type(strategy).__qualname__,
        "patch_size": _whole_numbers(getattr(strategy, "patch_size", None)),
        "overlaps": _whole_numbers(getattr(strategy, "overlaps", None)),
        "seed": _seed(strategy),
        "n_patches": int(strategy.n_patches),
        "places": _digest(strategy.content() if isinstance(strategy, BatchPatching) else ()),
    }


def _digest(arrays: Iterable[ArrayLike]) -> str:
    found = sha256()
    for array in arrays:
        values = np.ascontiguousarray(array)
        # as bytes of one order, whatever the machine
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        found.update(f"{values.dtype.kind}{values.shape}".encode())
        found.update(little.tobytes())
    return found.hexdigest()[:16]


def _whole_numbers(values: Any) -> list[int] | None:
    if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, (str, bytes)):
        return None
    try:
        return [int(value) for value in values]
    except (TypeError, ValueError):  # of somebody's own, where it means something else
        return None


def _seed(strategy: Patching) -> int | None:
    seed = getattr(strategy, "seed", None)
    return int(seed) if isinstance(seed, (int, np.integer)) else None

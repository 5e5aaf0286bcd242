"""What tells a strategy's patches from another's, in a few numbers that files can hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gpu_patch.patching.base import SampledPatching
from gpu_patch.patching.protocol import Patching
from gpu_patch.patching.random import FixedRandomPatching
from gpu_patch.patching.stratified import StratifiedPatching
from gpu_patch.patching.table import FixedPatching


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
        "places": _digest(_places(strategy)),
    }


def _places(strategy: Patching) -> Iterator[ArrayLike]:
    if isinstance(strategy, SampledPatching):
        # channels make no difference
        yield np.array([(shape[0], *shape[2:]) for shape in strategy.data_shapes], np.int64)
    if isinstance(strategy, StratifiedPatching):
        yield from strategy._excluded
        yield from strategy._probs
    if isinstance(strategy, FixedRandomPatching):
        yield strategy._coords
    if isinstance(strategy, FixedPatching):
        yield from (strategy._data_idx, strategy._sample_idx, strategy._coords, strategy._sizes)


def _digest(arrays: Iterator[ArrayLike]) -> str:
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
    except (TypeError, ValueError):  # somebody's own, of another meaning
        return None


def _seed(strategy: Patching) -> int | None:
    seed = getattr(strategy, "seed", None)
    return int(seed) if isinstance(seed, (int, np.integer)) else None

"""Strategies that this package did not write."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpu_patch.errors import shorten
from gpu_patch.patching._base import BatchPatching
from gpu_patch.patching._locations import Locations
from gpu_patch.patching._protocol import Patching

_MEMBERS = ("n_patches", "get_patch_spec", "get_patch_indices")


def checked_patching(name: str, strategy: object) -> Patching:
    """Return `strategy` where it has the members of `Patching`."""
    missing = [member for member in _MEMBERS if not hasattr(strategy, member)]
    if missing or isinstance(strategy, type):
        raise TypeError(
            f"{name} must be a patching strategy with {', '.join(_MEMBERS)}, "
            f"found {shorten(strategy)}"
            + (f", which lacks {', '.join(missing)}" if missing else "")
        )
    return strategy  # type: ignore[return-value]


def n_uniforms(strategy: Patching) -> int:
    """Random numbers that placing one patch of a batch takes."""
    return strategy.n_uniforms if isinstance(strategy, BatchPatching) else 0


def locate(
    strategy: Patching, index: NDArray[np.int64], uniforms: NDArray[np.float64]
) -> Locations:
    """Place a batch: at once where the strategy can, otherwise index by index."""
    if isinstance(strategy, BatchPatching):
        return strategy.locate(index, uniforms)
    return Locations.from_specs([strategy.get_patch_spec(i) for i in index.tolist()])

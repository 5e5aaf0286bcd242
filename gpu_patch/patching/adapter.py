"""Strategies that this package did not write."""

from __future__ import annotations

from typing import TypeGuard

from gpu_patch.checks import shorten
from gpu_patch.patching.base import BatchPatching
from gpu_patch.patching.protocol import Patching

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


def places_batches(strategy: Patching) -> TypeGuard[BatchPatching]:
    """Tell whether a strategy can place a whole batch at once.

    Not where somebody's subclass has a `get_patch_spec` of its own, which `locate` ignores.
    """
    mro = type(strategy).__mro__
    depth = {
        name: next((i for i, kind in enumerate(mro) if name in vars(kind)), len(mro))
        for name in ("locate", "get_patch_spec")
    }
    return isinstance(strategy, BatchPatching) and depth["locate"] <= depth["get_patch_spec"]

"""What the state of a loader tells of its order, and which states a loader takes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gpu_patch.checks import mapping, shorten
from gpu_patch.constructors import PatchConstr
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.feed.sweep import Sweep
from gpu_patch.patching.identity import identity

VERSION = 2
_OF_THE_ORDER = ("shuffle", "order", "window", "n_blocks", "strategies")


def order_of(
    constructor: PatchConstr,
    *,
    shuffle: bool,
    order: str,
    window: float,
    n_blocks: int | None,
    sweep: Sweep | None,
) -> dict[str, Any]:
    """Return all that decides which patch comes when, but for seeds and epochs.

    Parameters
    ----------
    constructor : PatchConstr
        Of the loader.
    shuffle, order, window
        As the loader has them; `window` is of meaning for "blocks" alone.
    n_blocks : int or None
        How many blocks images are cut into, where they are.
    sweep : Sweep or None
        How images are swept, where they are.
    """
    placements = constructor.sampling.placements if isinstance(constructor, PlannedConstr) else []
    return {
        "shuffle": shuffle,
        "order": order,
        "window": window if order == "blocks" else None,
        "n_blocks": n_blocks,
        "sweep": None if sweep is None else asdict(sweep),
        "strategies": [{"name": place.name, **identity(place.strategy)} for place in placements],
    }


def checked_state(state: object, own: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    """Return a loader's state where it is of a loader of the same order.

    Parameters
    ----------
    state : object
        What `load_state_dict` was given.
    own : dict
        What `order_of` returns for this loader, and its n_patches.
    seed : int
        Of this loader's constructor.

    Raises
    ------
    TypeError, ValueError
        The state is of another order; names what differs.
    """
    keys = ["version", "seed", "constructor_seed", "epoch", "position", "n_patches"]
    found = mapping("state", state, keys)
    if found["version"] == 1:
        warnings.warn(
            "state is of an older version, which does not tell the order of patches: it is taken "
            "as of a loader with the same order, window, shuffle and strategy as this one",
            stacklevel=3,
        )
    elif found["version"] == VERSION:
        mapping("state", found, _OF_THE_ORDER)
        _check_order(found, own)
    else:
        raise ValueError(f"state has the version {shorten(found['version'])}, this is {VERSION}")
    if found["n_patches"] != own["n_patches"]:
        raise ValueError(
            f"state is of {shorten(found['n_patches'])} patches, the constructor has "
            f"{own['n_patches']}: it must be the same that the state was taken with"
        )
    if found["constructor_seed"] != seed:
        raise ValueError(
            f"state is of a constructor with seed={shorten(found['constructor_seed'])}, this "
            f"one has {seed}: give the constructor that seed when it is made"
        )
    return found


def _check_order(found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse a state that differs in anything of the order."""
    for name in ("shuffle", "order", "window"):
        if found[name] != own[name]:
            raise _differs("a loader", name, found[name], own[name])
    _check_sweep(found.get("sweep"), own["sweep"])
    theirs, ours = found["strategies"], own["strategies"]
    if not isinstance(theirs, list) or len(theirs) != len(ours):
        n = len(theirs) if isinstance(theirs, list) else shorten(theirs)
        raise ValueError(f"state is of a constructor with {n} strategies, this one has {len(ours)}")
    for i, (their, our) in enumerate(zip(theirs, ours, strict=True)):
        strategy = mapping(f"state['strategies'][{i}]", their, list(our))
        for name in our:
            if strategy[name] != our[name]:
                what = f"a {our['name']}"
                if name == "places":
                    raise ValueError(
                        f"state is of {what} with other places: its images have other shapes, or "
                        f"other cells are excluded or rare. {_WAY_OUT}"
                    )
                raise _differs(what, name, strategy[name], our[name])
    if found["n_blocks"] != own["n_blocks"]:
        raise ValueError(
            f"state is of images in {shorten(found['n_blocks'])} blocks, these are in "
            f"{own['n_blocks']}: another multiscale_count or patch size makes others. {_WAY_OUT}"
        )


def _check_sweep(found: object, own: object) -> None:
    if found != own:
        raise ValueError(
            f"state is of images swept in another way, {shorten(found)}, these are swept by "
            f"{shorten(own)}: give memory_budget the same bytes as then. {_WAY_OUT}"
        )


_WAY_OUT = (
    "In another order patches would be repeated and others missed: make the loader as it was, or "
    "begin an epoch with set_epoch"
)


def _differs(what: str, name: str, found: object, own: object) -> ValueError:
    return ValueError(
        f"state is of {what} with {name}={shorten(found)}, this one has {name}={own!r}. {_WAY_OUT}"
    )

"""Targets that are labels: in which type they are handed out, and where that makes no sense."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gpu_patch.checks import Message, argument, shorten
from gpu_patch.constructors.placement import Sampling


def checked_target_dtype(wanted: object, sampling: Sampling) -> np.dtype[Any] | None:
    """Return the type of targets that are copied exactly.

    Parameters
    ----------
    wanted : "native", integer type, bool or None
        As `construct_batch` takes it.
    sampling : Sampling
        Of the constructor.

    Returns
    -------
    numpy.dtype or None
        None where targets are made as inputs are, or there are none.
    """
    targets = [extractor for extractor, _ in sampling.channels.get("target", [])]
    if wanted is None or not targets:
        if targets and (wide := targets[0].images.wide_integers):
            raise TypeError(
                Message(
                    f"the targets are labels of {wide[0]}, which no floating type holds: give ",
                    argument("target_dtype", "native"),
                )
            )
        _checked(wanted)
        return None
    if "input" not in sampling.channels:
        raise ValueError(
            Message(
                argument("target_dtype"),
                f" is {shorten(wanted)}, but inputs are mixed from the targets, which are made "
                "alike: leave it out",
            )
        )
    found, kinds = _checked(wanted), targets[0].images.dtypes
    if any(kind.kind not in "biu" for kind in kinds):
        raise TypeError(
            Message(
                argument("target_dtype"),
                f" is {shorten(wanted)}, but targets are {_named(kinds)}: labels are integers. If "
                "they were integers of 32 or 64 bits, open them with ",
                argument("labels", True),
            )
        )
    # of int64 and uint64, NumPy makes float64
    smallest = np.result_type(*kinds)
    result: np.dtype[Any] = smallest if found is None else found
    lossy = [kind for kind in kinds if not np.can_cast(kind, result, "safe")]
    if result.kind not in "biu" or lossy:
        raise TypeError(
            Message(
                argument("target_dtype"),
                f" is {shorten(wanted)}, but targets are {_named(kinds)}: "
                + (f"{result} does not hold all values" if lossy else "no type holds all values"),
            )
        )
    return result


def target_option(constructor: object, wanted: DTypeLike | None) -> dict[str, Any]:
    """Return `target_dtype` for calls of `construct_batch`, checked; {} for None."""
    sampling = getattr(constructor, "sampling", None)
    if isinstance(sampling, Sampling):
        checked_target_dtype(wanted, sampling)
    # somebody's own constructor may not know the option
    return {} if wanted is None else {"target_dtype": wanted}


def _checked(wanted: Any) -> np.dtype[Any] | None:
    """Return an integer type, None for "native" and None."""
    if wanted is None or (isinstance(wanted, str) and wanted == "native"):
        return None
    message = Message(
        argument("target_dtype"),
        f" must be 'native', an integer type, bool or None, found {shorten(wanted)}",
    )
    try:
        found: np.dtype[Any] = np.dtype(wanted)
    except TypeError:
        raise TypeError(message) from None
    if found.kind not in "biu" or not found.isnative:
        raise ValueError(message)
    return found


def _named(kinds: tuple[np.dtype[Any], ...]) -> str:
    return " and ".join(map(str, kinds))

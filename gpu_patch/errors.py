"""Checks shared by every public entry point, with messages that say how to go on.

Each check names the argument, the value found and what would be right. Wrong kinds of
object are `TypeError`, wrong values `ValueError`, indices outside a range `IndexError`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def shorten(value: object, limit: int = 80) -> str:
    """Return ``repr(value)``, cut where an error message would drown in it."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def whole_number(name: str, value: object, *, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as an int of at least `minimum` (and at most `maximum`)."""
    upto = "" if maximum is None else f" and at most {maximum}"
    wanted = f"{name} must be a whole number of at least {minimum}{upto}, found {shorten(value)}"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(wanted)
    if isinstance(value, (float, np.floating)):
        raise ValueError(wanted)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(wanted) from None
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(wanted)
    return number


def whole_numbers(
    name: str, value: object, *, minimum: int, length: int | None = None
) -> tuple[int, ...]:
    """Return `value` as a tuple of ints of at least `minimum`, `length` of them where given."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise TypeError(
            f"{name} must be a sequence of whole numbers, one per spatial axis, "
            f"found {shorten(value)}"
        )
    numbers = tuple(
        whole_number(f"{name}[{i}]", item, minimum=minimum) for i, item in enumerate(value)
    )
    if length is not None and len(numbers) != length:
        raise ValueError(
            f"{name} must have {length} entries, one per spatial axis, found {shorten(value)}"
        )
    return numbers


def index_in(name: str, value: object, count: int, what: str) -> int:
    """Return `value` as an index in 0 … count − 1; negative values count from the end."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a whole number, found {shorten(value)}")
    try:
        index = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a whole number, found {shorten(value)}") from None
    if not -count <= index < count:
        raise IndexError(
            f"{name} is {index}, but there are {count} {what}: "
            + (f"it must be in {-count} … {count - 1}" if count else "no index is valid")
        )
    return index + count if index < 0 else index


def indices_in(name: str, values: object, count: int, what: str) -> NDArray[np.int64]:
    """Return `values` as a non-empty 1-D array of indices in 0 … count − 1."""
    if isinstance(values, (int, np.integer)):
        raise TypeError(f"{name} must be a sequence of whole numbers, found {shorten(values)}")
    array = np.asarray(values)
    if array.size == 0:
        raise ValueError(f"{name} is empty: a batch needs at least one index")
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, found the shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be whole numbers, found {shorten(values)}")
    index = array.astype(np.int64, copy=False)
    low, high = int(index.min()), int(index.max())
    if low < -count or high >= count:
        index_in(name, low if low < -count else high, count, what)
    return np.where(index < 0, index + count, index) if low < 0 else index


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` where it is one of the strings `allowed`."""
    listed = ", ".join(repr(a) for a in allowed)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {listed}, found {shorten(value)}")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {listed}, found {value!r}")
    return value


def sequence(name: str, value: object, wanted: str) -> Sequence[Any]:
    """Return `value` where it is a sequence, of what `wanted` describes."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(
            f"{name} must be a sequence of {wanted}, found {shorten(value)} "
            f"({type(value).__name__})"
        )
    return value  # type: ignore[return-value]


def instance(name: str, value: Any, kind: type | tuple[type, ...], wanted: str) -> Any:
    """Return `value` where it is an instance of `kind`; `wanted` describes that kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {wanted}, found {shorten(value)} ({type(value).__name__})")
    return value

"""Checks shared by every public entry point, with messages that say how to go on.

Each check names the argument, the value found and what would be right. Wrong kinds of
object are `TypeError`, wrong values `ValueError`, indices outside a range `IndexError`.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray


def shorten(value: object, limit: int = 80) -> str:
    """Return ``repr(value)``, cut where an error message would drown in it."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Argument(str):
    """An argument as Python writes it, which knows its name and values.

    A message that is made of it can so be written in other terms: a command line has options.

    Attributes
    ----------
    name : str
        Such as "axes", or "overlaps[0]" for an entry.
    values : tuple
        That are given to it, or of which one is to be.
    """

    name: str
    values: tuple[object, ...]

    def __new__(cls, name: str, *values: object) -> Argument:
        written = super().__new__(
            cls, f"{name}={' or '.join(map(repr, values))}" if values else name
        )
        written.name, written.values = name, values
        return written


def argument(name: str, *values: object) -> Argument:
    """Return how the caller writes an argument, with a value or several to choose from.

    Examples
    --------
    >>> argument("axes", "ZYX", "TYX"), argument("overlaps[0]"), argument("resume", True)
    ("axes='ZYX' or 'TYX'", 'overlaps[0]', 'resume=True')
    """
    return Argument(name, *values)


class Message(str):
    """A text of pieces that keeps those that are arguments: what errors and warnings are made of.

    Attributes
    ----------
    pieces : tuple of str
        Those of messages among them are taken apart.

    Examples
    --------
    >>> error = ValueError(Message("it exists: ", argument("overwrite", True), " replaces it"))
    >>> str(error), error.args[0].pieces[1].name
    ('it exists: overwrite=True replaces it', 'overwrite')
    """

    pieces: tuple[str, ...]

    def __new__(cls, *pieces: str) -> Message:
        text = super().__new__(cls, "".join(pieces))
        text.pieces = tuple(
            part for piece in pieces for part in getattr(piece, "pieces", (piece,)) if part
        )
        return text

    @classmethod
    def joined(cls, separator: str, texts: Sequence[str]) -> Message:
        """Return texts with a separator between them."""
        return cls(
            *(piece for i, text in enumerate(texts) for piece in (separator * (i > 0), text))
        )


LARGEST = 2**62
"""Largest whole number taken anywhere; sums of a few stay within 64 bits."""


def whole_number(name: str, value: object, *, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as an int of at least `minimum` (and at most `maximum`)."""
    # always a limit: later arithmetic is in 64 bits
    largest = LARGEST if maximum is None else maximum
    if type(value) is int and minimum <= value <= largest:
        return value
    upto = f" and at most {largest}" if maximum is not None or _is_huge(value) else ""
    wanted = Message(
        argument(name),
        f" must be a whole number of at least {minimum}{upto}, found {shorten(value)}",
    )
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(wanted)
    if isinstance(value, (float, np.floating)):
        raise ValueError(wanted)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(wanted) from None
    if not minimum <= number <= largest:
        raise ValueError(wanted)
    return number


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and value > LARGEST


def whole_numbers(
    name: str,
    value: object,
    *,
    minimum: int,
    maximum: int | None = None,
    length: int | None = None,
) -> tuple[int, ...]:
    """Return `value` as a tuple of ints in `minimum` … `maximum`, `length` of them where given."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise TypeError(
            Message(
                argument(name),
                " must be a sequence of whole numbers, one per spatial axis, found "
                f"{shorten(value)}",
            )
        )
    numbers = tuple(
        whole_number(f"{name}[{i}]", item, minimum=minimum, maximum=maximum)
        for i, item in enumerate(value)
    )
    if length is not None and len(numbers) != length:
        raise ValueError(
            Message(
                argument(name),
                f" must have {length} entries, one per spatial axis, found {shorten(value)}",
            )
        )
    return numbers


def index_in(name: str, value: object, count: int, what: str) -> int:
    """Return `value` as an index in 0 … count − 1; negative values count from the end."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(Message(argument(name), f" must be a whole number, found {shorten(value)}"))
    try:
        index = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            Message(argument(name), f" must be a whole number, found {shorten(value)}")
        ) from None
    if not -count <= index < count:
        raise IndexError(
            Message(
                argument(name),
                f" is {index}, but there are {count} {what}: ",
                f"it must be in {-count} … {count - 1}" if count else "no index is valid",
            )
        )
    return index + count if index < 0 else index


def indices_in(name: str, values: object, count: int, what: str) -> NDArray[np.int64]:
    """Return `values` as a non-empty 1-D array of indices in 0 … count − 1."""
    if type(values) is np.ndarray and values.dtype == np.int64 and values.ndim == 1 and len(values):
        # what most batches are, in one pass: what is below 0 becomes huge
        found = values.view(np.uint64)
        if found.item(found.argmax()) < count:  # quicker than the largest itself
            return values
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(
            Message(argument(name), f" must be one-dimensional, found {shorten(values)}")
        ) from None
    if isinstance(values, (str, bytes)) or not hasattr(values, "__getitem__") or array.ndim == 0:
        raise TypeError(
            Message(
                argument(name), f" must be a sequence of whole numbers, found {shorten(values)}"
            )
        )
    if array.size == 0:
        raise ValueError(Message(argument(name), " is empty: a batch needs at least one index"))
    if array.ndim != 1:
        raise ValueError(
            Message(argument(name), f" must be one-dimensional, found the shape {array.shape}")
        )
    if array.dtype.kind not in "iu":
        # NumPy makes no integer array of ints beyond 64 bits
        for item in values if isinstance(values, Sequence) else ():
            if type(item) is int and not -count <= item < count:
                index_in(name, item, count, what)
        raise TypeError(
            Message(
                argument(name), f" must be a sequence of whole numbers, found {shorten(values)}"
            )
        )
    low, high = int(array.min()), int(array.max())
    if low < -count or high >= count:
        index_in(name, low if low < -count else high, count, what)
    index = array.astype(np.int64, copy=False)
    return np.where(index < 0, index + count, index) if low < 0 else index


def probability(name: str, value: object) -> float:
    """Return `value` where it is a number in [0, 1]."""
    # Python's own bool is a Real
    if not isinstance(value, (Real, np.bool_)):
        raise TypeError(
            Message(argument(name), f" must be a number in [0, 1], found {shorten(value)}")
        )
    if not 0 <= float(value) <= 1:
        raise ValueError(Message(argument(name), f" must be in [0, 1], found {shorten(value)}"))
    return float(value)


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` where it is one of the strings `allowed`."""
    if isinstance(value, str) and value in allowed:
        return value
    listed = ", ".join(repr(a) for a in allowed)
    kind = ValueError if isinstance(value, str) else TypeError
    raise kind(Message(argument(name), f" must be one of {listed}, found {shorten(value)}"))


def mapping(name: str, value: object, keys: Sequence[str] = ()) -> Mapping[Any, Any]:
    """Return `value` where it is a dict that has `keys`."""
    if not isinstance(value, Mapping):
        raise TypeError(Message(argument(name), f" must be a dict, found {shorten(value)}"))
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(
            Message(argument(name), f" lacks the keys {missing}, found {shorten(dict(value))}")
        )
    return value


def sequence(name: str, value: object, wanted: str) -> Sequence[Any]:
    """Return `value` where it is a sequence, of what `wanted` describes."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(
            Message(
                argument(name),
                f" must be a sequence of {wanted}, found {shorten(value)} ({type(value).__name__})",
            )
        )
    return value  # type: ignore[return-value]


def instance(name: str, value: Any, kind: type | tuple[type, ...], wanted: str) -> Any:
    """Return `value` where it is an instance of `kind`; `wanted` describes that kind."""
    if not isinstance(value, kind):
        raise TypeError(
            Message(
                argument(name),
                f" must be {wanted}, found {shorten(value)} ({type(value).__name__})",
            )
        )
    return value

"""Names of image files: their natural order, and which images of two sets belong together."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeAlias

from gpu_patch.checks import Message, argument
from gpu_patch.images.readers import SUFFIXES

Key: TypeAlias = tuple[tuple[str, ...], ...]
"""Parts of a path, each in letters and whole numbers."""

_LIST_THEM = 'Rename them, or give both as lists of paths, whose order is kept: ["noisy/b.tif", …]'
_QUOTE_THEM = (
    "Give folders or quoted patterns, whose files are put in natural order, or each file in the "
    "place of its partner"
)
_MOST_NAMED = 12
_MOST_ALONE = 4


class Origin(NamedTuple):
    """Where an image is from.

    Attributes
    ----------
    item : int
        Which of the files, folders, patterns and arrays that were given, counted from 0. Where
        one is several files, their order is that of their names; the caller chose all else.
    file : str
        The file; "" for an array.
    label : str
        What messages call the image; of a file with several it says which.
    """

    item: int
    file: str
    label: str


class ImageShapes(list[tuple[int, ...]]):
    """Shapes SC(Z)YX of image stacks, which tell where the images are from.

    So a strategy that is made of them knows its images by name.

    Attributes
    ----------
    origins : sequence of Origin
        One per shape.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], origins: Sequence[Origin]) -> None:
        super().__init__(shapes)
        self.origins = origins


def natural_order(paths: Sequence[Path]) -> list[Path]:
    """Return paths by name, with numbers in them as numbers.

    Examples
    --------
    >>> [path.name for path in natural_order([Path("t10.tif"), Path("t2.tif"), Path("a.tif")])]
    ['a.tif', 't2.tif', 't10.tif']
    """
    return sorted(paths, key=lambda path: ([_sortable(part) for part in path.parts], str(path)))


def _sortable(name: str) -> list[tuple[int, int, str]]:
    """Return signs, numbers and letters in that order; of two numbers the longer is larger."""
    return [
        (1, len(number := letter.lstrip("0")), number)
        if letter[0] in "0123456789"
        else (2 if letter.isalnum() else 0, 0, letter)
        for letter in re.findall("[0-9]+|[^0-9]", unicodedata.normalize("NFC", name))
    ]


def check_pairs(
    names: tuple[str, str],
    first: Sequence[Origin],
    second: Sequence[Origin],
    *,
    lists_are_ordered: bool = True,
) -> None:
    """Raise where the images of two sets are not the pairs that their names say.

    Names agree where they are equal, with numbers compared as numbers; or else where they are
    once what all names of a set begin and end with is dropped. Folders count as far as they
    differ within a set, endings of image files never.

    What was given one by one keeps its order: item is paired with item. Where an item is several
    files on both sides, they must agree by name. Where it is on one side alone, names that have a
    partner on the other side must stand where it stands; where none has, order is all there is.

    Parameters
    ----------
    names : tuple of str
        The arguments, for messages.
    first, second : sequence of Origin
        Of each image.
    lists_are_ordered : bool, default True
        Whether one by one means an order of the caller's. False where a shell may have sorted.

    Raises
    ------
    ValueError
        With the names of both sides.
    """
    items, others = _items(first), _items(second)
    pairs = []
    if lists_are_ordered and len(items) == len(others):
        pairs = [(a, b) for a, b in zip(items, others, strict=True) if len(a) + len(b) > 2]
    elif not lists_are_ordered or _is_sorted(first) or _is_sorted(second):
        pairs = [(list(first), list(second))]
    for a, b in pairs:
        if not _agree(a, b):
            way_out = _LIST_THEM if lists_are_ordered else _QUOTE_THEM
            raise ValueError(Message(_message(names, a, b), f". {way_out}"))


def describe(origins: Sequence[Origin]) -> str:
    """Return how many images there are, and their names."""
    shown = [f"'{origin.label}'" for origin in origins[:_MOST_NAMED]]
    more = len(origins) - len(shown)
    return f"{len(origins)}: " + ", ".join(shown) + f" and {more} more" * (more > 0)


def _items(origins: Sequence[Origin]) -> list[list[Origin]]:
    return [list(group) for _, group in groupby(origins, key=lambda origin: origin.item)]


def _is_sorted(origins: Sequence[Origin]) -> bool:
    """Tell whether images have an order that the caller did not choose."""
    return any(len({origin.file for origin in item}) > 1 for item in _items(origins))


def _agree(first: Sequence[Origin], second: Sequence[Origin]) -> bool:
    by_name = [_is_sorted(side) for side in (first, second)]
    if not all(by_name):
        if len(first) != len(second):
            return not any(by_name)  # whose number is looked at with their shapes
        if not all(origin.file for origin in (*first, *second)):
            return True  # arrays have no names
        return _may_stand([o.label for o in first], [o.label for o in second])
    files, others = (
        [list(group) for _, group in groupby(side, key=lambda o: o.file)]
        for side in (first, second)
    )
    if list(map(len, files)) != list(map(len, others)):
        return False
    if not _same([group[0].file for group in files], [group[0].file for group in others]):
        return False
    # scenes of one file are compared in the order in which the file lists them
    return all(
        _may_stand([o.label for o in a], [o.label for o in b])
        for a, b in zip(files, others, strict=True)
        if len(a) > 1
    )


def _same(first: Sequence[str], second: Sequence[str]) -> bool:
    """Tell whether names agree, one by one."""
    a, b = _compared(first, second)
    # where numbers make two names of a folder equal (t1 and t01), the spelling must agree too
    return a == b and (len(set(a)) == len(a) or _spelled(first) == _spelled(second))


def _spelled(names: Sequence[str]) -> list[str]:
    return [_stem(Path(name).name) for name in names]


def _may_stand(first: Sequence[str], second: Sequence[str]) -> bool:
    """Tell whether names agree one by one, or have nothing to do with each other."""
    a, b = _compared(first, second)
    return a == b or not set(a) & set(b)


def _compared(first: Sequence[str], second: Sequence[str]) -> tuple[list[Key], list[Key]]:
    """Return what is compared of names: all of them where any are equal, else what differs."""
    a, b = _keys(first), _keys(second)
    return (a, b) if set(a) & set(b) else (_differing(a), _differing(b))


def _keys(names: Sequence[str]) -> list[Key]:
    """Return the parts of paths below the folder that they share, without endings of images."""
    parts = [Path(os.path.abspath(name)).parts for name in names]
    shared = _n_shared([path[:-1] for path in parts])
    return [
        tuple(map(_letters, (*path[shared:-1], _stem(path[-1] if path else "")))) for path in parts
    ]


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    known = f"{dot}{suffix.lower()}" in SUFFIXES
    return stem.removesuffix(".ome") if known and stem else name


def _letters(name: str) -> tuple[str, ...]:
    """Split a name into its letters and whole numbers; what follows a decimal point stays."""
    return tuple(
        decimals or letter.lstrip("0") or letter[-1]
        for decimals, letter in re.findall(
            r"((?<=[0-9]\.)[0-9]+)|([0-9]+|[^0-9])", unicodedata.normalize("NFC", name)
        )
    )


def _differing(keys: Sequence[Key]) -> list[Key]:
    """Return keys without what all of them begin and end with, part by part."""
    if len({len(key) for key in keys}) > 1:  # folders of several depths
        keys = [(tuple(letter for part in key for letter in (*part, "/"))[:-1],) for key in keys]
    columns = [_trimmed(column) for column in zip(*keys, strict=True)]
    kept = [column for column in columns if any(column)]
    return list(zip(*kept, strict=True)) if kept else [()] * len(keys)


def _trimmed(names: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    start = _n_shared(names)
    rests = [name[start:] for name in names]
    end = _n_shared([rest[::-1] for rest in rests])
    return [rest[: len(rest) - end] for rest in rests]


def _n_shared(names: Sequence[tuple[str, ...]]) -> int:
    """Return how many entries all of them begin with."""
    low, high = min(names), max(names)
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))


def _message(names: tuple[str, str], first: Sequence[Origin], second: Sequence[Origin]) -> str:
    a, b = _compared(*([o.file or o.label for o in side] for side in (first, second)))
    alone = [
        Message(f"'{origin.label}' of ", argument(name))
        for name, side, keys, others in ((names[0], first, a, b), (names[1], second, b, a))
        for origin, key in zip(side, keys, strict=True)
        if key not in others
    ]
    hidden = len(alone) - _MOST_ALONE
    what = "the same names in another order"
    if alone:
        listed = Message.joined(", ", alone[:_MOST_ALONE])
        what = Message("no partner for ", listed, f" and {hidden} more" * (hidden > 0))
    elif len(first) != len(second):
        what = f"{len(first)} and {len(second)} images"
    sides = [
        Message(argument(name), f" has {describe(side)}")
        for name, side in zip(names, (first, second), strict=True)
    ]
    return Message(
        argument(names[0]),
        " and ",
        argument(names[1]),
        " are paired by the names of their files, found ",
        what,
        ". ",
        Message.joined("; ", sides),
    )

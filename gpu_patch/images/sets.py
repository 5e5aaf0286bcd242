"""Leaving out files that are named twice, or that another file of the same set stands for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_patch.images.readers import COMPANION, members

_MOST_NAMES = 5


def distinct(
    sources: Sequence[Any],
    named: Sequence[bool],
    *,
    one_by_one: bool = False,
    allow_outside: bool = False,
) -> list[int]:
    """Return which of the sources of images to open, so that each image is opened once.

    A file that patterns and folders find again is passed over, and so are the other files of a set
    whose first is there. What the user names twice, and arrays, are kept.

    Parameters
    ----------
    sources : sequence of Path or array
        As in `open_images`.
    named : sequence of bool
        Whether the user named each of them, rather than a pattern or folder.
    one_by_one : bool, default False
        Whether files of a set are images of their own.
    allow_outside : bool, default False
        As in `open_images`.

    Returns
    -------
    list of int
        Their numbers, in order.

    Raises
    ------
    ValueError
        Two sets share some files, and each has others too.
    """
    files = {i: _place(path) for i, path in enumerate(sources) if isinstance(path, Path)}
    found = {path for i, path in files.items() if not named[i]}
    seen: set[Path] = set()
    kept = []
    for i in range(len(sources)):
        path = files.get(i)
        if path is None or path not in seen or path not in found:
            kept.append(i)
        if path is not None:
            seen.add(path)
    if one_by_one:
        return kept
    first = _first_of_sets(list(dict.fromkeys(files.values())), allow_outside=allow_outside)
    return [i for i in kept if i not in files or first.get(files[i], files[i]) == files[i]]


def _first_of_sets(files: Sequence[Path], *, allow_outside: bool) -> dict[Path, Path]:
    """Return, for each file of a set, the file that the set is opened with."""
    first: dict[Path, Path] = {}
    if len(files) < 2:
        return first
    sets: dict[Path, set[Path]] = {}
    for path in files:
        if path in first:
            continue
        whole = {path, *map(_place, members(path, allow_outside=allow_outside))}
        for other in {first[member] for member in whole if member in first}:
            if not sets.pop(other) <= whole:
                raise ValueError(
                    f"{path} and {other} name some files in common as those of their set, and "
                    "each of them others too: open them one by one, with read_func"
                )
        if len(whole) > 1:
            sets[path] = whole
            first |= dict.fromkeys(whole, path)
    given = set(files)
    for path, members_of_it in sets.items():
        whole = {other for other in members_of_it if other.suffix.lower() != COMPANION}
        absent = sorted(other.name for other in whole - given if other.exists())
        if absent and len(whole & given) > 1:
            more = ", …" if len(absent) > _MOST_NAMES else ""
            warnings.warn(
                f"{path} is one image of {len(whole)} files, and all of it is opened, "
                f"{', '.join(absent[:_MOST_NAMES])}{more} too, which images does not name: "
                "read_func=functools.partial(tifffile.imread, is_ome=False) takes files one by one",
                stacklevel=5,
            )
    return first


def _place(path: Path) -> Path:
    """Return a path that is the same however it is written; links stay files of their own."""
    absolute = Path(os.path.abspath(path))
    return Path(os.path.realpath(absolute.parent)) / absolute.name

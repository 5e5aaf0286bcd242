"""Leaving out files that are named twice, or that another file of the same set stands for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from gpu_patch.images.readers import COMPANION

_MOST_NAMES = 5


def distinct(
    sources: Sequence[Any],
    named: Sequence[bool],
    members: Callable[[Path], Iterable[Path]] | None,
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
    members : callable or None
        Returns all files of the set that a file belongs to, where there are others; asked of no
        file that is in a set already. None where files of a set are images of their own.

    Returns
    -------
    list of int
        Their numbers, in order.

    Raises
    ------
    ValueError
        Two sets share some files, and each has others too.
    """
    place = partial(_place, lru_cache(maxsize=None)(os.path.realpath))
    files = {i: place(path) for i, path in enumerate(sources) if isinstance(path, Path)}
    found = {path for i, path in files.items() if not named[i]}
    seen: set[Path] = set()
    kept = []
    for i in range(len(sources)):
        path = files.get(i)
        if path is None or path not in seen or path not in found:
            kept.append(i)
        if path is not None:
            seen.add(path)
    if members is None:
        return kept
    as_given: dict[Path, Path] = {}
    for i, path in files.items():
        as_given.setdefault(path, sources[i])
    first = _first_of_sets(as_given, members, place)
    return [i for i in kept if i not in files or first.get(files[i], files[i]) == files[i]]


def _first_of_sets(
    as_given: Mapping[Path, Path],
    members: Callable[[Path], Iterable[Path]],
    place: Callable[[Path], Path],
) -> dict[Path, Path]:
    """Return, for each file of a set, the file that the set is opened with; all by their places."""
    first: dict[Path, Path] = {}
    if len(as_given) < 2:
        return first
    sets: dict[Path, set[Path]] = {}
    for path, name in as_given.items():
        if path in first:
            continue
        whole = {path, *map(place, members(name))}
        for other in {first[member] for member in whole if member in first}:
            if not sets.pop(other) <= whole:
                raise ValueError(
                    f"{path} and {other} name some files in common as those of their set, and "
                    "each of them others too: open them one by one, with read_func"
                )
        if len(whole) > 1:
            sets[path] = whole
            first |= dict.fromkeys(whole, path)
    given = set(as_given)
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


def _place(realpath: Callable[[str], str], path: Path) -> Path:
    """Return a path that is the same however it is written; links stay files of their own."""
    folder, name = os.path.split(os.path.abspath(path))
    return Path(realpath(folder), name)

"""From what users give as images (files, patterns, folders, arrays) to paths, each once."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from gpu_patch.checks import shorten
from gpu_patch.images.names import natural_order
from gpu_patch.images.readers import METADATA, SUFFIXES, Url, is_image, is_sequence, members
from gpu_patch.images.sets import distinct

Name = TypeVar("Name", bound="str | Path")
Members: TypeAlias = Callable[[Path], Iterable[Path]]

_MOST_LOOKED_AT = 10_000


class Found(NamedTuple):
    """A path or an array.

    Attributes
    ----------
    source : Path, Url or array
        What to open.
    item : int
        Which of the images that were given it is of.
    is_named : bool
        Whether it was given itself, rather than found by a pattern or in a folder.
    """

    source: Any
    item: int
    is_named: bool


def sources(images: Any, *, any_file: bool = False, allow_outside: bool = False) -> list[Any]:
    """Return what `open_images` was given as paths, addresses and arrays, one by one.

    Parameters
    ----------
    images : path, array, or sequence of them
        As in `open_images`.
    any_file : bool, default False
        Whether every file in a folder counts, and not only those with the ending of an image; and
        each for itself.
    allow_outside : bool, default False
        As in `open_images`.

    Returns
    -------
    list of Path, Url or array
        The files of folders and patterns in natural order; of those that belong together, one.

    Raises
    ------
    TypeError, ValueError
        `images` is nothing that can be opened, or empty.
    FileNotFoundError
        No file matches a pattern, or a folder has no image in it.
    """
    known = None if any_file else partial(members, allow_outside=allow_outside)
    return [each.source for each in found_once(images, known, any_file=any_file)]


def named_once(names: Sequence[Name], *, allow_outside: bool = False) -> list[Name]:
    """Return the files, patterns and folders without those that are all in the ones before.

    A shell makes of ``*.tif`` the names of all files of a set, which are one image.

    Parameters
    ----------
    names : sequence of str or Path
        As in `open_images`.
    allow_outside : bool, default False
        As in `open_images`.

    Returns
    -------
    list of str or Path
        In their order.
    """
    found: list[Found] = []
    for i, name in enumerate(names):
        try:
            some = _within(name, any_file=False)
        except (OSError, ValueError):  # who opens it says so
            some = [(name, True)]
        found += [Found(source, i, is_named) for source, is_named in some]
    kept = _once(found, partial(members, allow_outside=allow_outside))
    return [names[i] for i in sorted({each.item for each in kept})]


def found_once(images: Any, members: Members | None, *, any_file: bool = False) -> list[Found]:
    """Return what to open; see `sources`, and for `members` `gpu_patch.images.sets.distinct`."""
    items = list(_flat(images))
    found = [
        Found(source, i, is_named)
        for i, item in enumerate(items)
        for source, is_named in _within(item, any_file=any_file)
    ]
    if not found:
        raise ValueError("images is empty: at least one file or array is needed")
    return _once(found, members)


def _once(found: Sequence[Found], members: Members | None) -> list[Found]:
    kept = distinct([each.source for each in found], [each.is_named for each in found], members)
    return [found[i] for i in kept]


def _flat(images: Any) -> Iterator[Any]:
    if not isinstance(images, (list, tuple)):
        yield images
        return
    for item in images:
        yield from _flat(item)


def _within(images: Any, *, any_file: bool) -> list[tuple[Any, bool]]:
    """Return the paths of a file, folder or pattern, or an array; each with whether it is named."""
    if isinstance(images, Url):
        return [(images, True)]
    if not isinstance(images, (str, os.PathLike)):
        if images is None or isinstance(images, (bool, int, float, bytes, dict, set)):
            raise TypeError(
                f"images must be a path, an array or a sequence of them, found {shorten(images)}"
            )
        return [(images, True)]
    if "://" in str(images):
        return [(Url.parsed(str(images)), True)]
    path = Path(images)
    if is_sequence(path):
        return [(path, True)]
    if not path.exists() and glob.has_magic(str(path)):
        pattern = _with_literal_folders(path)
        matching = natural_order([Path(name) for name in glob.glob(pattern, recursive=True)])
        # patterns match the metadata files of Zarr groups too, which are no images
        matching = [each for each in matching if each.name not in METADATA]
        if not matching:
            raise FileNotFoundError(f"no file matches {str(path)!r}")
        return [(path, False) for path in matching]
    if not path.is_dir() or path.suffix.lower() == ".zarr" or is_image(path):
        return [(path, True)]
    inside = natural_order([each for each in path.iterdir() if not each.name.startswith(".")])
    kept = [entry for entry in inside if is_image(entry) or (any_file and entry.is_file())]
    if not kept:
        raise FileNotFoundError(
            f"the folder '{path}' has no image in it ({', '.join(SUFFIXES)}): {_instead(path)}"
        )
    return [(entry, False) for entry in kept]


def _with_literal_folders(path: Path) -> str:
    """Return a pattern in which the folders that are there are named as they are, [ and ] too."""
    there = next((folder for folder in path.parents if folder.exists()), Path())
    return str(Path(glob.escape(str(there))) / path.relative_to(there))


def _instead(folder: Path) -> str:
    """Say what to give instead of a folder without images."""
    inside = list(islice(folder.rglob("*"), _MOST_LOOKED_AT))
    deeper = next(filter(is_image, natural_order(inside)), None)
    if deeper is not None:
        name = deeper.name
        length = max((len(s) for s in SUFFIXES if name.lower().endswith(s)), default=0)
        at = folder / "**" / f"*{name[-length:]}" if length else deeper
        return f"name what is deeper, such as '{at}'"
    if any(path.is_file() for path in inside):
        return (
            "convert what is in it, or, in Python, give open_images a read_func, which takes a "
            "path and returns an array"
        )
    return "it is empty"

"""A check: no result replaces an image that is read, or lies inside of one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from gpu_patch.checks import Message, argument


def files_of(source: str | Path) -> tuple[Path, ...]:
    """Return the file that a source is about, where there is one.

    Parameters
    ----------
    source : str or Path
        Where an image comes from; what follows a comma may say which image of the file it is.
    """
    name = str(source)
    for file in (name, name.rpartition(", ")[0]):
        if file and file != "array" and _mark(file) is not None:
            return (Path(os.path.realpath(file)),)
    return ()


def check_apart(results: Iterable[Path], images: Iterable[tuple[str, Sequence[Path]]]) -> None:
    """Raise where a result would replace an image that is read, or write into its folder.

    Files and folders are compared, not names: links to them, hard ones too, are the same.

    Parameters
    ----------
    results : iterable of Path
        Where results will be.
    images : iterable of (str, sequence of Path)
        Source of each image, and its files and folders.

    Raises
    ------
    ValueError
        A result is an image, is around one or inside one.
    """
    mark = lru_cache(maxsize=None)(_mark)
    own: dict[tuple[int, int], str] = {}
    around: dict[tuple[int, int], str] = {}
    for source, files in images:
        for file in files:
            real = Path(os.path.realpath(file))
            if (found := mark(real)) is not None:
                own[found] = source
                around |= {m: source for p in real.parents if (m := mark(p)) is not None}
    for result in results:
        found = mark(result)
        if found in own or found in around:
            raise ValueError(
                Message(
                    argument("out"),
                    f" would replace the image {own.get(found) or around[found]} by its "
                    f"prediction, at {result}",
                )
            )
        # the folder of the name, and what it leads to where it is a link
        for place in (os.path.realpath(result.parent), os.path.realpath(result)):
            for folder in (Path(place), *Path(place).parents):
                found = mark(folder)
                if found in own:
                    raise ValueError(
                        Message(
                            argument("out"),
                            f" would put the prediction {result} inside of the image {own[found]}",
                        )
                    )


def _mark(path: str | Path) -> tuple[int, int] | None:
    """Return device and inode of a file or folder, None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a source need not be a path
        return None
    return found.st_dev, found.st_ino

"""Names, sizes and dates of files, by which a later run knows whether they have changed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

_DESCRIPTIONS = ("zarr.json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")
"""Files that a Zarr is written with: its folder keeps its date when pixels change."""


def version(source: str | Path, files: Sequence[Path] = ()) -> str:
    """Return folder, name, size and date of the file of an image; its source where there is none.

    Parameters
    ----------
    source : str or Path
        Where an image comes from; what follows a comma may say which image of the file it is.
    files : sequence of Path, default ()
        Every file or folder that it is in, where known.
    """
    of_set = _version_of_set(files)
    return f"{_version_of_one(source, files)} {of_set}".rstrip()


def _version_of_one(source: str | Path, files: Sequence[Path]) -> str:
    if str(source) == "array" and len(files) == 1:  # mapped into memory, or of another package
        return _version_of_one(files[0], ())
    name = str(source)
    if name in ("array", ""):
        return name
    file, _, inside = name.rpartition(", ")
    try:
        found = Path(name) if not file or os.path.exists(name) else Path(file)
        known = found.stat()
        # not the whole path: images may be moved together with their folder
        is_real = len(files) == 1 and files[0].name == found.name
        real = files[0] if is_real else found.resolve()
        parts = ["/".join(real.parts[-2:])] + [inside] * (found != Path(name))
        dates = [known.st_mtime]
        if stat.S_ISDIR(known.st_mode):  # its arrays are written one by one
            described = [found.glob(way + name) for way in ("", "*/") for name in _DESCRIPTIONS]
            dates = [path.stat().st_mtime for paths in described for path in paths]
        else:
            parts.append(f"{known.st_size:,} bytes")
        if dates:
            # whole seconds: copies to other file systems round them
            date = datetime.fromtimestamp(int(max(dates)), UTC)
            parts.append(f"modified {date:%Y-%m-%d %H:%M:%S} UTC")
    except (OSError, ValueError):  # a source may be any text
        return name
    return ", ".join(parts)


def _version_of_set(files: Sequence[Path]) -> str:
    """Return what changes with name, size or date of any of the files of an image; "" for one."""
    if len(files) < 2 or any(path.is_dir() for path in files):
        return ""
    digest = hashlib.sha256()
    for path in sorted(files):
        found = path.stat() if path.exists() else None
        dated = None if found is None else (found.st_size, int(found.st_mtime))
        digest.update(repr((path.name, dated)).encode())
    return f"{len(files)} files {digest.hexdigest()[:16]}"

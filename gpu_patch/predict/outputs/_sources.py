"""What tells whether a file is still the one that an earlier run has predicted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

_DESCRIPTIONS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
"""Files that a Zarr is written with: its folder keeps its date when pixels change."""


def version(source: str | Path) -> str:
    """Return size and date of the file of an image, "" where there is none.

    Parameters
    ----------
    source : str or Path
        Where an image comes from; what follows a comma may say which image of the file it is.
    """
    name = str(source)
    candidates = [Path(name), Path(name.rpartition(", ")[0])]
    path = next((path for path in candidates if path.name and path.exists()), None)
    if path is None:
        return ""
    if path.is_dir():
        files = [path / name for name in _DESCRIPTIONS if (path / name).exists()]
        size = ""
    else:
        files, size = [path], f"{path.stat().st_size:,} bytes, "
    if not files:
        return ""
    # whole seconds: copies to other file systems round them
    modified = datetime.fromtimestamp(int(max(file.stat().st_mtime for file in files)), UTC)
    return f"{size}modified {modified:%Y-%m-%d %H:%M:%S} UTC"

"""Removing files and folders: a folder is renamed first, so that none is left half removed."""

from __future__ import annotations

import glob
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path


def discard(path: Path) -> None:
    """Remove a file, a link (not what it leads to) or a folder, where there is one.

    A folder is renamed first: whoever is killed while it is removed leaves nothing at its name.
    What cannot be removed is left to `sweep`.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    gone = path.with_name(f"{path.name}.removed-{uuid.uuid4().hex[:8]}")
    with suppress(FileNotFoundError):
        os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(path: Path) -> None:
    """Remove what is named after `path` with a further ending: what was half made or removed."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)

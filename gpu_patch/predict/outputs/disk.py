"""Files and folders that reach the disk before they count as written, where that is asked for."""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """Flushes files and folders to the disk, or leaves it to the operating system when it does so.

    What is flushed survives that the machine stops. Without that, what is written survives the end
    of its process alone, however that ends.

    Parameters
    ----------
    durable : bool
        Whether to flush.
    """

    def __init__(self, *, durable: bool) -> None:
        self.durable = durable

    def flush_file(self, path: Path) -> None:
        """Flush what is in a file; not its name, which is its folder's."""
        if self.durable:
            self._flush(path, os.O_RDWR)

    def flush_folder(self, path: Path) -> None:
        """Flush which names a folder has: of files made, renamed or removed in it."""
        if self.durable and os.name == "posix":  # Windows opens no folders
            self._flush(path, os.O_RDONLY)

    def flush_tree(self, path: Path) -> None:
        """Flush a folder and all that is in it; not its own name."""
        if self.durable:
            for folder, _, files in os.walk(path):
                for name in files:
                    self.flush_file(Path(folder, name))
                self.flush_folder(Path(folder))

    def _flush(self, path: Path, flags: int) -> None:
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""A folder for zarr-python that can be closed, so that no chunk is written to it later."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from gpu_patch.predict.outputs.disk import Disk

_PAUSE = 0.001


class Writes:
    """Counts the chunks that are being written to the stores of an image.

    When one chunk of several cannot be written, zarr-python raises at once, while others are on
    their way: they must not come when the folder has been removed, or is another run's.

    Parameters
    ----------
    disk : Disk
        Flushes chunks.
    """

    def __init__(self, disk: Disk) -> None:
        self.n_begun = 0
        self.ended = False
        self.disk = disk
        self._folders: set[Path] = set()

    def end(self) -> None:
        """Let no chunk begin any more, and wait for those that have."""
        self.ended = True
        while self.n_begun:
            time.sleep(_PAUSE)

    async def flush(self, root: Path, key: str) -> None:
        """Flush a chunk, and note the folders that it is in."""
        if self.disk.durable:
            path = root / key
            await asyncio.to_thread(self.disk.flush_file, path)
            self._folders.update(path.parents[: len(Path(key).parts)])

    def flush_folders(self) -> None:
        """Flush the folders of all chunks that were written since the last time."""
        while self._folders:
            self.disk.flush_folder(self._folders.pop())


class EndingStore(LocalStore):  # type: ignore[misc, unused-ignore]  # Any without zarr
    """A folder of chunks.

    Parameters
    ----------
    root : Path
        The folder.
    writes : Writes
        Ends this one too.
    """

    def __init__(self, root: Path, writes: Writes) -> None:
        super().__init__(root)
        self._writes = writes

    async def set(self, key: str, value: Any, *arguments: Any, **options: Any) -> None:
        """Write a chunk, unless writing has ended."""
        # counted before it looks: `end` sets `ended` before it looks at the count
        self._writes.n_begun += 1
        try:
            if self._writes.ended:
                raise RuntimeError(f"{key} comes too late: the image has been closed")
            await super().set(key, value, *arguments, **options)
            await self._writes.flush(self.root, key)
        finally:
            self._writes.n_begun -= 1

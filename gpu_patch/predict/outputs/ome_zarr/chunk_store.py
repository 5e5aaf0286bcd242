"""A folder for zarr-python that can be closed, so that no chunk is written to it later."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

_PAUSE = 0.001


class Writes:
    """Counts the chunks that are being written to the stores of an image.

    When one chunk of several cannot be written, zarr-python raises at once, while others are on
    their way: they must not come when the folder has been removed, or is another run's.
    """

    def __init__(self) -> None:
        self.n_begun = 0
        self.ended = False

    def end(self) -> None:
        """Let no chunk begin any more, and wait for those that have."""
        self.ended = True
        while self.n_begun:
            time.sleep(_PAUSE)


class EndingStore(LocalStore):
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
        finally:
            self._writes.n_begun -= 1

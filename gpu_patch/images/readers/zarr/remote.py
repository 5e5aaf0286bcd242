"""A Zarr on a server: what a part of an image needs is fetched at once, then zarr decodes it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, cast

from numpy.typing import NDArray

from gpu_patch.images.readers.paths import DeniedError, NothingThereError
from gpu_patch.images.readers.zarr.fetched import Fetched
from gpu_patch.images.readers.zarr.place import METADATA, Folder, Part
from gpu_patch.images.readers.zarr.store import make_store
from gpu_patch.optional import imported

_REGIONS = 24
"""Regions that are read at a time: most are of one chunk, and wait for the server."""


class Remote(Folder):
    """A folder of a Zarr below an address.

    Parameters
    ----------
    fetched : Fetched
        The files below the address.
    inside : str, default ""
        The folder.
    above : Remote or None, default None
        The folder that it is in.
    """

    is_far = True

    def __init__(self, fetched: Fetched, inside: str = "", above: Remote | None = None) -> None:
        self._fetched, self._inside, self._above = fetched, inside, above
        url = fetched.server.url
        self.path: Any = f"{url}/{inside}" if inside else str(url)
        self.file = Path()
        self._node: Any = None
        self._cached_as: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Nothing: it is in no file of this machine."""
        return ()

    def at(self, name: str) -> Remote:
        """Return the folder of a name in it."""
        return Remote(self._fetched, self._key(name), self)

    def names(self) -> list[str]:
        """Return what is in it: all that a server lists, else folders of numbers from 0 on."""
        sizes = self._fetched.server.sizes(self._inside)
        if sizes is not None:
            return list(dict.fromkeys(name.split("/")[0] for name in sizes))
        found: list[str] = []
        while any(self.at(str(len(found))).has(name) for name in METADATA):
            found.append(str(len(found)))
        return found

    def has(self, name: str) -> bool:
        """Tell whether there is a file of a name in it."""
        try:
            return self._fetched.size(self._key(name), self._cached_as) is not None
        except DeniedError:
            if name in METADATA:  # servers that list nothing answer so for what is not there
                return False
            raise

    def size(self, name: str) -> int:
        """Return the bytes of a file in it, 0 where there is none."""
        return self._fetched.size(self._key(name), self._cached_as) or 0

    def open(self, name: str) -> BinaryIO:
        """Return the content of a file in it, which is fetched as it is read."""
        key = self._key(name)
        content = _Content(self._fetched, key, self.size(name), self._cached_as)
        return cast("BinaryIO", content)

    def node(self) -> Any:
        """Return zarr's array or group; of what is in a group with all metadata, without asking."""
        if self._node is None:
            self._node = self._from_above() or self._opened()
        if hasattr(self._node, "shape"):
            described = json.dumps(self._node.metadata.to_dict(), sort_keys=True, default=str)
            name = hashlib.sha256(f"{self.path}\n{described}".encode()).hexdigest()
            self._cached_as = name[:24]
        return self._node

    def _from_above(self) -> Any | None:
        above = self._above
        metadata = getattr(getattr(above, "_node", None), "metadata", None)
        if above is None or getattr(metadata, "consolidated_metadata", None) is None:
            return None
        name = self._inside[len(above._key("")) :]
        return above._node.get(name)

    def _opened(self) -> Any:
        store = make_store(self._fetched)
        try:
            return imported("zarr", "reading Zarr").open(store, path=self._inside, mode="r")
        except FileNotFoundError:
            if store.denied is not None:
                raise store.denied from None
            raise NothingThereError(
                f"{self.path}: there is no Zarr, none of the files {', '.join(METADATA)}"
            ) from None

    def watched(self, name: str) -> None:
        """Return nothing: servers are not asked again."""

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return which files are not there, as far as the server lists them."""
        sizes = self._fetched.server.sizes(self._inside)
        return [] if sizes is None else [name for name in names if not sizes.get(name)]

    def at_hand(
        self, parts: Sequence[Part], kept: Sequence[Part] = ()
    ) -> AbstractContextManager[None]:
        """Fetch parts of files, all at a time, and have them until the ``with`` block ends."""
        inside, staying = (
            [part._replace(name=self._key(part.name)) for part in some] for some in (parts, kept)
        )
        return self._fetched.at_hand(inside, self._cached_as, kept=staying)

    def close(self) -> None:
        """Let go of nothing: connections are shared."""

    def _key(self, name: str) -> str:
        return f"{self._inside}/{name}" if self._inside else name


class FarRegions:
    """Regions of an image on a server, several at a time.

    Parameters
    ----------
    read : callable
        `ImageReader.read`, which threads may call at once.
    """

    def __init__(self, read: Callable[[Sequence[slice], NDArray[Any]], None]) -> None:
        self._read = read
        self._threads = ThreadPoolExecutor(_REGIONS, "gpu_patch_regions")

    def begin(self, region: Sequence[slice], out: NDArray[Any]) -> Future[None]:
        """Begin to fill `out` with a region; see `FastReader`."""
        return self._threads.submit(self._read, region, out)


class _Content(io.RawIOBase):
    """A file of a server, read in parts."""

    def __init__(self, fetched: Fetched, name: str, size: int, cached_as: str | None) -> None:
        super().__init__()
        self._fetched, self._name, self._size, self._cached_as = fetched, name, size, cached_as
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._size, self._at + size)
        if stop <= self._at:
            return b""
        found = self._fetched.get(Part(self._name, self._at, stop), self._cached_as)
        content = b"" if found is None else bytes(found.content)
        self._at += len(content)
        return content

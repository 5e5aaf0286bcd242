"""Where a Zarr lies: a folder, or a zip archive."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from gpu_patch.images.readers.paths import checked_file
from gpu_patch.optional import imported

METADATA = ("zarr.json", ".zarray", ".zgroup")
"""A folder with one of these is an array or a group."""


class Part(NamedTuple):
    """A file, or bytes of it.

    Attributes
    ----------
    name : str
        From a folder on.
    start, stop : int or None
        Bytes; both None for all of it, `start` None for the last `stop`, `stop` None for the rest.
    most : int or None
        Bytes that the whole file may have.
    """

    name: str
    start: int | None = None
    stop: int | None = None
    most: int | None = None


class Folder:
    """A folder of a Zarr.

    Parameters
    ----------
    path : Path
        The folder.

    Attributes
    ----------
    path : Path
        What messages call it.
    file : Path
        What it is in on this machine.
    """

    is_far = False
    """Whether asking for a file takes long."""

    def __init__(self, path: Path) -> None:
        self.path = self.file = path

    def at(self, name: str) -> Folder:
        """Return the folder of a name in it."""
        return Folder(self.path / name)

    def names(self) -> list[str]:
        """Return what is in it."""
        return [entry.name for entry in self.path.iterdir()]

    def has(self, name: str) -> bool:
        """Tell whether there is a file of a name in it."""
        return (self.path / name).exists()

    def size(self, name: str) -> int:
        """Return the bytes of a file in it, 0 where there is none."""
        path = self.path / name
        return path.stat().st_size if path.exists() else 0

    def open(self, name: str) -> BinaryIO:
        """Return the content of a file in it."""
        return checked_file(self.path / name).open("rb")

    def node(self) -> Any:
        """Return zarr's array or group."""
        self._check_metadata()
        for name in (*METADATA, ".zattrs", ".zmetadata"):
            if (self.path / name).exists():
                checked_file(self.path / name)
        return imported("zarr", "reading Zarr").open(self.path, mode="r")

    def _check_metadata(self) -> None:
        imported("zarr", "reading Zarr")
        if not any(self.has(name) for name in METADATA):
            raise ValueError(f"'{self.path.name}' has none of the files {', '.join(METADATA)}")

    @property
    def files(self) -> tuple[Path, ...]:
        """The file or folder of this machine that it is in."""
        return (self.file,)

    def watched(self, name: str) -> Path | None:
        """Return the file whose change is one of the file of a name in it."""
        return self.path / name

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return which files are not there."""
        # a file of 0 bytes counts as never written: zarr reads an empty shard as fill values
        return [name for name in names if not self.size(name)]

    def at_hand(
        self, parts: Sequence[Part], kept: Sequence[Part] = ()
    ) -> AbstractContextManager[None]:
        """Have parts of files at hand in a ``with`` block, which those of this machine are."""
        return nullcontext()

    def close(self) -> None:
        """Let go of the file."""


class Zipped(Folder):
    """A folder of a Zarr in a zip archive, which is opened when it is read.

    Parameters
    ----------
    file : Path
        The archive.
    inside : str, default ""
        The folder in it.
    sizes : dict of str to int or None, default None
        Bytes of each file in the archive, where known.
    """

    def __init__(
        self, file: Path, inside: str = "", sizes: Mapping[str, int] | None = None
    ) -> None:
        self.file, self._inside = file, inside
        self.path = Path(f"{file}, {inside}") if inside else file
        self._store: Any = None
        self._archive: zipfile.ZipFile | None = None
        if sizes is None:
            with zipfile.ZipFile(file) as archive:
                sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        self._sizes = sizes

    @classmethod
    def outermost(cls, file: Path) -> Zipped:
        """Return the Zarr of an archive: all of it, or its only folder."""
        place = cls(file)
        names = place.names()
        alone = len(names) == 1 and not set(names) & set(METADATA)
        return place.at(names[0]) if alone else place

    def at(self, name: str) -> Zipped:
        """Return the folder of a name in it."""
        return Zipped(self.file, self._key(name), self._sizes)

    def names(self) -> list[str]:
        """Return what is in it."""
        start = self._key("")
        inside = (key[len(start) :] for key in self._sizes if key.startswith(start))
        return list(dict.fromkeys(name.split("/")[0] for name in inside if name))

    def has(self, name: str) -> bool:
        """Tell whether there is a file of a name in it."""
        return self._key(name) in self._sizes

    def size(self, name: str) -> int:
        """Return the bytes of a file in it, 0 where there is none."""
        return self._sizes.get(self._key(name), 0)

    def open(self, name: str) -> BinaryIO:
        """Return the content of a file in it."""
        self._archive = self._archive or zipfile.ZipFile(self.file)
        return cast("BinaryIO", self._archive.open(self._key(name)))

    def node(self) -> Any:
        """Return zarr's array or group."""
        self._check_metadata()
        zarr = imported("zarr", "reading Zarr")
        self._store = zarr.storage.ZipStore(self.file, mode="r")
        return zarr.open(self._store, path=self._inside, mode="r")

    def watched(self, name: str) -> Path:
        """Return the archive."""
        return self.file

    def close(self) -> None:
        """Let go of the archive; reading opens it again."""
        if self._store is not None:
            self._store.close()
        if self._archive is not None:
            self._archive.close()
            self._archive = None

    def _key(self, name: str) -> str:
        return f"{self._inside}/{name}" if self._inside else name

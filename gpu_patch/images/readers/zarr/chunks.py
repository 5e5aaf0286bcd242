"""Chunks of Zarr arrays as files, looked at before zarr unpacks them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from typing import Any, BinaryIO

import numpy as np

from gpu_patch.images.readers.unpacking import (
    HEAD,
    check_claim,
    check_stream,
    most_bytes,
    needs_unpacking,
)
from gpu_patch.images.readers.zarr.fast import first_bytes
from gpu_patch.images.readers.zarr.place import Folder, Part

_LEFT_OUT = 2**64 - 1
"""In the index of a shard: a chunk that is not in it."""


class ChunkFiles:
    """The files of an array's chunks.

    Looked at is what the outermost compression says: blosc, zstd and LZ4 by their headers, gzip,
    zlib, bz2 and LZMA by unpacking a little at a time where it could be too much. Not looked at are
    zstd frames that do not say their size, shards in shards, and shards that are compressed.

    Parameters
    ----------
    array : zarr.Array
        The array.
    place : Folder
        Where it is.

    Raises
    ------
    ValueError
        Its chunks have no pixels.
    """

    def __init__(self, array: Any, place: Folder) -> None:
        self._array, self._place = array, place
        self._chunks = tuple(map(int, array.chunks))
        self._stored = tuple(map(int, array.shards or array.chunks))
        if min((*self._chunks, *self._stored), default=1) < 1:
            raise ValueError(f"its chunks have the shape {self._chunks}")
        metadata = array.metadata
        if metadata.zarr_format == 2:
            codecs, filters = [metadata.compressor] if metadata.compressor else [], metadata.filters
        else:
            codecs, filters = list(metadata.codecs), None
        self._index = None
        if array.shards:
            self._index, codecs = codecs[0], list(codecs[0].codecs) if len(codecs) == 1 else []
        names = [_name(codec) for codec in codecs]
        known = ("bytes", "transpose", "crc32c")
        compressors = [name for name in names if name not in known]
        self._codec = compressors[-1] if compressors else ""
        # filters may store pixels of a larger type, of 8 bytes at most
        size = array.dtype.itemsize
        self._expected = prod(self._chunks) * (max(size, 8) if filters else size)

    def check(self, key: Sequence[slice]) -> None:
        """Raise where a chunk of a part of the image would unpack to far more than its pixels.

        Parameters
        ----------
        key : sequence of slice
            One with start and stop, within the image, per axis.

        Raises
        ------
        ValueError
            A chunk does, or is no file. The message names it.
        """
        for place in _places(key, self._stored):
            name = self._array.metadata.encode_chunk_key(place)
            if not self._place.has(name):
                continue
            n_bytes = self._place.size(name)
            with self._place.open(name) as file:
                if self._index is None:
                    self._check_piece(name, file, 0, n_bytes)
                else:
                    self._check_shard(name, file, place, key)

    def seem_right(self, key: Sequence[slice], *, missing_too: bool) -> bool:
        """Tell, for files in microseconds, whether nothing is wrong with a part at first sight.

        Parameters
        ----------
        key : sequence of slice
            As in `check`.
        missing_too : bool
            Whether chunks may be missing.
        """
        for place in _places(key, self._stored):
            name = self._array.metadata.encode_chunk_key(place)
            found = first_bytes(f"{self._place.file}/{name}", HEAD)
            if found is None or not found[0]:
                if missing_too and not self._place.has(name):
                    continue
                return False
            if self._index is not None:
                continue
            if needs_unpacking(self._codec, found[0]):
                return False
            try:
                check_claim(name, self._codec, found[1], found[0], self._expected)
            except ValueError:
                return False
        if self._index is not None:
            try:
                self.check(key)
            except (OSError, ValueError):
                return False
        return True

    def _check_piece(self, name: str, file: BinaryIO, start: int, n_bytes: int) -> None:
        file.seek(start)
        head = file.read(min(HEAD, n_bytes))
        what = f"its chunk {name}"
        check_claim(what, self._codec, head, n_bytes, self._expected)
        if needs_unpacking(self._codec, n_bytes):
            content = head + file.read(n_bytes - len(head))
            check_stream(what, self._codec, content, self._expected)

    def _check_shard(
        self, name: str, file: BinaryIO, place: tuple[int, ...], key: Sequence[slice]
    ) -> None:
        for inner, begin, size in self._entries(file, place, key):
            self._check_piece(f"{inner} in shard {name}", file, begin, size)

    def _entries(
        self, file: BinaryIO, place: tuple[int, ...], key: Sequence[slice]
    ) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """Yield number, first byte and length of a shard's chunks, of those that a part touches."""
        index: Any = self._index
        if [_name(codec) for codec in index.index_codecs] != ["bytes", "crc32c"]:
            return
        grid = [n // m for n, m in zip(self._stored, self._chunks, strict=True)]
        n_bytes = self._index_bytes
        length = file.seek(0, 2)
        start = length - n_bytes if index.index_location.value == "end" else 0
        if start < 0:
            return  # zarr says so
        file.seek(start)
        entries = np.frombuffer(file.read(n_bytes - 4), "<u8").reshape(*grid, 2)
        for inner in _places(self._within(place, key), self._chunks):
            begin, size = map(int, entries[inner])
            if begin != _LEFT_OUT and begin + size <= length:
                yield inner, begin, size

    @property
    def _index_bytes(self) -> int:
        """Length of a shard's index, with its checksum."""
        return 16 * prod(n // m for n, m in zip(self._stored, self._chunks, strict=True)) + 4

    def _within(self, place: tuple[int, ...], key: Sequence[slice]) -> list[slice]:
        """Return a part of the image, counted from the first pixel of a shard."""
        return [
            slice(max(part.start - at * n, 0), min(part.stop - at * n, n))
            for part, at, n in zip(key, place, self._stored, strict=True)
        ]

    @contextmanager
    def at_hand(self, key: Sequence[slice]) -> Iterator[None]:
        """Fetch what a part of the image needs from a server, and have it in a ``with`` block.

        Whole shards are fetched where zarr reads them so, else their index and the chunks.
        """
        if not self._place.is_far:
            yield
            return
        wanted, indices, cut = [], [], []
        n_inner = prod(n // m for n, m in zip(self._stored, self._chunks, strict=True))
        for place in _places(key, self._stored):
            name = self._array.metadata.encode_chunk_key(place)
            if self._index is None or self._is_whole(place, key):
                wanted.append(
                    Part(name, most=n_inner * most_bytes(self._expected) + self._index_bytes)
                )
                continue
            is_last = self._index.index_location.value == "end"
            n_bytes = self._index_bytes
            indices.append(Part(name, None if is_last else 0, n_bytes))
            cut.append((place, name))
        with self._place.at_hand([*wanted, *indices], indices):
            chunks = []
            for place, name in cut:
                if self._place.size(name):
                    with self._place.open(name) as file:
                        entries = list(self._entries(file, place, key))
                    # what is too long is refused by its length
                    fitting = [e for e in entries if e[2] <= most_bytes(self._expected)]
                    chunks += [Part(name, begin, begin + size) for _, begin, size in fitting]
            with self._place.at_hand(chunks):
                yield

    def _is_whole(self, place: tuple[int, ...], key: Sequence[slice]) -> bool:
        """Tell whether a part of the image has all of a shard, which zarr reads at once then."""
        parts = zip(self._within(place, key), self._stored, strict=True)
        return all(part == slice(0, n) for part, n in parts)


def _places(key: Sequence[slice], chunks: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Return the numbers of the chunks that a part of an image touches."""
    return product(
        *(range(part.start // n, -(-part.stop // n)) for part, n in zip(key, chunks, strict=True))
    )


def _name(codec: Any) -> str:
    """Return what numcodecs calls a codec, of zarr or of numcodecs."""
    name = getattr(codec, "codec_id", None) or codec.to_dict()["name"]
    return str(name).removeprefix("numcodecs.")

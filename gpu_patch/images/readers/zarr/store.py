"""zarr's view of a server: it reads, and writes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

from gpu_patch.images.readers.paths import DeniedError
from gpu_patch.images.readers.zarr.fetched import Fetched
from gpu_patch.images.readers.zarr.place import METADATA, Part
from gpu_patch.optional import imported

_OF_METADATA = (*METADATA, ".zattrs", ".zmetadata")


def make_store(fetched: Fetched) -> Any:
    """Return a store of zarr, which has an attribute `denied`.

    Servers that list nothing deny what is not there: for metadata, of which zarr looks for several
    kinds, that is taken as not there, and kept in `denied`.
    """
    return _store_class()(fetched)


@lru_cache(maxsize=1)
def _store_class() -> Any:
    import asyncio  # takes a fifth of the time that all of the package takes

    store: Any = imported("zarr", "reading Zarr").abc.store
    base: Any = store.Store

    class ServerStore(base):  # type: ignore[misc]
        """Files of a server."""

        supports_writes = supports_deletes = supports_partial_writes = False

        def __init__(self, fetched: Fetched) -> None:
            super().__init__(read_only=True)
            self.fetched = fetched
            self.denied: DeniedError | None = None

        @property
        def supports_listing(self) -> bool:
            return self.fetched.server.lists

        def __eq__(self, other: object) -> bool:
            return isinstance(other, ServerStore) and other.fetched is self.fetched

        def __hash__(self) -> int:
            return id(self.fetched)

        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            part = Part(key)
            if isinstance(byte_range, store.RangeByteRequest):
                part = Part(key, byte_range.start, byte_range.end)
            elif isinstance(byte_range, store.SuffixByteRequest):
                part = Part(key, None, byte_range.suffix)
            elif byte_range is not None:
                part = Part(key, byte_range.offset, None)
            try:
                found = await asyncio.to_thread(self.fetched.get, part)
            except DeniedError as error:
                if key.rpartition("/")[2] not in _OF_METADATA:
                    raise
                self.denied, found = error, None
            return None if found is None else prototype.buffer.from_bytes(found.content)

        async def get_partial_values(self, prototype: Any, key_ranges: Any) -> list[Any]:
            return [await self.get(key, prototype, part) for key, part in key_ranges]

        async def exists(self, key: str) -> bool:
            return await asyncio.to_thread(self.fetched.get, Part(key)) is not None

        async def set(self, key: str, value: Any) -> None:
            raise PermissionError(f"{self.fetched.server.url} is not written to")

        async def delete(self, key: str) -> None:
            raise PermissionError(f"nothing of {self.fetched.server.url} is deleted")

        async def list(self) -> AsyncIterator[str]:
            return
            yield

        async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
            return
            yield

        async def list_dir(self, prefix: str) -> AsyncIterator[str]:
            sizes = await asyncio.to_thread(self.fetched.server.sizes, prefix.rstrip("/"))
            for name in dict.fromkeys(name.split("/")[0] for name in sizes or {}):
                yield name

    return ServerStore

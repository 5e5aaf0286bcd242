"""Parts of a server's files that are at hand: who reads them does not ask the server again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gpu_patch.images.readers.zarr.place import Part
from gpu_patch.images.readers.zarr.server import Found, Server

_MOST_KEPT = 4096
_Bytes = tuple[int | None, int | None]


class Fetched:
    """Files of a server, some of them at hand; several threads may use it.

    Parameters
    ----------
    server : Server
        The server.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._held: dict[str, dict[_Bytes, Found | None]] = {}
        self._holders: Counter[Part] = Counter()
        self._kept: dict[Part, None] = {}
        self._lock = threading.Lock()

    @contextmanager
    def at_hand(
        self, parts: Sequence[Part], cached_as: str | None = None, *, kept: Sequence[Part] = ()
    ) -> Iterator[None]:
        """Fetch parts, all at a time, and have them until the ``with`` block ends.

        Parameters
        ----------
        parts : sequence of Part
            What to fetch.
        cached_as : str or None, default None
            As of `Server.get`.
        kept : sequence of Part, default ()
            Those of them that are soon asked for again; the latest of them stay at hand.

        Raises
        ------
        ServerError
            As of `Server.get`.
        """
        with self._lock:
            self._holders.update(parts)
            wanted = [part for part in dict.fromkeys(parts) if not self._has(part)]
        try:
            found = self.server.get_all(wanted, cached_as)
            with self._lock:
                for part, content in zip(wanted, found, strict=True):
                    self._held.setdefault(part.name, {})[part.start, part.stop] = content
            yield
        finally:
            with self._lock:
                self._holders.subtract(parts)
                self._kept.update(dict.fromkeys(kept))
                older = list(self._kept)[: max(0, len(self._kept) - _MOST_KEPT)]
                for part in older:
                    del self._kept[part]
                for part in {*parts, *older}:
                    if self._holders[part] <= 0:
                        del self._holders[part]
                        self._forget(part)

    def get(self, part: Part, cached_as: str | None = None) -> Found | None:
        """Return a part, None where there is no such file."""
        with self._lock:
            held = self._held.get(part.name, {})
            for (start, stop), found in held.items():
                if found is None or (start, stop) == (part.start, part.stop):
                    return found
                cut = _cut(found, start, stop, part)
                if cut is not None:
                    return cut
        return self.server.get(part, cached_as)

    def size(self, name: str, cached_as: str | None = None) -> int | None:
        """Return the bytes of a file, None where there is none."""
        with self._lock:
            held = self._held.get(name)
            found = next(iter(held.values())) if held else None
        if not held:
            found = self.server.get(Part(name), cached_as)
        return None if found is None else found.size

    def _has(self, part: Part) -> bool:
        return (part.start, part.stop) in self._held.get(part.name, {})

    def _forget(self, part: Part) -> None:
        if part in self._kept:
            return
        held = self._held.get(part.name, {})
        held.pop((part.start, part.stop), None)
        if not held:
            self._held.pop(part.name, None)


def _cut(found: Found, start: int | None, stop: int | None, part: Part) -> Found | None:
    """Return a part of what was found from `start` to `stop`, None where that lacks it."""
    first = found.size - len(found.content) if start is None else start
    last = first + len(found.content)
    if part.start is None and part.stop is None:
        begin, end = 0, found.size
    elif part.start is None:
        begin, end = max(0, found.size - (part.stop or 0)), found.size
    else:
        begin, end = part.start, min(part.stop or found.size, found.size)
    if not first <= begin <= end <= last:
        return None
    return Found(found.content[begin - first : end - first], found.size)

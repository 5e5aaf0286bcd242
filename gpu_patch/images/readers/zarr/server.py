"""Files of a server by obstore: many requests at a time, with names for what goes wrong."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from gpu_patch.images.readers.paths import DeniedError, ServerError
from gpu_patch.images.readers.url import Url
from gpu_patch.images.readers.zarr.place import Part
from gpu_patch.optional import imported

IN_FLIGHT = 32
"""Requests at a time."""
_TRIES = 3
"""How often an answer is asked for that was cut off; obstore repeats the other requests."""
_CLIENT = {"connect_timeout": "10s", "read_timeout": "30s", "timeout": "10m"}
_BACKOFF = {
    "init_backoff": timedelta(milliseconds=100),
    "max_backoff": timedelta(seconds=5),
    "base": 2,
}
_RETRY = {"max_retries": 5, "retry_timeout": timedelta(seconds=60), "backoff": _BACKOFF}
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip
_GIVEN = ("access_key_id", "credential_provider", "skip_signature", "token")

_used_by: int | None = None
"""The process that used obstore first: in one that is forked from it, it would wait forever."""


class Found(NamedTuple):
    """What came of a request.

    Attributes
    ----------
    content : memoryview or bytes
        The bytes.
    size : int
        Bytes of the whole file.
    """

    content: memoryview | bytes
    size: int


class Server:
    """The files below an address.

    Parameters
    ----------
    url : Url
        The address.
    """

    def __init__(self, url: Url) -> None:
        self.url = url
        _check_process(url)
        purpose = "reading images of servers"
        self._stores, self._obstore = (
            imported("obstore.store", purpose),
            imported("obstore", purpose),
        )
        self._store = self._open()
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def get(self, part: Part, cached_as: str | None = None) -> Found | None:
        """Return a file or a part of it, None where there is no such file.

        Parameters
        ----------
        part : Part
            What to get.
        cached_as : str or None, default None
            Name of the folder in `Url.cache` that keeps it; None keeps nothing.

        Raises
        ------
        ServerError
            The server does not give it. The message names it.
        ValueError
            It has more bytes than `Part.most`.
        """
        kept = self._kept(part, cached_as)
        if kept is not None:
            with suppress(FileNotFoundError):
                content = kept.read_bytes()
                return Found(content[8:], int.from_bytes(content[:8], "little"))
        found = self._asked(part)
        if kept is not None and found is not None:
            _keep(kept, found)
        return found

    def get_all(self, parts: list[Part], cached_as: str | None = None) -> list[Found | None]:
        """Return several, asked for at the same time."""
        if len(parts) == 1:
            return [self.get(parts[0], cached_as)]
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(IN_FLIGHT, "gpu_patch_server")
        waiting = [self._pool.submit(self.get, part, cached_as) for part in parts]
        try:
            return [each.result() for each in waiting]
        finally:
            for each in waiting:
                each.cancel()

    @property
    def lists(self) -> bool:
        """Whether servers of this kind can list what they have."""
        return self.url.scheme not in ("http", "https")

    def sizes(self, folder: str) -> dict[str, int] | None:
        """Return the bytes of all files in a folder, by name; None where the server lists none."""
        if not self.lists:
            return None
        try:
            start = f"{folder}/" if folder else ""
            pages = self._obstore.list(self._store, start or None, chunk_size=1000)
            return {item["path"][len(start) :]: item["size"] for page in pages for item in page}
        except Exception:  # who may read need not have the right to list
            return None

    def _asked(self, part: Part) -> Found | None:
        _check_process(self.url)
        options: dict[str, Any] = {}
        if part.start is not None:
            end = {"offset": part.start} if part.stop is None else (part.start, part.stop)
            options["range"] = end
        elif part.stop is not None:
            options["range"] = {"suffix": part.stop}
        for left in reversed(range(_TRIES)):
            try:
                answer = self._obstore.get(self._store, part.name, options=options)
                size = int(answer.meta["size"])
                if part.most is None or size <= part.most:
                    return Found(memoryview(answer.bytes()), size)  # obstore's own memory
                break  # before it is fetched
            except FileNotFoundError:
                return None
            except Exception as error:
                text = str(error)
                cut_off = "Interrupted" in text or "kind: Body" in text or "IncompleteBody" in text
                if not (cut_off and left):
                    raise self._error(part, error) from None  # its text may have secrets
        raise ValueError(f"{part.name} has {size:,} bytes, for pixels of far fewer")

    def _error(self, part: Part, error: Exception) -> ServerError:
        """Return the error in words, without what is secret."""
        text, kind = str(error), type(error).__name__
        name = f"{self.url}/{part.name}"
        if kind in ("PermissionDeniedError", "UnauthenticatedError"):
            return DeniedError(
                f"{name}: the server denies access. Give credentials where the image is not "
                "public; a public one may lack this file: servers that list nothing say the same"
            )
        reason = next((words for sign, words in _REASONS.items() if sign in text), "")
        first = self.url.without_secrets(text.partition("\n\nDebug source")[0].partition("\n")[0])
        return ServerError(f"{name}: {reason or 'the server does not give it'} ({first.strip()})")

    def _open(self) -> Any:
        store, url = self._stores, self.url
        options = {"retry_config": _RETRY, **url.options}
        client = {**_CLIENT, **options.pop("client_options", {})}
        endpoint = str(options.get("endpoint", os.environ.get("AWS_ENDPOINT_URL", "")))
        if url.scheme == "http" or endpoint.startswith("http://"):
            client.setdefault("allow_http", True)
        if url.scheme == "s3" and not any(name in options for name in _GIVEN):
            # without any, obstore would ask the network of a cloud that this machine may not be in
            options["skip_signature"] = not any(map(os.environ.get, _CREDENTIALS))
        try:
            if url.scheme in ("http", "https"):
                return store.HTTPStore.from_url(url.address, client_options=client, **options)
            return store.from_url(url.address, client_options=client, **options)
        except Exception as error:
            words = url.without_secrets(str(error).partition("\n\nDebug source")[0])
            raise ValueError(
                f"{url}: storage_options are not what obstore takes: {words}"
            ) from None

    def _kept(self, part: Part, cached_as: str | None) -> Path | None:
        if self.url.cache is None or cached_as is None:
            return None
        place = "" if part.start is part.stop is None else f"@{part.start}-{part.stop}"
        return self.url.cache / cached_as / quote(f"{part.name}{place}", safe="@-.")


_servers: dict[Url, Server] = {}


def server_of(url: Url) -> Server:
    """Return the server of an address, the same where the options are the same."""
    _check_process(url)
    if url not in _servers:
        _servers[url] = Server(url)
    return _servers[url]


_REASONS = {
    "dns error": "no such host is known",
    "failed to lookup address": "no such host is known",
    "Connection refused": "nothing answers there: the connection is refused",
    "kind: Timeout": "there is no answer in time",
    "TimedOut": "there is no answer in time",
    "kind: Connect": "the server cannot be reached",
    "Interrupted": "the answer was cut off, again and again",
    "kind: Body": "the answer was cut off, again and again",
    "RangeNotSupported": "the server gives whole files alone, but sharded Zarr is read in parts",
    "redirect without LOCATION": "the bucket is in another region: say region= in storage_options",
    "non-2xx status code: 5": "the server fails, again and again",
}
"""Words for what is in obstore's texts."""


def _check_process(url: Url) -> None:
    global _used_by
    if _used_by is None:
        _used_by = os.getpid()
    elif _used_by != os.getpid():
        raise ServerError(
            f"{url} cannot be read in a process that was forked after images of servers were read: "
            "start workers with multiprocessing's 'spawn' or 'forkserver'"
        )


def _keep(path: Path, found: Found) -> None:
    """Write a file that another process never sees in part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}-{threading.get_ident()}")
    draft.write_bytes(found.size.to_bytes(8, "little") + found.content)
    os.replace(draft, path)

"""Addresses of images on servers, and what is said to the server about them."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit, urlunsplit

from gpu_patch.checks import Message, argument, instance, shorten

_SCHEMES = ("s3", "http", "https", "gs", "az")
_MAGIC = "*?[{"
_LOGIN = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*:/{1,2})"  # a path has one slash of the two
    r"(?:[^\s/'\"]*|[^\s/:'\"]*:(?!\d*/)[^\s'\"]*)@"  # a password may have a slash
)


def without_login(text: str) -> str:
    """Return a text without the names and passwords of the addresses in it.

    Examples
    --------
    >>> without_login("there is no http://me:secret@host/a.zarr")
    'there is no http://host/a.zarr'
    """
    return _LOGIN.sub(r"\1", text)


@dataclass(frozen=True)
class Url:
    """An address, without the name and password that it may come with.

    Attributes
    ----------
    address : str
        What messages call it.
    options : mapping
        What obstore takes for such a store: credentials, an endpoint, timeouts.
    cache : Path or None
        A folder that keeps what was read.
    """

    address: str
    # neither shown nor compared: they may be secret
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    cache: Path | None = None

    def __str__(self) -> str:
        return self.address

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Return the address that a text is.

        Raises
        ------
        ValueError
            It is none that can be read. The message has no password.
        """
        try:
            parts = urlsplit(text)
            _ = parts.port  # raises where it is no number
        except ValueError:
            raise ValueError(
                f"the address {without_login(text)!r} has no host and port that can be read: "
                "write / as %2F, @ as %40 and : as %3A in a name or password"
            ) from None
        host = parts.netloc.rpartition("@")[2]
        shown = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        if parts.scheme not in _SCHEMES:
            raise ValueError(
                f"images must be files of this machine, or Zarr by {', '.join(_SCHEMES)}, found "
                f"the address {shown!r}: download it, or give an array that reads it"
            )
        if parts.query or parts.fragment:
            raise ValueError(
                Message(
                    f"{shown} has a query or a fragment, which stands for one file and not for "
                    "those of a Zarr: give tokens in ",
                    argument("storage_options"),
                )
            )
        if not host or set(_MAGIC) & set(parts.path):
            raise ValueError(f"{shown} must name a host and one image: servers are not searched")
        options: dict[str, Any] = {}
        if "@" in parts.netloc:
            name = unquote(parts.netloc.rpartition("@")[0])
            headers = {"authorization": f"Basic {b64encode(name.encode()).decode()}"}
            options = {"client_options": {"default_headers": headers}}
        return cls(shown, options)

    def given(self, options: Mapping[str, Any] | None, cache: str | Path | None) -> Url:
        """Return the same address with what the user says of the server."""
        if options is not None:
            instance("storage_options", options, Mapping, "a dict of what obstore takes")
        if cache is not None and not isinstance(cache, (str, os.PathLike)):
            name = argument("cache_folder")
            raise TypeError(Message(name, f" must be a folder or None, found {shorten(cache)}"))
        merged = {**self.options, **(options or {})}
        clients = [each.get("client_options", {}) for each in (self.options, options or {})]
        if any(clients):
            merged["client_options"] = {**clients[0], **clients[1]}
        return replace(self, options=merged, cache=None if cache is None else Path(cache))

    @property
    def scheme(self) -> str:
        """The part before "://"."""
        return self.address.partition(":")[0]

    @property
    def suffix(self) -> str:
        """The ending of its name."""
        return Path(self.address).suffix.lower()

    def without_secrets(self, text: str) -> str:
        """Return a text without values of the options, and those of the environment."""
        for value in (*_values(self.options), *_environment()):
            if len(value) > 3:
                text = text.replace(value, "…")
        return text


_NAMES = ("key", "secret", "token", "password", "authorization", "credential")


def _values(options: Mapping[str, Any], *, inside: bool = False) -> list[str]:
    """Return the texts among options whose names are those of secrets."""
    found: list[str] = []
    for name, value in options.items():
        is_secret = inside or any(word in str(name).lower() for word in _NAMES)
        if isinstance(value, Mapping):
            found += _values(value, inside=is_secret)
        elif is_secret and isinstance(value, str):
            found.append(value)
    return found


def _environment() -> list[str]:
    found = {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "GOOGLE_", "AZURE_"))}
    return _values(found)

"""Printing in any encoding: what it lacks is written in plain letters."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_NAME = "gpu_patch.plain"
_PLAIN = {"×": "x", "µ": "u", "μ": "u", "σ": "sigma", "–": "-", "−": "-", "…": "...", "·": "."}


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what cannot be encoded: symbols by letters, other characters by their numbers."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    return _PLAIN.get(letter) or ascii(letter)[1:-1], error.start + 1


codecs.register_error(_NAME, _plain)


@contextmanager
def any_encoding() -> Iterator[None]:
    """Let everything be printed, unless the user has said what is to become of other letters."""
    with ExitStack() as restored:
        for stream in (sys.stdout, sys.stderr):
            usual = getattr(stream, "errors", None)
            if usual in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=_NAME)
                restored.callback(_reset, stream, usual)
        yield


def _reset(stream: Any, errors: str) -> None:
    if not stream.closed:
        stream.reconfigure(errors=errors)

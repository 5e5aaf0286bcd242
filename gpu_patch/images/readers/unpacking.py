"""How large compressed data become, found out before they are unpacked."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

HEAD = 18
"""Bytes at the beginning of a piece that say how much it unpacks to, where it says so."""

_ROOM = 4096
_HARMLESS = 1 << 28
"""Bytes that any machine has room for: data that cannot unpack to more need no check."""
_MOST_PER_BYTE = 1032
"""The most bytes that a byte of the deflate format unpacks to."""
_PIECE = 1 << 20

_STREAMS: dict[str, tuple[int, Callable[[], Any]]] = {
    # per codec: the most bytes that one byte can unpack to (0: no limit), and a decompressor that
    # unpacks piece by piece
    "gzip": (_MOST_PER_BYTE, lambda: zlib.decompressobj(31)),
    "zlib": (_MOST_PER_BYTE, zlib.decompressobj),
    "bz2": (0, bz2.BZ2Decompressor),
    "lzma": (0, lzma.LZMADecompressor),
}


def most_bytes(expected: int) -> int:
    """Return the bytes that a piece may have, packed or not, whose pixels take so many."""
    return 2 * expected + _ROOM


def claimed_bytes(codec: str, head: bytes) -> int | None:
    """Return how much a piece says that it unpacks to, None where it does not say it.

    Parameters
    ----------
    codec : str
        As numcodecs calls it.
    head : bytes
        The first `HEAD` bytes of the piece.
    """
    if codec == "blosc" and len(head) >= 8:
        return int.from_bytes(head[4:8], "little")
    if codec == "lz4" and len(head) >= 4:  # as numcodecs writes it
        return int.from_bytes(head[:4], "little")
    if codec == "zstd" and head[:4] == b"\x28\xb5\x2f\xfd" and len(head) == HEAD:
        flags = head[4]
        alone = flags >> 5 & 1
        start = 6 - alone + (0, 1, 2, 4)[flags & 3]
        size = (alone, 2, 4, 8)[flags >> 6]
        claim = int.from_bytes(head[start : start + size], "little")
        return None if not size else claim + 256 * (size == 2)
    return None


def check_claim(name: str, codec: str, head: bytes, n_bytes: int, expected: int) -> None:
    """Raise where a piece cannot be what it is said to be, by its length and its first bytes.

    Parameters
    ----------
    name : str
        What the error calls it.
    codec : str
        As numcodecs calls it; "" where the piece is not compressed.
    head : bytes
        Its first `HEAD` bytes.
    n_bytes, expected : int
        Its length, and that of its pixels.

    Raises
    ------
    ValueError
        It is longer than its pixels can be, cut off, or unpacks to far more.
    """
    if n_bytes > most_bytes(expected):
        raise ValueError(f"{name} has {n_bytes:,} bytes, for pixels of {expected:,} bytes")
    if codec == "blosc" and len(head) >= 16:
        whole = int.from_bytes(head[12:16], "little")
        if whole > n_bytes:  # blosc itself may read on behind the end
            raise ValueError(f"{name} is cut off: it has {n_bytes:,} of {whole:,} bytes")
    claim = claimed_bytes(codec, head)
    if claim is not None and claim > most_bytes(expected):
        raise ValueError(
            f"{name} says that it unpacks to {claim:,} bytes, for pixels of {expected:,} bytes"
        )


def needs_unpacking(codec: str, n_bytes: int) -> bool:
    """Tell whether a piece does not say what it unpacks to, and it may be too much."""
    if codec not in _STREAMS:
        return False
    most, _ = _STREAMS[codec]
    return not most or most * n_bytes > _HARMLESS


def check_stream(name: str, codec: str, content: bytes, expected: int) -> None:
    """Raise where a piece unpacks to far more than its pixels, by unpacking a little at a time.

    Parameters
    ----------
    name, codec : str
        As of `check_claim`.
    content : bytes
        The piece.
    expected : int
        Bytes of its pixels.
    """
    limit = most_bytes(expected)
    stream, found, rest = _STREAMS[codec][1](), 0, content
    while not stream.eof and found <= limit:
        made = len(stream.decompress(rest, _PIECE))
        # zlib returns the input that it did not use; the others keep it inside
        rest = getattr(stream, "unconsumed_tail", b"")
        found += made
        if not made and not rest:  # it ends too early, which who unpacks it will say
            return
    if found > limit:
        raise ValueError(f"{name} unpacks to more than {found:,} bytes, for pixels of "
                         f"{expected:,} bytes")  # fmt: skip

"""Numbers and sizes in words, for messages, tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, what: str) -> str:
    """Return "1 scale", "2 scales", "3 patches"."""
    ending = "" if number == 1 else "es" if what.endswith("ch") else "s"
    return f"{number} {what}{ending}"


def times(size: Sequence[int], scale: int = 0) -> str:
    """Return "64×96", or the size of a window at a scale: "128×192" at scale 1."""
    return "×".join(str(n << scale) for n in size)

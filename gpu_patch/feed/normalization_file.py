"""Normalisations as JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from gpu_patch.checks import choice, mapping, shorten
from gpu_patch.feed.kinds import KINDS, NAMES

HEADER = {"format": "gpu_patch normalization", "version": 1}
"""What tells such a file from others."""


def from_content(content: Mapping[str, Any]) -> tuple[str, Any, Any, Any]:
    """Return kind, statistics of input and target, and whether the target is skipped."""
    found = mapping("content", content, list(HEADER))
    if any(found[key] != value for key, value in HEADER.items()):
        raise ValueError(
            f"content must have the format {HEADER['format']!r} and the version "
            f"{HEADER['version']}, found {shorten(found['format'])} and {shorten(found['version'])}"
        )
    mapping("content", found, ["kind", "input", "target", "skip_target"])
    kind = choice("content['kind']", found["kind"], KINDS)
    pairs: list[Any] = []
    for part in ("input", "target"):
        numbers = found[part]
        if numbers is not None:
            names = NAMES.get(kind, ())
            numbers = mapping(f"content[{part!r}]", numbers, names)
            numbers = [numbers[name] for name in names]
        pairs.append(numbers)
    return kind, pairs[0], pairs[1], found["skip_target"]


def write(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all; one that is there is replaced."""
    target = Path(path)
    # beside it, since files are only renamed in one go within a file system
    written = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        written.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        written.replace(target)
    finally:
        written.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> Any:
    """Return what a file holds."""
    return json.loads(Path(path).read_text(encoding="utf-8"))

"""Pictures that commands draw, written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_picture(figure: Any, path: Path) -> tuple[int, int]:
    """Write a figure to a file, of the format that its end names; return width and height."""
    figure.savefig(path)
    width, height = (int(inches * figure.dpi) for inches in figure.get_size_inches())
    return width, height


def report_saved(figure: Any, path: Path) -> None:
    """Write a figure to a file, and print where it is and how large."""
    width, height = save_picture(figure, path)
    print(f"picture  {path} ({width}×{height} pixels, {path.stat().st_size / 1e3:.0f} kB)")

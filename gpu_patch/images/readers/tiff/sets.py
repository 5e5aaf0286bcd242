"""Which TIFF files make up one set, by their OME-XML or their names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpu_patch.checks import Message, argument
from gpu_patch.images.readers.info import Options
from gpu_patch.images.readers.paths import reading
from gpu_patch.images.readers.tiff.file import KIND, files_of, load_tifffile, without_log
from gpu_patch.images.readers.tiff.ome import (
    COMPANION,
    Element,
    OmeSet,
    find_set,
    metadata_file,
    parsed,
)


def set_of(path: Path, options: Options, tiff: Any) -> OmeSet | None:
    """Return the set that a file belongs to by its OME-XML, None where it stands alone.

    Parameters
    ----------
    path : Path
        The file.
    options : Options
        Whether it may be outside of its folder.
    tiff : tifffile.TiffFile or None
        The file, open; None for a companion.
    """
    outside = options.allow_outside
    with reading(path, KIND):
        text = None if tiff is None else tiff.ome_metadata
        root = _ome_xml(path) if tiff is None else parsed(text) if text else None
        if root is None:
            return None
        described = metadata_file(path, root, allow_outside=outside)
        if described is not None:
            root = _ome_xml(described) if described.is_file() else None
            if root is None or metadata_file(described, root, allow_outside=outside) is not None:
                if options.axes is not None:
                    return None
                raise ValueError(
                    Message(
                        f"it belongs to a set that '{described.name}' describes, which is not "
                        "there: put it beside it, or give ",
                        argument("axes"),
                        " to read its own pages",
                    )
                )
        who = f"its OME-XML, '{described.name}'," if described else "its OME-XML"
        found = find_set(described or path, root, _n_pages, f"{path}: {who}", allow_outside=outside)
        if found is not None and not found.images:
            raise ValueError(f"{who} describes no image")
        return found


@without_log()
def members(path: Path, options: Options) -> tuple[Path, ...]:
    """Return all files of the set that a file belongs to, () where it stands alone."""
    with opened(path) as tiff:
        return members_of(path, set_of(path, options, tiff), tiff)


def members_of(path: Path, ome: OmeSet | None, tiff: Any) -> tuple[Path, ...]:
    """Return all files of a set, () where a file stands alone.

    Parameters
    ----------
    path : Path
        The file.
    ome : OmeSet or None
        The set that it belongs to by its OME-XML.
    tiff : tifffile.TiffFile or None
        The file, open; None for a companion.
    """
    if ome is not None or tiff is None:
        return () if ome is None else ome.members
    with reading(path, KIND):
        # these find the others of their set by name
        if any(getattr(tiff, f"is_{kind}", False) for kind in ("mmstack", "ndtiff")):
            return files_of(tiff.series)
    return ()


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file with tifffile; None for a companion, which is no TIFF."""
    if path.suffix.lower() == COMPANION:
        yield None
        return
    with reading(path, KIND):
        tiff = load_tifffile().TiffFile(path)
    try:
        yield tiff
    finally:
        tiff.close()


def _ome_xml(path: Path) -> Element | None:
    if path.suffix.lower() == COMPANION:
        return parsed(path.read_text(encoding="utf-8"))
    with load_tifffile().TiffFile(path) as tiff:
        return parsed(tiff.ome_metadata or "")


def _n_pages(path: Path) -> int:
    with load_tifffile().TiffFile(path) as tiff:
        return len(tiff.pages)

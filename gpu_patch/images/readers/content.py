"""File formats told by the first bytes, whatever the name says."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Content(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    kind : str
        That of the reader which takes it.
    name, ending : str
        Of such files.
    """

    kind: str
    name: str
    ending: str


_TIFF = Content("a TIFF", "a TIFF", ".tif")
_FIRST_BYTES = {
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _TIFF),
    b"\x93NUMPY": Content("a NumPy file", "a NumPy file", ".npy"),
    b"ZISRAWFILE": Content("a CZI", "a CZI", ".czi"),
    b"p\0\0\0": Content("a LIF", "a LIF", ".lif"),
    **dict.fromkeys((b"\xda\xce\xbe\n", b"\0\0\0\x0cjP  "), Content("an ND2", "an ND2", ".nd2")),
    b"\x89PNG": Content("an image", "a PNG", ".png"),
    b"\xff\xd8\xff": Content("an image", "a JPEG", ".jpg"),
}


def content_of(path: Path) -> Content | None:
    """Return what a file holds, None where that is not known."""
    with path.open("rb") as file:
        head = file.read(16)
    return next((found for magic, found in _FIRST_BYTES.items() if head.startswith(magic)), None)


def mistaken(path: Path, kind: str) -> str:
    """Say what a file is instead of what its reader takes, "" where that is not known.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        That of the reader.
    """
    if not path.is_file():
        return ""
    if not path.stat().st_size:
        return "it is empty"
    found = content_of(path)
    if found is None or found.kind == kind:
        return ""
    if path.suffix.lower().replace("jpeg", "jpg") == found.ending:
        return f"it is {found.name}, which open_images reads"
    return f"it is {found.name}: rename it, so that it ends in {found.ending}"

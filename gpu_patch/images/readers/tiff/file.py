"""What is asked of a TIFF file as a whole: its pages, its format, whether it is damaged."""

from __future__ import annotations

import logging
import os
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from gpu_patch.optional import imported

KIND = "a TIFF"
"""What messages call a file of this format."""

# filters do not apply to child loggers, and old versions of tifffile log to a child
_LOGGERS = [logging.getLogger(name) for name in ("tifffile", "tifffile.tifffile")]


@contextmanager
def without_log() -> Iterator[None]:
    """Keep tifffile from logging in this thread: a damaged file is an exception of ours."""
    thread = threading.get_ident()

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    for logger in _LOGGERS:
        logger.addFilter(elsewhere)
    try:
        yield
    finally:
        for logger in _LOGGERS:
            logger.removeFilter(elsewhere)


def files_of(all_series: Iterable[Any]) -> tuple[Path, ...]:
    """Return the files that hold the pages of series."""
    pages = (page for series in all_series for page in series if page is not None)
    return tuple(dict.fromkeys(Path(page.parent.filehandle.path) for page in pages))


def load_tifffile() -> Any:
    """Return the package, or say how to get it."""
    return imported("tifffile", "reading TIFF files")


def check_chain(tiff: Any, first_series: Any) -> None:
    """Raise where pages are lost, which tifffile takes for the end of the file."""
    if tiff.is_imagej:
        # ImageJ may describe all of its pages in one; it says how many there should be
        n_pages = (tiff.imagej_metadata or {}).get("images", 1)
        if n_pages > 1 and first_series.size != n_pages * tiff.pages.first.size:
            raise ValueError(f"it says that it has {n_pages} pages, and has fewer")
        return
    layout, last = tiff.tiff, tiff.pages[-1]
    tiff.filehandle.seek(last.offset)
    count = tiff.filehandle.read(layout.tagnosize)
    (n_tags,) = struct.unpack(layout.tagnoformat, count)
    tiff.filehandle.seek(n_tags * layout.tagsize, os.SEEK_CUR)
    (following,) = struct.unpack(layout.offsetformat, tiff.filehandle.read(layout.offsetsize))
    if following:
        raise ValueError(f"its page {len(tiff.pages)} is damaged or missing")


def leading_axes(series: Any) -> int | None:
    """Return how many axes of a series count its pages; None where pages are no whole axes."""
    page = series.keyframe
    n_leading = len(series.shape) - len(page.shape)
    if (
        series.transform is not None
        or n_leading < 0
        or series.shape[n_leading:] != page.shape
        or prod(series.shape[:n_leading]) != len(series)
        or (page.is_tiled and page.jpegheader is not None)
    ):
        return None
    return n_leading


def format_of(tiff: Any) -> str:
    """Return what kind of TIFF a file is."""
    kind = "OME-TIFF" if tiff.is_ome else "ImageJ TIFF" if tiff.is_imagej else "TIFF"
    return f"{kind} (big)" if tiff.is_bigtiff else kind

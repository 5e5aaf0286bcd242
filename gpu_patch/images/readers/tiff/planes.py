"""Pages of TIFF files that make up one image, from as many files as it takes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from gpu_patch.checks import Message, argument
from gpu_patch.images.readers.paths import checked_file
from gpu_patch.images.readers.tiff.ome import OmeSet

_MOST_FILES = 64
"""Whose layout is kept; they are not open."""
_MOST_PAGES = 256


class OneOpen:
    """Keeps open the one file that was used last, of tifffile's or of plain pixels.

    Attributes
    ----------
    lock : RLock
        To be held by a thread from `use` until it has what it wants of the file.
    """

    def __init__(self) -> None:
        self._handle: Any = None
        self.lock = RLock()

    def use(self, handle: Any) -> Any:
        """Return a file, open; the one before is closed."""
        if handle is not self._handle:
            self.close()
            self._handle = handle
        if handle.closed:
            handle.open()
        return handle

    @property
    def closed(self) -> bool:
        """Whether no file is open."""
        return self._handle is None or bool(self._handle.closed)

    def close(self) -> None:
        """Close the file, once nothing is read from it."""
        with self.lock:
            if self._handle is not None:
                self._handle.close()
                self._handle = None


class PlaneSeries(Sequence[Any]):
    """The planes of one image of a set of files, in the place of tifffile's series.

    tifffile's own takes all pages of a file to be like the first, passes over images of which it
    finds no file, and zeros what it does not find.

    Parameters
    ----------
    ome : OmeSet
        The set.
    scene : int
        Number of the image.
    opened : OneOpen
        Opens its files.
    open_file : callable
        Returns the TiffFile of a path.
    allow_missing : bool
        Whether files and pages may be missing.

    Attributes
    ----------
    shape, axes, dtype
        As of tifffile's series: the colours of a pixel are S, and axes of length 1 are left out.
    keyframe : tifffile.TiffPage
        The first page.
    n_levels : int
        Number of resolution levels.
    files : tuple of Path
        Those with planes of the image.
    """

    kind = "ome"
    transform = None
    dataoffset = None

    def __init__(
        self,
        ome: OmeSet,
        scene: int,
        opened: OneOpen,
        open_file: Callable[[Path], Any],
        *,
        allow_missing: bool,
    ) -> None:
        self._image, self._files = ome.images[scene], ome.files
        self._opened, self._open_file = opened, open_file
        self._tiffs: OrderedDict[int, Any] = OrderedDict()
        self._pages: OrderedDict[int, Any] = OrderedDict()
        self._level = 0
        self.keyframe: Any = None
        numbers, first = np.unique(self._image.file_of, return_index=True)
        planes = {int(n): int(i) for n, i in zip(numbers, first, strict=True) if n >= 0}
        self.files = tuple(self._files[n] for n in planes)
        self._missing = {n for n in planes if not self._files[n].exists()}
        there = [(i, n) for n, i in planes.items() if n not in self._missing]
        if self._missing and not allow_missing:
            raise ValueError(
                Message(
                    f"{self.missing_files()}: put them beside it, or ",
                    argument("allow_missing_chunks", True),
                    " takes zeros for them",
                )
            )
        for i, _ in sorted(there):  # each file is looked at once
            page = self[i]
            self.keyframe = self.keyframe or page
        if self.keyframe is None:
            raise ValueError("none of the pages of the image is there")
        self.n_levels = 1 + len(self.keyframe.subifds or ())
        self.set_level(0)
        self.dtype = self.keyframe.dtype

    def missing_files(self) -> str:
        """Say how many files of the image are missing, and which; "" for none."""
        names = [f"'{self._files[n].name}'" for n in sorted(self._missing)]
        if not names:
            return ""
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return (
            f"of the {len(self.files)} files of the image {len(names)} "
            f"{'is' if len(names) == 1 else 'are'} missing, {', '.join(names[:8])}{more}"
        )

    def set_level(self, level: int) -> None:
        """Take another resolution level, of `n_levels`."""
        if level:
            number = next(i for i in range(len(self)) if self[i] is not None)
            self._pages.clear()
            self._level, self.keyframe = level, None
            self.keyframe = self[number]
        keyframe = self.keyframe
        sizes = {"Y": keyframe.imagelength, "X": keyframe.imagewidth}
        shape = [sizes.get(a, n) for a, n in zip(self._image.axes, self._image.shape, strict=True)]
        axes, n_colours = self._image.axes, keyframe.samplesperpixel
        if n_colours > 1 and keyframe.planarconfig == 1:
            shape, axes = [*shape, n_colours], axes + "S"
        elif n_colours > 1:
            shape, axes = [*shape[:-2], n_colours, *shape[-2:]], axes[:-2] + "S" + axes[-2:]
        self._stated = axes, tuple(shape)
        kept = [(a, n) for a, n in zip(axes, shape, strict=True) if n > 1 or a in "YX"]
        self.axes = "".join(axis for axis, _ in kept)
        self.shape = tuple(length for _, length in kept)
        n_page = len(keyframe.shape)
        expected = self.shape[len(self.shape) - n_page :]
        if tuple(keyframe.shape) != expected:
            raise ValueError(f"its pages have the shape {keyframe.shape}, not {expected}")

    def get_axes(self, *, squeeze: bool = True) -> str:
        """Return the axes, those of length 1 included unless `squeeze`."""
        return self.axes if squeeze else self._stated[0]

    def get_shape(self, *, squeeze: bool = True) -> tuple[int, ...]:
        """Return the shape likewise."""
        return self.shape if squeeze else self._stated[1]

    def __len__(self) -> int:
        return len(self._image.file_of)

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: Any) -> Any:
        """Return the page of a plane, its file open; None where it is missing."""
        if number in self._pages:
            self._pages.move_to_end(number)
            page = self._pages[number]
        else:
            page = self._pages[number] = self._page(number)
            _forget(self._pages, _MOST_PAGES)
        if page is not None:
            self._opened.use(page.parent.filehandle)
        return page

    def place(self, number: int) -> str:
        """Say where a plane should be."""
        file = int(self._image.file_of[number])
        if file < 0:
            return "in no file that the OME-XML names"
        return f"page {self._image.page_of[number]} of '{self._files[file].name}'"

    def _page(self, number: int) -> Any:
        file, ifd = int(self._image.file_of[number]), int(self._image.page_of[number])
        if file < 0 or file in self._missing:
            return None
        path = self._files[file]
        if file not in self._tiffs:
            try:
                self._tiffs[file] = self._open_file(checked_file(path))
            except OSError:
                raise
            except Exception as error:  # whatever tifffile makes of it
                raise ValueError(f"'{path.name}', one of its files, is none: {error}") from error
            _forget(self._tiffs, _MOST_FILES)
        tiff = self._tiffs[file]
        self._tiffs.move_to_end(file)
        self._opened.use(tiff.filehandle)
        try:
            page = tiff.pages[ifd]
        except IndexError:
            return None
        if self._level:
            if not page.subifds or len(page.subifds) < self._level:
                raise ValueError(f"page {ifd} of '{path.name}' has no level {self._level}")
            page = page.pages[self._level - 1]
        self._check(page, path)
        return page

    def _check(self, page: Any, path: Path) -> None:
        """Raise where a page cannot be a plane of the image."""
        sizes = dict(zip(self._image.axes, self._image.shape, strict=True))
        found, wanted = (page.imagelength, page.imagewidth), (sizes["Y"], sizes["X"])
        if not self._level and found != wanted:
            raise ValueError(
                f"'{path.name}', one of its files, has pages of {found[0]}×{found[1]} pixels, "
                f"where the OME-XML says {wanted[0]}×{wanted[1]}"
            )
        first = self.keyframe or page
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            raise ValueError(
                f"'{path.name}', one of its files, has pages of the shape {page.shape} and of "
                f"{page.dtype}, '{first.parent.filename}' of {first.shape} and {first.dtype}"
            )


def _forget(kept: OrderedDict[int, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)

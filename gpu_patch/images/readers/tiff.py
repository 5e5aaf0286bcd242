"""TIFF files by tifffile: OME-TIFF, ImageJ, BigTIFF, tiled, compressed, of several series."""

from __future__ import annotations

import logging
import os
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import argument
from gpu_patch.images.readers.base import (
    ImageReader,
    Key,
    Options,
    along,
    checked_level,
    chosen_scenes,
    described,
    never_written,
    reading,
)
from gpu_patch.images.readers.flat import check_length, read_plain
from gpu_patch.images.readers.ome import (
    COMPANION,
    Element,
    OmeSet,
    calibration,
    find_set,
    metadata_file,
    parsed,
    pixels_of,
)
from gpu_patch.images.readers.planes import OneOpen, PlaneSeries
from gpu_patch.images.readers.tiff_axes import channels_of_colours, samples_of, stated_axes
from gpu_patch.images.readers.tiff_pages import check_layout, check_segment, read_part
from gpu_patch.images.readers.units import Calibration, is_length, micrometres, seconds

_RESOLUTION = ("XResolution", "YResolution", "ResolutionUnit")


@contextmanager
def _without_log() -> Iterator[None]:
    """Keep tifffile from logging in this thread: a damaged file is an exception of ours."""
    thread = threading.get_ident()
    # a filter sees what its own logger is given, not its children: older ones use the second
    loggers = [logging.getLogger(name) for name in ("tifffile", "tifffile.tifffile")]

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    for logger in loggers:
        logger.addFilter(elsewhere)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(elsewhere)


class TiffReader(ImageReader):
    """A series of a TIFF file.

    Parameters
    ----------
    path : Path
        The file.
    options : Options
        `scene` is the number of the series, counted from 0.
    ome : OmeSet or None, default None
        The set of files to which it belongs.
    """

    kind = "a TIFF"

    @_without_log()
    def __init__(self, path: Path, options: Options, ome: OmeSet | None = None) -> None:
        self._opened = OneOpen()
        self._allow_missing = options.allow_missing_chunks
        try:
            scene = self._choose(path, options) if ome is None else self._place(path, options, ome)
            with reading(path, self.kind):
                self._n_leading = _leading_axes(self._series)
                self._samples = samples_of(self._series, keep_alpha=options.keep_alpha)
                stored_shape = self._samples.shape(self._series.shape)
                axes, shape = stated_axes(self._series, self._samples)
                dtype = np.dtype(self._series.dtype)
                if self._data_offset is None and 0 not in shape:
                    check_layout("its first page", self._series.keyframe)
                tiff = self._series.keyframe.parent
                chunk_shape = along(self._chunk_shape(stored_shape), stored_shape, shape, 1)
                full = _calibration(tiff, scene) if ome is None else ome.images[scene].calibration
            name = f"{path}, series {scene}" if scene else str(path)
            if options.axes is None and (said := channels_of_colours(self._series, shape)):
                raise ValueError(f"{name} {said}")
            n_files = len(self._files)
            info = described(
                name,
                _format(tiff) if n_files == 1 else f"OME-TIFF of {n_files} files",
                axes,
                shape,
                options,
                dtype=dtype,
                chunk_shape=chunk_shape,
                calibration=_of_level(full, self._full_size, self._series),
                files=(path, *(self._files if ome is None else ome.members)),
                colours=self._samples.colours,
                remarks=self._samples.remarks,
            )
            watched = [file for file in dict.fromkeys((path, *self._files)) if file.exists()]
            super().__init__(info, watched, stored_shape)
            self._read: set[Path] = set()
        finally:
            self._opened.close()

    def _choose(self, path: Path, options: Options) -> int:
        """Find the series in a file; return its number."""
        with reading(path, self.kind):
            tiff = _tifffile().TiffFile(path)
            self._opened.use(tiff.filehandle)
            all_series = tiff.series
            if not all_series:
                raise ValueError("it has no image")
        (scene,) = chosen_scenes(path, options.scene, [series.name for series in all_series])
        levels = all_series[scene].levels
        self._full_size = _lengths(levels[0])
        self._series = levels[checked_level(path, options.level, len(levels))]
        with reading(path, self.kind):
            _check_chain(tiff, all_series[0])
            # formats beside OME have several files too: Micro-Manager's stacks, NDTiff
            self._files = _files_of([self._series]) if self._series.is_multifile else (path,)
        return scene

    def _place(self, path: Path, options: Options, ome: OmeSet) -> int:
        """Put the series together from the files of a set; return its number."""
        (scene,) = chosen_scenes(path, options.scene, [image.name for image in ome.images])
        with reading(path, self.kind):
            self._series = PlaneSeries(
                ome, scene, self._opened, _tifffile().TiffFile, allow_missing=self._allow_missing
            )
        level = checked_level(path, options.level, self._series.n_levels)
        self._full_size = _lengths(self._series)
        with reading(path, self.kind):
            self._series.set_level(level)
            self._files = tuple(dict.fromkeys((ome.described, *self._series.files)))
            if _leading_axes(self._series) is None:
                raise ValueError(f"pages of {self._series.keyframe.shape} are no whole planes")
        return scene

    def close(self) -> None:
        """Let go of the file."""
        self._opened.close()

    @_without_log()
    def check(self) -> None:
        """Raise where the file is too short, by the offsets of its strips or tiles."""
        with reading(self.info.path, self.kind):
            series = self._series
            if self._data_offset is not None:
                file = self._opened.use(series.keyframe.parent.filehandle)
                check_length(file.size, self._data_offset, series.shape, series.dtype)
                return
            for number, page in enumerate(series):
                if page is None:
                    self._check_allowed(number)
                    continue
                segments = zip(page.dataoffsets, page.databytecounts, strict=False)
                size = self._opened.use(page.parent.filehandle).size
                for index, (start, count) in enumerate(segments):
                    check_segment(self._named(number, page), index, start + count, size)

    @_without_log()
    def missing(self) -> str:
        """Say how many pages, strips and tiles were never written."""
        pages, segments, n_segments = [], [], 0
        with reading(self.info.path, self.kind):
            if self._data_offset is not None:
                return ""
            for number, page in enumerate(self._series):
                if page is None:
                    pages.append(f"page {number}")
                    continue
                offsets = list(zip(page.dataoffsets, page.databytecounts, strict=False))
                n_segments += len(offsets)
                segments += [
                    f"{index} of page {number}"
                    for index, (start, count) in enumerate(offsets)
                    if not start or not count
                ]
            files = self._series.missing_files() if hasattr(self._series, "place") else ""
        said = files or never_written("pages", pages, len(self._series))
        return said or never_written("strips or tiles", segments, n_segments)

    def _chunk_shape(self, stored_shape: tuple[int, ...]) -> tuple[int, ...]:
        """One strip or tile; one row where there are none."""
        found = self._chunk_of_all_samples()
        return tuple(min(n, length) for n, length in zip(found, stored_shape, strict=True))

    def _chunk_of_all_samples(self) -> tuple[int, ...]:
        series, page = self._series, self._series.keyframe
        if self._data_offset is not None:
            return (1,) * (len(series.shape) - 1) + (int(series.shape[-1]),)
        if self._n_leading is None:
            return tuple(map(int, series.shape))
        size = {"Y": page.chunks[-2 - self._contig], "X": page.chunks[-1 - self._contig]}
        inner = [
            min(size.get(axis, length), length)
            for axis, length in zip(page.axes, page.shape, strict=True)
        ]
        return (*(1,) * self._n_leading, *inner)

    @property
    def _contig(self) -> int:
        page = self._series.keyframe
        return int(page.planarconfig == 1 and page.samplesperpixel > 1)

    @property
    def _data_offset(self) -> int | None:
        """Where the pixels begin, if they lie in one piece."""
        # tifffile compares offsets, also of pages in different files
        offset = self._series.dataoffset if len(self._files) == 1 else None
        return None if offset is None else int(offset)

    def _files_read(self) -> Iterable[Path]:
        """Return the files whose pages were read since the last call."""
        if len(self.stamps) == 1:
            return self.stamps
        read, self._read = self._read | {next(iter(self.stamps))}, set()
        return read & self.stamps.keys()

    @_without_log()
    def _select(self, key: Key) -> NDArray[Any]:
        return self._samples.select(self._select_all, key)

    def _select_all(self, key: Key) -> NDArray[Any]:
        """Return a part of the series, of all its samples."""
        series = self._series
        if self._data_offset is not None:
            tiff = series.keyframe.parent
            file = self._opened.use(tiff.filehandle)
            dtype = np.dtype(tiff.byteorder + series.dtype.char)
            block = read_plain(file.fileno(), self._data_offset, series.shape, dtype, key)
            return block.astype(series.dtype, copy=False)
        if self._n_leading is None:
            return np.asarray(series.asarray())[key]
        outer, inner = key[: self._n_leading], key[self._n_leading :]
        leading = series.shape[: self._n_leading]
        out = np.empty([part.stop - part.start for part in key], series.dtype)
        pages = out.reshape(-1, *out.shape[self._n_leading :])
        numbers = np.arange(prod(leading)).reshape(leading)[outer].ravel()
        for i, number in enumerate(numbers):
            pages[i] = self._page_part(int(number), inner)
        return out

    def _page_part(self, number: int, key: Key) -> NDArray[Any]:
        """Return a part of one page, from the strips or tiles that it touches."""
        page, keyframe = self._series[number], self._series.keyframe
        if page is None:
            self._check_allowed(number)
            return np.zeros([part.stop - part.start for part in key], keyframe.dtype)
        return self._decoded(page, number, key)

    def _check_allowed(self, number: int) -> None:
        """Raise where a page that is not there is an error."""
        if not self._allow_missing:
            at = f", {self._series.place(number)}," if hasattr(self._series, "place") else ""
            zeros = argument("allow_missing_chunks", True)
            raise ValueError(f"page {number} of the image{at} is missing: {zeros} takes zeros "
                             "for it")  # fmt: skip

    def _named(self, number: int, page: Any) -> str:
        """Say which page it is, in which file where there are several."""
        file = f" in '{page.parent.filename}'" if len(self._files) > 1 else ""
        return f"page {number}{file}"

    def _decoded(self, page: Any, number: int, key: Key) -> NDArray[Any]:
        name = self._named(number, page)
        file = self._opened.use(page.parent.filehandle)
        self._read.add(Path(file.path))
        return read_part(page, name, key, file, allow_missing=self._allow_missing)


@_without_log()
def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the images of the file, or of the set it belongs to, that `options.scene` means."""
    ome = set_of(path, options)
    if ome is not None:
        found = [(image.name, image.axes, image.shape) for image in ome.images]
    else:
        with reading(path, TiffReader.kind), _tifffile().TiffFile(path) as tiff:
            found = [(series.name, series.axes, series.shape) for series in tiff.series]
    names = [name for name, _, _ in found] or [""]
    kinds = {_kind_of(axes, shape) for _, axes, shape in found}
    chosen = chosen_scenes(path, options.scene, names, alike=len(kinds) < 2)
    return [TiffReader(path, replace(options, scene=scene), ome) for scene in chosen]


def _kind_of(axes: str, shape: Sequence[int]) -> tuple[bool, int]:
    """Return what images that are opened together agree in: whether they have Z, and channels."""
    size = dict(zip(axes, map(int, shape), strict=True))
    return size.get("Z", 1) > 1, size.get("C", 1) * size.get("S", 1)


@_without_log()
def set_of(path: Path, options: Options) -> OmeSet | None:
    """Return the set that a file belongs to by its OME-XML, None where it stands alone."""
    outside = options.allow_outside
    with reading(path, TiffReader.kind):
        root = _ome_xml(path)
        if root is None:
            return None
        described = metadata_file(path, root, allow_outside=outside)
        if described is not None:
            root = _ome_xml(described) if described.is_file() else None
            if root is None or metadata_file(described, root, allow_outside=outside) is not None:
                if options.axes is not None:
                    return None
                raise ValueError(
                    f"it belongs to a set that '{described.name}' describes, which is not there: "
                    f"put it beside it, or give {argument('axes')} to read its own pages"
                )
        who = f"its OME-XML, '{described.name}'," if described else "its OME-XML"
        found = find_set(described or path, root, _n_pages, f"{path}: {who}", allow_outside=outside)
        if found is not None and not found.images:
            raise ValueError(f"{who} describes no image")
        return found


def members(path: Path, options: Options) -> tuple[Path, ...]:
    """Return all files of the set that a file belongs to, () where it stands alone."""
    ome = set_of(path, options)
    if ome is not None:
        return ome.members
    with _without_log(), reading(path, TiffReader.kind), _tifffile().TiffFile(path) as tiff:
        # these find the others of their set by name
        if any(getattr(tiff, f"is_{kind}", False) for kind in ("mmstack", "ndtiff")):
            return _files_of(tiff.series)
    return ()


def _ome_xml(path: Path) -> Element | None:
    if path.suffix.lower() == COMPANION:
        return parsed(path.read_text(encoding="utf-8"))
    with _tifffile().TiffFile(path) as tiff:
        return parsed(tiff.ome_metadata or "")


def _n_pages(path: Path) -> int:
    with _tifffile().TiffFile(path) as tiff:
        return len(tiff.pages)


def _files_of(all_series: Iterable[Any]) -> tuple[Path, ...]:
    """Return the files that hold the pages of series."""
    pages = (page for series in all_series for page in series if page is not None)
    return tuple(dict.fromkeys(Path(page.parent.filehandle.path) for page in pages))


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise ImportError(
            "reading TIFF files needs tifffile: pip install 'gpu_patch[io]'"
        ) from error
    return tifffile


def _check_chain(tiff: Any, first_series: Any) -> None:
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


def _leading_axes(series: Any) -> int | None:
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


def _format(tiff: Any) -> str:
    kind = "OME-TIFF" if tiff.is_ome else "ImageJ TIFF" if tiff.is_imagej else "TIFF"
    return f"{kind} (big)" if tiff.is_bigtiff else kind


def _calibration(tiff: Any, scene: int) -> Calibration:
    if tiff.is_ome:
        found = pixels_of(tiff.ome_metadata)
        return calibration(found[scene]) if scene < len(found) else Calibration()
    if tiff.is_imagej and scene == 0:
        return _calibration_of_imagej(tiff.imagej_metadata or {}, tiff.pages[0].tags)
    return Calibration()


def _calibration_of_imagej(found: Mapping[str, Any], tags: Any) -> Calibration:
    values = {name: tags[name].value for name in _RESOLUTION if name in tags}
    unit = str(found.get("unit", ""))
    if not is_length(unit):
        # ImageJ says inches and centimetres by the tag, whose 72 dots per inch mean nothing
        unit = {2: "inch", 3: "cm"}.get(int(values.get("ResolutionUnit", 1)), "")
        if unit == "inch" and values.get("XResolution") == (72, 1):
            unit = ""
    sizes: dict[str, tuple[Any, Any]] = {"Z": (found.get("spacing"), unit)}
    for axis in "YX":
        above, below = values.get(f"{axis}Resolution", (0, 1))
        sizes[axis] = (below / above if above else None, unit)  # pixels per unit
    interval = seconds(found.get("finterval"), found.get("tunit", "sec"))
    return Calibration(micrometres(sizes), time_interval=interval)


def _of_level(full: Calibration, sizes: Mapping[str, int], level: Any) -> Calibration:
    """Return the calibration of a level of a pyramid, from that of the full resolution.

    Parameters
    ----------
    full : Calibration
        That of the full resolution.
    sizes : dict of str to int
        Pixels along each axis of the full resolution.
    level : tifffile.TiffPageSeries
        The level.
    """
    found = dict(full.physical_sizes)
    for axis, n in zip(level.axes, level.shape, strict=True):
        if axis in found and axis in sizes:
            factor = sizes[axis] / n
            whole = round(factor) or 1
            # the last pixels of an odd length may be left out, or have a pixel of their own
            is_whole = n in (sizes[axis] // whole, -(-sizes[axis] // whole))
            found[axis] *= whole if is_whole else factor
    return replace(full, physical_sizes=found)


def _lengths(series: Any) -> dict[str, int]:
    return dict(zip(series.axes, map(int, series.shape), strict=True))

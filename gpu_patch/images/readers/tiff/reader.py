"""A series of a TIFF file as an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument
from gpu_patch.images.readers.base import ImageReader, Key
from gpu_patch.images.readers.choices import checked_level, chosen_scenes
from gpu_patch.images.readers.info import Options, along, described, never_written
from gpu_patch.images.readers.paths import reading
from gpu_patch.images.readers.tiff.axes import channels_of_colours, samples_of, stated_axes
from gpu_patch.images.readers.tiff.calibration import calibration_of, lengths, of_level
from gpu_patch.images.readers.tiff.file import (
    KIND,
    check_chain,
    files_of,
    format_of,
    leading_axes,
    load_tifffile,
    without_log,
)
from gpu_patch.images.readers.tiff.ome import (
    OmeSet,
)
from gpu_patch.images.readers.tiff.pages import check_layout, check_segment, read_part
from gpu_patch.images.readers.tiff.plain import PlainPixels
from gpu_patch.images.readers.tiff.planes import OneOpen, PlaneSeries
from gpu_patch.images.readers.tiff.sets import members_of, opened, set_of


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
    tiff : tifffile.TiffFile or None, default None
        The file, where it is open already; it is closed, and opened again when it is read.
    """

    kind = KIND
    _series: Any

    def __init__(
        self, path: Path, options: Options, ome: OmeSet | None = None, tiff: Any = None
    ) -> None:
        self._opened = OneOpen()
        self._plain: PlainPixels | None = None
        self._allow_missing = options.allow_missing_chunks
        try:
            if ome is None:
                scene = self._choose(path, options, tiff)
            else:
                scene = self._place(path, options, ome)
            with reading(path, self.kind):
                self._n_leading = leading_axes(self._series)
                self._samples = samples_of(self._series, keep_alpha=options.keep_alpha)
                stored_shape = self._samples.shape(self._series.shape)
                axes, shape = stated_axes(self._series, self._samples)
                dtype = np.dtype(self._series.dtype)
                if self._data_offset is None and 0 not in shape:
                    check_layout("its first page", self._series.keyframe)
                tiff = self._series.keyframe.parent
                chunk_shape = along(self._chunk_shape(stored_shape), stored_shape, shape, 1)
                full = calibration_of(tiff, scene) if ome is None else ome.images[scene].calibration
                self.members = members_of(path, ome, tiff)
            name = f"{path}, series {scene}" if scene else str(path)
            if options.axes is None and (problem := channels_of_colours(self._series, shape)):
                raise ValueError(Message(f"{name} ", problem))
            n_files = len(self._files)
            info = described(
                name,
                format_of(tiff) if n_files == 1 else f"OME-TIFF of {n_files} files",
                axes,
                shape,
                options,
                dtype=dtype,
                chunk_shape=chunk_shape,
                calibration=of_level(full, self._full_size, self._series),
                files=(path, *(self._files if ome is None else ome.members)),
                colours=self._samples.colours,
                remarks=self._samples.remarks,
            )
            watched = [file for file in dict.fromkeys((path, *self._files)) if file.exists()]
            super().__init__(info, watched, stored_shape)
            self._read: set[Path] = set()
            self.for_threads = n_files == 1
            if (offset := self._data_offset) is not None:
                self._plain = PlainPixels(self._series, offset)
                self._series = None
        finally:
            self._opened.close()

    def _choose(self, path: Path, options: Options, tiff: Any) -> int:
        """Find the series in a file; return its number."""
        with reading(path, self.kind):
            tiff = tiff or load_tifffile().TiffFile(path)
            self._opened.use(tiff.filehandle)
            all_series = tiff.series
            if not all_series:
                raise ValueError("it has no image")
        (scene,) = chosen_scenes(path, options.scene, [series.name for series in all_series])
        levels = all_series[scene].levels
        self._full_size = lengths(levels[0])
        self._series = levels[checked_level(path, options.level, len(levels))]
        with reading(path, self.kind):
            check_chain(tiff, all_series[0])
            # formats beside OME have several files too: Micro-Manager's stacks, NDTiff
            self._files = files_of([self._series]) if self._series.is_multifile else (path,)
        return scene

    def _place(self, path: Path, options: Options, ome: OmeSet) -> int:
        """Put the series together from the files of a set; return its number."""
        (scene,) = chosen_scenes(path, options.scene, [image.name for image in ome.images])
        with reading(path, self.kind):
            self._series = PlaneSeries(
                ome,
                scene,
                self._opened,
                load_tifffile().TiffFile,
                allow_missing=self._allow_missing,
            )
        level = checked_level(path, options.level, self._series.n_levels)
        self._full_size = lengths(self._series)
        with reading(path, self.kind):
            self._series.set_level(level)
            self._files = tuple(dict.fromkeys((ome.described, *self._series.files)))
            if leading_axes(self._series) is None:
                raise ValueError(f"pages of {self._series.keyframe.shape} are no whole planes")
        return scene

    def close(self) -> None:
        """Let go of the file."""
        self._opened.close()

    @without_log()
    def check(self) -> None:
        """Raise where the file is too short, by the offsets of its strips or tiles."""
        with reading(self.info.path, self.kind):
            if self._plain is not None:
                self._opened.use(self._plain).check()
                return
            for number, page in enumerate(self._series):
                if page is None:
                    self._check_allowed(number)
                    continue
                segments = zip(page.dataoffsets, page.databytecounts, strict=False)
                size = self._opened.use(page.parent.filehandle).size
                for index, (start, count) in enumerate(segments):
                    check_segment(self._named(number, page), index, start + count, size)

    @without_log()
    def missing(self) -> str:
        """Say how many pages, strips and tiles were never written."""
        pages, segments, n_segments = [], [], 0
        with reading(self.info.path, self.kind):
            if self._plain is not None:
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
        missing = files or never_written("pages", pages, len(self._series))
        return missing or never_written("strips or tiles", segments, n_segments)

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

    @without_log()
    def _select(self, key: Key) -> NDArray[Any]:
        return self._samples.select(self._select_all, key)

    def _select_all(self, key: Key) -> NDArray[Any]:
        """Return a part of the series, of all its samples."""
        if self._plain is not None:
            with self._opened.lock:
                block: NDArray[Any] = self._opened.use(self._plain).read(key)
            return block
        series = self._series
        if self._n_leading is None:
            with self._opened.lock:
                return np.asarray(series.asarray())[key]
        outer, inner = key[: self._n_leading], key[self._n_leading :]
        leading = series.shape[: self._n_leading]
        numbers = np.arange(prod(leading)).reshape(leading)[outer].ravel()
        shape = [part.stop - part.start for part in key]
        if len(numbers) == 1:
            return self._page_part(int(numbers[0]), inner).reshape(shape)
        out = np.empty(shape, series.dtype)
        pages = out.reshape(-1, *shape[self._n_leading :])
        for i, number in enumerate(numbers):
            pages[i] = self._page_part(int(number), inner)
        return out

    def _page_part(self, number: int, key: Key) -> NDArray[Any]:
        """Return a part of one page, from the strips or tiles that it touches."""
        with self._opened.lock:
            page, keyframe = self._series[number], self._series.keyframe
        if page is None:
            self._check_allowed(number)
            return np.zeros([part.stop - part.start for part in key], keyframe.dtype)
        return self._decoded(page, number, key)

    def _check_allowed(self, number: int) -> None:
        """Raise where a page that is not there is an error."""
        if not self._allow_missing:
            at = f", {self._series.place(number)}," if hasattr(self._series, "place") else ""
            raise ValueError(
                Message(
                    f"page {number} of the image{at} is missing: ",
                    argument("allow_missing_chunks", True),
                    " takes zeros for it",
                )
            )

    def _named(self, number: int, page: Any) -> str:
        """Say which page it is, in which file where there are several."""
        file = f" in '{page.parent.filename}'" if len(self._files) > 1 else ""
        return f"page {number}{file}"

    def _decoded(self, page: Any, number: int, key: Key) -> NDArray[Any]:
        name = self._named(number, page)
        self._read.add(Path(page.parent.filehandle.path))
        return read_part(page, name, key, self._opened, allow_missing=self._allow_missing)


@without_log()
def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the images of the file, or of the set it belongs to, that `options.scene` means."""
    with opened(path) as tiff:
        ome = set_of(path, options, tiff)
        if ome is not None:
            found = [(image.name, image.axes, image.shape) for image in ome.images]
        elif tiff is None:
            raise ValueError(f"{path} describes no image of other files")
        else:
            with reading(path, TiffReader.kind):
                found = [(series.name, series.axes, series.shape) for series in tiff.series]
        names = [name for name, _, _ in found] or [""]
        kinds = {_kind_of(axes, shape) for _, axes, shape in found}
        chosen = chosen_scenes(path, options.scene, names, alike=len(kinds) < 2)
        # readers may be used by several threads, so that only one of them has it
        own = tiff if len(chosen) == 1 else None
        return [TiffReader(path, replace(options, scene=scene), ome, own) for scene in chosen]


def _kind_of(axes: str, shape: Sequence[int]) -> tuple[bool, int]:
    """Return what images that are opened together agree in: whether they have Z, and channels."""
    size = dict(zip(axes, map(int, shape), strict=True))
    return size.get("Z", 1) > 1, size.get("C", 1) * size.get("S", 1)

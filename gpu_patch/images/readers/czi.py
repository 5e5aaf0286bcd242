"""CZI files by pylibCZIrw."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.readers._base import (
    ImageInfo,
    ImageReader,
    Key,
    Options,
    checked_level,
    chosen_scenes,
    reading,
)
from gpu_patch.images.readers._units import micrometres

_PIXELS = {
    "Gray8": ("uint8", 1),
    "Gray16": ("uint16", 1),
    "Gray32Float": ("float32", 1),
    "Bgr24": ("uint8", 3),
    "Bgr48": ("uint16", 3),
    "Bgr96Float": ("float32", 3),
}
"""Data type and colours of each type of pixel."""


class CziReader(ImageReader):
    """A scene of a CZI file; its time points are samples.

    Parameters
    ----------
    path : Path
        The file.
    options : Options
        `scene` is the number of the scene.
    """

    kind = "a CZI"

    def __init__(self, path: Path, options: Options) -> None:
        checked_level(path, options.level, 1)
        self._path, self._file = path, None
        with reading(path, self.kind):
            try:
                file = self._opened()
                scenes = file.scenes_bounding_rectangle
                numbers = sorted(scenes) or [None]
            except BaseException:
                self.close()
                raise
        try:
            (index,) = chosen_scenes(path, options.scene, [""] * len(numbers))
            self._scene = numbers[index]
            with reading(path, self.kind):
                self._area = file.total_bounding_rectangle if not scenes else scenes[self._scene]
                dtype, n_colours, sizes = self._described(file)
        finally:
            self.close()
        lengths = {**sizes, "Y": self._area.h, "X": self._area.w}
        if n_colours > 1:
            lengths["C"] = n_colours
        # a plane of one Z is 2D; colours come last, as they are stored
        order = "TCZYX" if n_colours == 1 else "TZYXC"
        axes = "".join(a for a in order if a in "YX" or lengths.get(a, 1) > 1)
        shape = tuple(lengths[axis] for axis in axes)
        if options.axes not in (None, axes):
            raise ValueError(
                f"{path} says its axes itself: give none, or {axes!r}, found {options.axes!r}"
            )
        chunk_shape = tuple(lengths[axis] if axis in "YX" else 1 for axis in axes)
        name = str(path) if len(numbers) == 1 else f"{path}, scene {self._scene}"
        super().__init__(
            ImageInfo(name, "CZI", shape, axes, dtype, chunk_shape, self._pixel_sizes, (path,)),
            path,
        )

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> Any:
        if self._file is None:
            self._file = _pylibczirw().CziReader(str(self._path))
        return self._file

    def _described(self, file: Any) -> tuple[np.dtype[Any], int, dict[str, int]]:
        kinds = set(file.pixel_types.values())
        if len(kinds) != 1 or not kinds <= set(_PIXELS):
            raise ValueError(f"its pixels are {sorted(kinds)}: they must be of one of the types "
                             f"{', '.join(_PIXELS)}")  # fmt: skip
        dtype, n_colours = _PIXELS[kinds.pop()]
        box = file.total_bounding_box
        sizes = {axis: stop - start for axis, (start, stop) in box.items() if axis not in "YX"}
        self._starts = {axis: start for axis, (start, _) in box.items() if axis not in "YX"}
        more = sorted(axis for axis in sizes if axis not in "TCZ" and sizes[axis] > 1)
        if more or (n_colours > 1 and sizes.get("C", 1) > 1):
            raise ValueError(
                f"its axes {''.join(more) or 'C, with colours,'} have no place in 'STCZYX': "
                "split it, with ZEN for example"
            )
        metadata: Any = file.metadata
        for name in ("ImageDocument", "Metadata", "Scaling", "Items"):
            metadata = (metadata or {}).get(name)
        found = (metadata or {}).get("Distance", [])
        distances = found if isinstance(found, list) else [found]
        self._pixel_sizes = micrometres(
            {entry["@Id"]: (entry.get("Value"), "m") for entry in distances}
        )
        return np.dtype(dtype), n_colours, sizes

    def _select(self, key: Key) -> NDArray[Any]:
        file, axes = self._opened(), self.info.axes
        part = dict(zip(axes, key, strict=True))
        rows, columns = part["Y"], part["X"]
        colours = part["C"] if axes.endswith("C") else slice(0, 1)
        roi = (
            self._area.x + columns.start,
            self._area.y + rows.start,
            columns.stop - columns.start,
            rows.stop - rows.start,
        )
        planes = [axis for axis in axes if axis in "TCZ" and not axes.endswith(axis)]
        out = np.empty([s.stop - s.start for s in key], self.info.dtype)
        for place in product(*(range(part[axis].start, part[axis].stop) for axis in planes)):
            plane = dict(self._starts) | {
                axis: self._starts.get(axis, 0) + at for axis, at in zip(planes, place, strict=True)
            }
            wanted = {axis: at for axis, at in plane.items() if axis in "TCZ"}
            found = file.read(roi=roi, plane=wanted, scene=self._scene)[..., ::-1]  # BGR
            at = tuple(at - part[a].start for a, at in zip(planes, place, strict=True))
            out[at] = found[..., colours] if axes.endswith("C") else found[..., 0]
        return out


def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the scenes of the file that `options.scene` means."""
    if options.scene != "all":
        return [CziReader(path, options)]
    with reading(path, CziReader.kind):
        file = _pylibczirw().CziReader(str(path))
        n_scenes = len(file.scenes_bounding_rectangle) or 1
        file.close()
    return [CziReader(path, replace(options, scene=scene)) for scene in range(n_scenes)]


def _pylibczirw() -> Any:
    try:
        from pylibCZIrw import czi
    except ImportError as error:
        raise ImportError(
            "reading CZI files needs pylibCZIrw: pip install 'gpu_patch[czi]'"
        ) from error
    return czi

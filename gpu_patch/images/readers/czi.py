"""CZI files by pylibCZIrw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument
from gpu_patch.images.readers.base import ImageReader, Key
from gpu_patch.images.readers.choices import checked_level, chosen_scenes
from gpu_patch.images.readers.info import Options, described, never_written
from gpu_patch.images.readers.paths import reading
from gpu_patch.images.readers.units import Calibration, micrometres, positions, seconds
from gpu_patch.optional import imported

_PIXELS = {
    "Gray8": ("uint8", 1),
    "Gray16": ("uint16", 1),
    "Gray32Float": ("float32", 1),
    "Bgr24": ("uint8", 3),
    "Bgr48": ("uint16", 3),
    "Bgr96Float": ("float32", 3),
}
"""Data type and colours of each type of pixel."""


@dataclass(frozen=True)
class _Scene:
    """What was acquired of one scene, by the directory of the file.

    Attributes
    ----------
    number : int or None
        None in a file without scenes.
    corner, size : tuple of int
        First pixel and size, YX, of the rectangle around its tiles at full resolution.
    planes : frozenset of tuple of int
        T, C and Z of the planes that have a tile.
    ranges : dict of str to range
        All T, C and Z between the first and the last.
    pixels : tuple of str
        Its types of pixels.
    others : str
        Axes beside those, of more than one pixel.
    """

    number: int | None
    corner: tuple[int, int]
    size: tuple[int, int]
    planes: frozenset[tuple[int, ...]]
    ranges: dict[str, range]
    pixels: tuple[str, ...]
    others: str

    def missing(self) -> str:
        """Say which planes were not acquired, "" where all were."""
        n_planes = prod(map(len, self.ranges.values()))
        if len(self.planes) == n_planes:
            return ""
        first = next(at for at in product(*self.ranges.values()) if at not in self.planes)
        named = ", ".join(f"{axis} {at}" for axis, at in zip("TCZ", first, strict=True))
        return (
            f"{n_planes - len(self.planes)} of {n_planes} planes were never written, the first is "
            f"{named}"
        )


class CziReader(ImageReader):
    """A scene of a CZI file; its time points are samples.

    A plane is there where the file has a tile of it. What other tiles leave empty is zero.

    Parameters
    ----------
    path : Path
        The file.
    options : Options
        `scene` is the number of the scene, as the file counts them.
    scenes : sequence of _Scene or None, default None
        What is known of the file already.
    """

    kind = "a CZI"

    def __init__(
        self, path: Path, options: Options, scenes: Sequence[_Scene] | None = None
    ) -> None:
        checked_level(path, options.level, 1)
        self._path, self._file = path, None
        try:
            with reading(path, self.kind):
                found = _scenes(self._opened()) if scenes is None else scenes
                metadata = _deeper(self._opened().metadata, "ImageDocument", "Metadata")
        finally:
            self.close()
        (self._scene,) = _chosen(path, found, options)
        name = str(path) if len(found) == 1 else f"{path}, scene {self._scene.number}"
        with reading(name, self.kind):
            dtype, n_colours = _pixel(self._scene)
        self._pixel_type = self._scene.pixels[0]
        lengths = {axis: len(along) for axis, along in self._scene.ranges.items()}
        lengths |= zip("YX", self._scene.size, strict=True)
        # libCZI gives the colours of a pixel as the last axis
        self._axes = "TCZYX" if n_colours == 1 else "TZYXC"
        if n_colours > 1:
            lengths["C"] = n_colours
        shape = tuple(lengths[axis] for axis in self._axes)
        remarks = []
        missing = self._scene.missing()
        if missing and not options.allow_missing_chunks:
            zeros = argument("allow_missing_chunks", True)
            raise ValueError(Message(f"{name}: {missing}: ", zeros, " takes zeros for them"))
        # scenes that the file lacks are reported once, with its first scene
        of_file = _lacking_named(found) if self._scene == found[0] else ""
        self._missing = " and ".join(filter(None, (missing, of_file)))
        if shorter := _shorter(self._scene, found):
            remarks.append(shorter)
        info = described(
            name,
            "CZI",
            self._axes,
            shape,
            options,
            dtype=dtype,
            chunk_shape=tuple(lengths[axis] if axis in "YX" else 1 for axis in self._axes),
            calibration=_calibration(metadata, self._scene),
            files=(path,),
            colours="RGB" if n_colours == 3 else "",
            remarks=remarks,
        )
        super().__init__(info, path, shape)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def missing(self) -> str:
        """Say how many planes were never written, and scenes of the file."""
        return self._missing

    def _opened(self) -> Any:
        if self._file is None:
            self._file = imported("pylibCZIrw.czi", "reading CZI files").CziReader(str(self._path))
        return self._file

    def _select(self, key: Key) -> NDArray[Any]:
        file, scene = self._opened(), self._scene
        part = dict(zip(self._axes, key, strict=True))
        has_colours = self._axes.endswith("C")
        colours = part.pop("C") if has_colours else slice(0, 1)
        rows, columns = part["Y"], part["X"]
        roi = (
            scene.corner[1] + columns.start,
            scene.corner[0] + rows.start,
            columns.stop - columns.start,
            rows.stop - rows.start,
        )
        out = np.zeros([s.stop - s.start for s in key], self.info.dtype)
        planes = out if has_colours else out[..., None]
        wanted = {axis: scene.ranges[axis][part[axis]] for axis in part if axis in "TCZ"}
        if has_colours:
            wanted["C"] = scene.ranges["C"]
        for place in product(*(enumerate(along) for along in wanted.values())):
            plane = {axis: at for axis, (_, at) in zip(wanted, place, strict=True)}
            if tuple(plane[axis] for axis in "TCZ") not in scene.planes:
                continue
            at = tuple(i for axis, (i, _) in zip(wanted, place, strict=True) if axis in part)
            found = file.read(roi=roi, plane=plane, scene=scene.number, pixel_type=self._pixel_type)
            planes[at] = found[..., ::-1][..., colours]  # BGR
        return out


def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the scenes of the file that `options.scene` means."""
    with reading(path, CziReader.kind):
        file = imported("pylibCZIrw.czi", "reading CZI files").CziReader(str(path))
        try:
            scenes = _scenes(file)
        finally:
            file.close()
    return [
        CziReader(path, replace(options, scene=scene.number), scenes)
        for scene in _chosen(path, scenes, options)
    ]


def _scenes(file: Any) -> list[_Scene]:
    """Return what a file has, by its directory: no pixel is read."""
    tiles: dict[int | None, list[tuple[dict[str, int], Any, str]]] = {}

    def note(_: int, tile: Any) -> bool:
        place = tile.coordinate.to_dict()
        tiles.setdefault(place.pop("S", None), []).append(
            (place, tile.logicalRect, tile.pixelType.name)
        )
        return True

    # layer 0 alone: tiles of lower resolutions may reach beyond the image
    file.enumerate_subblocks_subset(note, only_layer0=True)
    if not tiles:
        raise ValueError("it has no image")
    return [_scene(number, tiles[number]) for number in sorted(tiles, key=lambda n: n or 0)]


def _scene(number: int | None, tiles: Sequence[tuple[dict[str, int], Any, str]]) -> _Scene:
    places = [place for place, _, _ in tiles]
    areas = [(area.y, area.x, area.y + area.h, area.x + area.w) for _, area, _ in tiles]
    y, x = (min(area[i] for area in areas) for i in (0, 1))
    y_stop, x_stop = (max(area[i] for area in areas) for i in (2, 3))
    planes = frozenset(tuple(place.get(axis, 0) for axis in "TCZ") for place in places)
    ranges = {
        axis: range(min(along), max(along) + 1)
        for axis, along in zip("TCZ", zip(*planes, strict=True), strict=True)
    }
    others = {axis for place in places for axis in place if axis not in "TCZ"}
    several = sorted(a for a in others if len({place.get(a, 0) for place in places}) > 1)
    pixels = tuple(sorted({kind for _, _, kind in tiles}))
    return _Scene(
        number, (y, x), (y_stop - y, x_stop - x), planes, ranges, pixels, "".join(several)
    )


def _chosen(path: Path, scenes: Sequence[_Scene], options: Options) -> list[_Scene]:
    """Return the scenes that `options.scene` means, by their numbers in the file."""
    numbers = [scene.number or 0 for scene in scenes]
    if len(scenes) == 1 and options.scene in (None, 0, "all", *numbers):
        return list(scenes)
    lacking = _lacking(scenes)
    if options.scene in lacking or (
        lacking and options.scene == "all" and not options.allow_missing_chunks
    ):
        rest = Message(argument("allow_missing_chunks", True), " opens the others")
        if options.scene != "all":
            rest = Message(f"it has {', '.join(map(str, numbers))}")
        raise ValueError(Message(f"{path}: {_lacking_named(scenes)}: ", rest))
    if numbers == list(range(len(scenes))) or options.scene in (None, "all"):
        names = [""] * len(scenes)
        return [scenes[i] for i in chosen_scenes(path, options.scene, names)]
    if options.scene in numbers:
        return [scenes[numbers.index(options.scene)]]
    raise ValueError(f"{path} has no scene {options.scene!r}, only {', '.join(map(str, numbers))}")


def _lacking(scenes: Sequence[_Scene]) -> list[int]:
    """Return the numbers that a file passes over."""
    numbers = [scene.number or 0 for scene in scenes]
    return sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))


def _lacking_named(scenes: Sequence[_Scene]) -> str:
    lacking = [f"scene {number}" for number in _lacking(scenes)]
    return never_written("scenes", lacking, len(scenes) + len(lacking))


def _shorter(scene: _Scene, scenes: Sequence[_Scene]) -> str:
    """Say along what a scene has less than others of its file, "" where it has not."""
    less = []
    for axis, along in scene.ranges.items():
        most = max(len(other.ranges[axis]) for other in scenes)
        if len(along) < most:
            less.append(f"{len(along)} along {axis}, where others have up to {most}")
    return f"this scene has {' and '.join(less)}" if less else ""


def _pixel(scene: _Scene) -> tuple[np.dtype[Any], int]:
    """Return the data type and the number of colours of a scene."""
    if len(scene.pixels) != 1 or not set(scene.pixels) <= set(_PIXELS):
        raise ValueError(
            f"its pixels are {list(scene.pixels)}: they must be of one of the types "
            f"{', '.join(_PIXELS)}"
        )
    dtype, n_colours = _PIXELS[scene.pixels[0]]
    if scene.others or (n_colours > 1 and len(scene.ranges["C"]) > 1):
        raise ValueError(
            f"its axes {scene.others or 'C, with colours,'} have no place in 'STCZYX': split it, "
            "with ZEN for example"
        )
    return np.dtype(dtype), n_colours


def _calibration(metadata: Any, scene: _Scene) -> Calibration:
    distances = _items(_deeper(metadata, "Scaling", "Items"), "Distance")
    sizes = micrometres({entry.get("@Id", ""): (entry.get("Value"), "m") for entry in distances})
    dimensions = _deeper(metadata, "Information", "Image", "Dimensions")
    interval = _deeper(dimensions, "T", "Positions", "Interval").get("Increment")
    origin: dict[str, float] = {}
    for entry in _items(_deeper(dimensions, "S", "Scenes"), "Scene"):
        if str(entry.get("@Index")) == str(scene.number or 0):
            # the file has X,Y of the scene's middle
            middle = str(entry.get("CenterPosition", "")).split(",")
            centre = positions({a: (at, "µm") for a, at in zip("XY", middle, strict=False)})
            extent = dict(zip("YX", scene.size, strict=True))
            origin = {
                axis: at - sizes[axis] * (extent[axis] - 1) / 2
                for axis, at in centre.items()
                if axis in sizes
            }
    return Calibration(sizes, origin, seconds(interval, "s"))


def _deeper(metadata: Any, *names: str) -> dict[str, Any]:
    """Return an element of the metadata by the names on the way, empty where it is not there."""
    for name in names:
        metadata = metadata.get(name) if isinstance(metadata, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _items(metadata: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the elements of a name, one or several."""
    found = metadata.get(name, [])
    return [
        each for each in (found if isinstance(found, list) else [found]) if isinstance(each, dict)
    ]

"""LIF and LOF files of Leica: liffile tells where the pixels are, and they are read from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.axes import AXES
from gpu_patch.images.readers.base import ImageReader, Key
from gpu_patch.images.readers.choices import checked_level, chosen_scenes
from gpu_patch.images.readers.flat import check_length, read_plain
from gpu_patch.images.readers.info import Options, described, foreign_axes, with_single_axes
from gpu_patch.images.readers.paths import reading
from gpu_patch.images.readers.units import Calibration, micrometres, positions, seconds
from gpu_patch.optional import imported

_DIMENSIONS = {"1": "X", "2": "Y", "3": "Z", "4": "T"}
"""Axes by their DimID in the file's XML."""
_FOREIGN = {
    "λ": "emission wavelength",
    "Λ": "excitation wavelength",
    "A": "rotation",
    "N": "slices of XT",
    "Q": "slices of T",
    "M": "tiles of a mosaic, or positions",
    "L": "loop",
    "S": "colours beside channels",
}
"""What liffile's axes are that have no place here."""
_BLUE, _GREEN, _RED = "3", "2", "1"
"""Values of ChannelTag."""


@dataclass(frozen=True)
class _Layout:
    """Where the pixels of an image are in its file: one array in C order.

    Attributes
    ----------
    axes : tuple of str
        liffile's names of them.
    shape : tuple of int
        Their lengths.
    stored : tuple of int
        As `shape`, with the pixels that fill up rows of colours.
    dtype : numpy.dtype
        Of a pixel.
    offset : int
        First byte.
    colours : str
        "RGB" or "BGR" as they lie in the file, else "".
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    stored: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    colours: str


class LifReader(ImageReader):
    """An image of a LIF file, or that of a LOF file.

    Parameters
    ----------
    path : Path
        The file.
    options : Options
        Its scene is chosen already.
    image : liffile.LifImage
        Of the file, which may be closed.
    name : str
        What messages call it.
    """

    kind = "a LIF"

    def __init__(self, path: Path, options: Options, image: Any, name: str) -> None:
        with reading(name, self.kind):
            layout = _layout(image)
            calibration = _calibration(image.xml_element)
        has_colours = "S" in layout.axes and "C" not in layout.axes
        axes = tuple("C" if axis == "S" and has_colours else axis for axis in layout.axes)
        shape, stated = layout.shape, "".join(axes)
        if not set(axes) <= set(AXES) or "S" in axes:
            if options.axes is None:
                raise foreign_axes(name, axes, shape, _FOREIGN)
            stated = ""
        else:
            stated, shape = with_single_axes(stated, shape)
        row = shape[-2:] if has_colours else shape[-1:]
        info = described(
            name,
            "LIF" if path.suffix.lower() != ".lof" else "LOF",
            stated,
            shape,
            options,
            dtype=layout.dtype,
            chunk_shape=(*[1] * (len(shape) - len(row)), *row),
            calibration=calibration,
            files=(path,),
            colours="RGB" if layout.colours else "",
        )
        super().__init__(info, path, layout.shape)
        self._path, self._layout = path, layout

    def check(self) -> None:
        """Raise where the file is too short."""
        with reading(self.info.path, self.kind):
            layout = self._layout
            length = self._path.stat().st_size
            check_length(length, layout.offset, layout.stored, layout.dtype)

    def _select(self, key: Key) -> NDArray[Any]:
        layout = self._layout
        is_bgr = layout.colours == "BGR"
        if is_bgr:
            colours = key[-1]
            key = (*key[:-1], slice(3 - colours.stop, 3 - colours.start))
        with self._path.open("rb") as file:
            found = read_plain(file.fileno(), layout.offset, layout.stored, layout.dtype, key)
        return found[..., ::-1] if is_bgr else found


def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the images of the file that `options.scene` means, by number, path or name."""
    checked_level(path, options.level, 1)
    liffile = imported("liffile", "reading LIF files")
    with reading(path, LifReader.kind), liffile.LifFile(path) as file:
        images = list(file.images)
        n_described = sum(
            element.find("./Data/Image") is not None for element in file.xml_element.iter("Element")
        )
    if not images:
        raise ValueError(f"{path} has no image")
    if n_described > len(images):
        raise ValueError(
            f"{path} has several images of one name, of which liffile gives the last only: rename "
            "them in LAS X"
        )
    names = [image.path for image in images]
    readers: list[ImageReader] = []
    for i in chosen_scenes(path, options.scene, names):
        name = str(path) if len(images) == 1 else f"{path}, {names[i]}"
        if images[i].is_flim:
            raise ValueError(
                f"{name} holds photons by time (FLIM): export its intensities from LAS X"
            )
        readers.append(LifReader(path, options, images[i], name))
    return readers


def _layout(image: Any) -> _Layout:
    """Return where an image is; by liffile's sizes, and what it keeps to itself by the XML."""
    sizes: Mapping[str, int] = image.sizes
    axes, shape = tuple(sizes), tuple(map(int, sizes.values()))
    try:
        block = image.memory_block
    except KeyError as error:
        raise ValueError(
            f"its pixels, {error}, are not in this file, which may be cut short"
        ) from None
    if block.offset < 0 or not block.size:
        raise ValueError("its pixels are not in this file")
    dtype = np.dtype(image.dtype)
    stored, colours = list(shape), ""
    if axes[-1:] == ("S",) and shape[-1] == 3:
        tags = [tag for _, tag in sorted(_channels(image.xml_element))][:3]
        colours = "BGR" if tags == [_BLUE, _GREEN, _RED] else "RGB"
    if axes[-1:] == ("S",) and "Y" in axes:
        # rows of colours are filled up to a multiple of four bytes
        (row,) = (int(d.get("BytesInc")) for d in _dimensions(image.xml_element).get("Y", ())[:1])
        stored[axes.index("X")] = row // (shape[-1] * dtype.itemsize)
    return _Layout(axes, shape, tuple(stored), dtype, int(block.offset), colours)


def _channels(element: Any) -> list[tuple[int, str]]:
    found = element.findall("./Data/Image/ImageDescription/Channels/ChannelDescription")
    return [(int(each.get("BytesInc")), each.get("ChannelTag")) for each in found]


def _dimensions(element: Any) -> dict[str, list[Any]]:
    """Return the descriptions of X, Y, Z and T."""
    found: dict[str, list[Any]] = {}
    for each in element.findall("./Data/Image/ImageDescription/Dimensions/DimensionDescription"):
        axis = _DIMENSIONS.get(each.get("DimID"))
        if axis:
            found.setdefault(axis, []).append(each)
    return found


def _calibration(element: Any) -> Calibration:
    """Return the distances of pixels and frames, from the first to the last; and where it is."""
    steps: dict[str, tuple[float, str]] = {}
    starts: dict[str, tuple[float, str]] = {}
    for axis, (each, *_) in _dimensions(element).items():
        n, unit = int(each.get("NumberOfElements")), each.get("Unit", "")
        if n > 1:
            # stacks that are recorded downwards have a negative length
            steps[axis] = abs(float(each.get("Length"))) / (n - 1), unit
        if axis != "T":
            starts[axis] = float(each.get("Origin")), unit
    tiles: Sequence[Any] = element.findall("./Data/Image/Attachment[@Name='TileScanInfo']/Tile")
    if len(tiles) == 1:  # the position of a stage, in metres
        at = {axis: tiles[0].get(f"Pos{axis}") for axis in "XYZ"}
        starts |= {axis: (float(where), "m") for axis, where in at.items() if where is not None}
    interval = seconds(*steps.pop("T", (None, None)))
    return Calibration(micrometres(steps), positions(starts), interval)

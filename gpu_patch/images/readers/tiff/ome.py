"""OME-XML that says in which files, and where in them, the planes of images lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images.readers.paths import inside
from gpu_patch.images.readers.units import Calibration, micrometres, positions, seconds

COMPANION = ".ome"
"""Ending of files with nothing but OME-XML."""

_MOST_PLANES = 10**7

Element: TypeAlias = "ElementTree.Element[str]"


@dataclass(frozen=True)
class OmeImage:
    """An image and the places of its planes.

    Attributes
    ----------
    name : str
        As written, often "".
    axes : str
        Outermost first, Y and X last; C counts channels, not the colours of a pixel.
    shape : tuple of int
        In the order of `axes`.
    file_of : array of int
        Number in `OmeSet.files` for each plane, outermost axis first; −1 where none is named.
    page_of : array of int
        Number of the page in that file.
    calibration : Calibration
        What is written of it.
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    file_of: NDArray[np.int32]
    page_of: NDArray[np.int64]
    calibration: Calibration


@dataclass(frozen=True)
class OmeSet:
    """Images whose planes lie in several files.

    Attributes
    ----------
    described : Path
        The file with the OME-XML: one of those with planes, or a companion.
    files : tuple of Path
        Those with planes, whether they are there or not.
    images : tuple of OmeImage
        In the order of the OME-XML.
    renamed : bool
        Whether the OME-XML calls the file by another name, and tells nothing else of it.
    """

    described: Path
    files: tuple[Path, ...]
    images: tuple[OmeImage, ...]
    renamed: bool = False

    @property
    def members(self) -> tuple[Path, ...]:
        """All files of the set."""
        return tuple(dict.fromkeys((self.described, *self.files)))


def parsed(text: str) -> Element | None:
    """Return the root of OME-XML, None where it is none: then pages are taken as they are."""
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None


def metadata_file(path: Path, root: Element, *, allow_outside: bool) -> Path | None:
    """Return the file that describes `path`, None where it describes itself."""
    for element in _children(root, "BinaryOnly"):
        name = element.get("MetadataFile")
        if name:
            return inside(path.parent, name, f"{path}: its OME-XML", allow=allow_outside)
    return None


def find_set(
    path: Path, root: Element, n_pages: Callable[[Path], int], who: str, *, allow_outside: bool
) -> OmeSet | None:
    """Return what the OME-XML of a file describes, None where it names no other file.

    Parameters
    ----------
    path : Path
        The file with the OME-XML.
    root : Element
        Its root.
    n_pages : callable
        Returns the number of pages of a file.
    who : str
        What errors call the OME-XML.
    allow_outside : bool
        Whether files outside of the folder of `path` may be named.

    Raises
    ------
    ValueError
        It names files outside of the folder, or no sensible sizes.
    """
    names = _Names(path, root, who, allow_outside=allow_outside)
    if names.are_own:
        return None
    images = tuple(
        _image(image, pixels, names, n_pages)
        for image in _children(root, "Image")
        for pixels in _children(image, "Pixels")
    )
    return OmeSet(path, tuple(names.files), images, names.renamed)


class _Names:
    """Numbers the files that OME-XML names."""

    def __init__(self, path: Path, root: Element, who: str, *, allow_outside: bool) -> None:
        self._path, self._who, self._allow_outside = path, who, allow_outside
        self._uuid = root.get("UUID")
        self.files: dict[Path, int] = {}
        places = [(u.text, u.get("FileName", "")) for u in root.iter() if _is(u, "UUID")]
        named = {name for _, name in places if name}
        self._has_pages = path.suffix.lower() != COMPANION
        # the XML of a renamed or copied file still names it by its old name
        self._old_name: str | None = None
        self.renamed = False
        if self._has_pages and not any(map(self._is_own, named)):
            own = {name for uuid, name in places if name and uuid and uuid == self._uuid}
            if len(own) == 1:
                (self._old_name,) = own
            elif len(named) == 1 and not any((path.parent / name).exists() for name in named):
                (self._old_name,) = named
                self.renamed = True
        # tifffile follows the XML's names and UUIDs to other files: only where every place in it is
        # this very file, tifffile may read it
        known = {path.name} | {(self._uuid, name) for name in (self._old_name, "") if self._uuid}
        self.are_own = self._has_pages and all(
            name in known or (uuid, name) in known for uuid, name in places
        )

    def number(self, data: Element) -> int:
        """Return the number of the file that a TiffData names, −1 for none."""
        uuid = next(_children(data, "UUID"), None)
        name = "" if uuid is None else uuid.get("FileName", "")
        if uuid is None or (not name and uuid.text == self._uuid):
            file = self._path if self._has_pages else None
        elif not name:
            file = None
        elif self._has_pages and (name == self._old_name or self._is_own(name)):
            file = self._path
        else:
            file = inside(self._path.parent, name, self._who, allow=self._allow_outside)
        return -1 if file is None else self.files.setdefault(file, len(self.files))

    def _is_own(self, name: str) -> bool:
        own = self._path.name
        return name == own or (
            name.lower() == own.lower() and not (self._path.parent / name).exists()
        )


def _image(
    image: Element, pixels: Element, names: _Names, n_pages: Callable[[Path], int]
) -> OmeImage:
    axes = pixels.attrib["DimensionOrder"][::-1]
    if len(axes) != 5 or sorted(axes[:3]) != ["C", "T", "Z"] or axes[3:] != "YX":
        raise ValueError(f"its OME-XML says DimensionOrder {axes[::-1]!r}")
    sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in axes}
    channel = next(_children(pixels, "Channel"), None)
    n_colours = 1 if channel is None else int(channel.get("SamplesPerPixel", 1))
    if n_colours < 1 or min(sizes.values()) < 1 or sizes["C"] % n_colours:
        raise ValueError(f"its OME-XML says the sizes {sizes}, {n_colours} samples per pixel")
    sizes["C"] //= n_colours
    outer = [sizes[axis] for axis in axes[:-2]]
    n_planes = prod(outer)
    if n_planes > _MOST_PLANES:
        raise ValueError(f"its OME-XML says that it has {n_planes:,} planes")
    file_of = np.full(n_planes, -1, np.int32)
    page_of = np.zeros(n_planes, np.int64)
    last_count = 1
    for data in _children(pixels, "TiffData"):
        place = [int(data.get(f"First{axis}", 0)) for axis in axes[:-2]]
        if any(not 0 <= at < n for at, n in zip(place, outer, strict=True)):
            continue  # ImageJ writes such places when it crops
        page = int(data.get("IFD", 0))
        count = int(data.get("PlaneCount", data.get("NumPlanes", int("IFD" in data.attrib))))
        file = names.number(data)
        if not count:  # all planes of the file
            path = None if file < 0 else list(names.files)[file]
            count = n_pages(path) - page if path is not None and path.is_file() else last_count
        if min(page, count) < 0:
            raise ValueError(f"its OME-XML says {dict(data.attrib)}")
        last_count = count
        start = int(np.ravel_multi_index(place, outer))
        stop = min(start + count, n_planes)
        file_of[start:stop] = file
        page_of[start:stop] = np.arange(page, page + stop - start)
    return OmeImage(
        image.get("Name", ""),
        axes,
        tuple(sizes[axis] for axis in axes),
        file_of,
        page_of,
        calibration(pixels),
    )


def calibration(pixels: Element) -> Calibration:
    """Return what an element Pixels says of sizes and time, and where its first plane is."""
    found = pixels.attrib
    plane = next(_children(pixels, "Plane"), None)
    at = {} if plane is None else plane.attrib
    return Calibration(
        micrometres(
            {
                axis: (found.get(f"PhysicalSize{axis}"), found.get(f"PhysicalSize{axis}Unit", "µm"))
                for axis in "ZYX"
            }
        ),
        # without a unit it is in that of the stage, which nobody knows
        positions({a: (at.get(f"Position{a}"), at.get(f"Position{a}Unit")) for a in "ZYX"}),
        seconds(found.get("TimeIncrement"), found.get("TimeIncrementUnit", "s")),
    )


def pixels_of(text: str) -> list[Element]:
    """Return the elements Pixels of OME-XML, one per image; none where it is no XML."""
    root = parsed(text)
    return [] if root is None else [element for element in root.iter() if _is(element, "Pixels")]


def _children(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element if _is(child, name))


def _is(element: Element, name: str) -> bool:
    """Tell what an element is, whichever year its namespace is of."""
    return element.tag.rpartition("}")[2] == name

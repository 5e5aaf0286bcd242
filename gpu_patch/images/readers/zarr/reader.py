"""An array of a Zarr as an image, and which arrays are meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument, shorten
from gpu_patch.images.axes import AXES
from gpu_patch.images.readers.base import FastReader, ImageReader, Key, file_stamp
from gpu_patch.images.readers.choices import checked_level, chosen_scenes
from gpu_patch.images.readers.info import Options, along, described, never_written
from gpu_patch.images.readers.paths import inside, reading
from gpu_patch.images.readers.units import Calibration, micrometres, positions, seconds
from gpu_patch.images.readers.url import Url
from gpu_patch.images.readers.zarr.chunks import ChunkFiles
from gpu_patch.images.readers.zarr.direct import direct_chunks
from gpu_patch.images.readers.zarr.fast import open_fast
from gpu_patch.images.readers.zarr.fetched import Fetched
from gpu_patch.images.readers.zarr.place import Folder, Zipped
from gpu_patch.images.readers.zarr.remote import FarRegions, Remote
from gpu_patch.images.readers.zarr.server import server_of

_KIND = "Zarr"
_MOST_LOOKED_AT = 1 << 18
"""Regions of which is remembered that their chunks seem right."""
_LETTERS = {"time": "T", "channel": "C"}
"""Types of OME-NGFF axes that mean one letter, whatever the axis is called."""


class ZarrReader(ImageReader):
    """A Zarr array, or one resolution level of an OME-Zarr image.

    A chunk that was never written is the fill value, says the format, but it cannot be told from
    one that got lost: so it is an error unless `Options.allow_missing_chunks`. A chunk missing
    inside a shard is the fill value always, because the shard's index, which has a checksum, says
    that it was left out.

    A Zarr has no date: chunks that are rewritten while it is read are not noticed, only changes of
    its metadata are.

    Parameters
    ----------
    place : Folder
        That of the array, or of the image.
    options : Options
        `level` chooses the resolution of an image.
    """

    kind = _KIND

    def __init__(self, place: Folder, options: Options) -> None:
        self._place = place
        try:
            self._describe(place, options)
        finally:
            self._place.close()

    def _describe(self, place: Folder, options: Options) -> None:
        path = place.path
        with reading(path, _KIND):
            node = place.node()
            attributes = node.attrs.asdict()
            image = _multiscale(attributes)
            if hasattr(node, "shape"):
                checked_level(path, options.level, 1)
                array, calibration = node, Calibration()
                axes = _dimension_names(node, attributes)
            elif image is not None:
                levels = image["datasets"]
                level = levels[checked_level(path, options.level, len(levels))]
                who = f"{path}: its multiscales"
                inside(place.file, level["path"], who, allow=options.allow_outside)
                place.close()
                self._place = place.at(level["path"])
                array = self._place.node()
                axes = _letters(image.get("axes", ()))
                calibration = _calibration(image, level)
            else:
                raise ValueError(_no_image(place, node))
            self._files = ChunkFiles(array, self._place)
            shape = tuple(map(int, array.shape))
            axes = axes if len(set(axes)) == len(axes) == len(shape) else ""
            version = array.metadata.zarr_format
            version_of_ome = attributes.get("ome", image or {}).get("version", "") if image else ""
        kind = f"OME-Zarr {version_of_ome}".strip() if image else "Zarr"
        name = f"{path}, level {options.level}" if options.level else str(path)
        info = described(
            name,
            f"{kind} (v{version}{', sharded' if array.shards else ''})",
            axes,
            shape,
            options,
            dtype=np.dtype(array.dtype),
            chunk_shape=tuple(array.chunks),
            calibration=calibration,
            files=(*place.files, *self._place.files),
        )
        watched = self._place.watched("zarr.json" if version == 3 else ".zarray")
        super().__init__(info, watched, shape)
        self._array = array
        self._allow_missing = options.allow_missing_chunks
        self._looked_at: set[tuple[int, ...]] = set()

    def close(self) -> None:
        """Let go of an archive."""
        self._place.close()

    def _select(self, key: Key) -> NDArray[Any]:
        with self._files.at_hand(key):
            if not self._allow_missing:
                self._check_chunks(key)
            self._files.check(key)
            return np.asarray(self._array[key])

    @property
    def is_far(self) -> bool:
        """Whether the array is on a server."""
        return self._place.is_far

    def fast(self) -> FastReader | None:
        """Return what reads faster than zarr-python; of a server, several regions at a time."""
        if self.is_far and self.info.dtype == self.info.resident_dtype:
            return FarRegions(self.read)
        if type(self._place) is not Folder:
            return None
        folder, missing = self._place.file, self._allow_missing
        array, info = self._array, self.info
        direct = direct_chunks(folder, array, info, self._is_as_opened, fill_missing=missing)
        return direct or open_fast(
            folder,
            array.metadata.zarr_format,
            info,
            array.shape,
            self._may_read,
            fill_missing=missing,
        )

    def _is_as_opened(self) -> bool:
        """Tell whether the array's description has not changed."""
        return all(file_stamp(path) == stamp for path, stamp in self.stamps.items())

    def _may_read(self, region: Sequence[slice]) -> bool:
        """Tell whether nothing is wrong with the chunks of a canonical region, at first sight."""
        if not self._is_as_opened():
            return False
        first = tuple([part.start for part in region])
        if first in self._looked_at:  # that chunks are rewritten is not noticed anyway
            return True
        wanted = dict(zip(self.info.canonical_axes, region, strict=True))
        samples = "T" if self.info.size("T") > 1 else "S"
        wanted[samples] = wanted["S"]
        key = [wanted.get(axis, slice(0, 1)) for axis in self.info.axes]
        stored = along(key, self.info.shape, self._stored_shape, slice(0, 1))
        if not self._files.seem_right(stored, missing_too=self._allow_missing):
            return False
        if len(self._looked_at) < _MOST_LOOKED_AT:
            self._looked_at.add(first)
        return True

    def missing(self) -> str:
        """Say how many chunks were never written."""
        with reading(self.info.path, self.kind):
            stored, shape = self._stored_chunks, self._array.shape
            n_chunks = prod(-(-length // n) for length, n in zip(shape, stored, strict=True))
            missing = self._place.missing(self._names([slice(0, length) for length in shape]))
        return never_written("shards" if self._array.shards else "chunks", missing, n_chunks)

    def _check_chunks(self, key: Key) -> None:
        for name in self._names(key):
            # a file of 0 bytes counts as never written: zarr reads an empty shard as fill values
            if self._place.size(name):
                continue
            raise ValueError(
                Message(
                    f"its chunk {name} is missing. Where the writer left out chunks of nothing but "
                    f"the fill value {self._array.fill_value}, ",
                    argument("allow_missing_chunks", True),
                    " reads them as such",
                )
            )

    @property
    def _stored_chunks(self) -> tuple[int, ...]:
        return tuple(self._array.shards or self._array.chunks)

    def _names(self, key: Sequence[slice]) -> Iterator[str]:
        """Yield the names of a part's chunks, or shards."""
        places = [
            range(part.start // n, -(-part.stop // n))
            for part, n in zip(key, self._stored_chunks, strict=True)
        ]
        for place in product(*places):
            yield self._array.metadata.encode_chunk_key(place)


def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the array, the image, or those of its images that `options.scene` means.

    All fields of a plate or of a well are meant where it says none.
    """
    with reading(path, _KIND):
        place = Folder(path) if path.is_dir() else Zipped.outermost(path)
    return _open(place, options)


def open_url(url: Url, options: Options) -> list[ImageReader]:
    """Do the same with a Zarr on a server."""
    return _open(Remote(Fetched(server_of(url))), options)


def _open(place: Folder, options: Options) -> list[ImageReader]:
    with reading(place.path, _KIND):
        try:
            node = place.node()
            attributes = node.attrs.asdict()
            fields = _fields(place, node, options)
            names = fields or _scenes(place, node, attributes)
        finally:
            place.close()
    if not names:
        return [ZarrReader(place, options)]
    scene = "all" if fields and options.scene is None else options.scene
    alone = replace(options, scene=None)
    return [ZarrReader(place.at(names[i]), alone) for i in chosen_scenes(place.path, scene, names)]


def _fields(place: Folder, node: Any, options: Options) -> list[str]:
    """Return the names of the fields of a plate or a well, none where it is neither."""
    ome = _ome(node.attrs.asdict())
    if hasattr(node, "shape") or ("plate" not in ome and "well" not in ome):
        return []
    wells = [well["path"] for well in ome.get("plate", {}).get("wells", ())] or [""]
    names, missing = [], []
    for well in wells:
        inside(place.file, well, f"{place.path}: its plate", allow=options.allow_outside)
        if well and well not in node:
            missing.append(f"well {well}")
            continue
        images = _ome((node[well] if well else node).attrs.asdict()).get("well", {})
        for field in images.get("images", ()):
            name = "/".join(filter(None, (well, field["path"])))
            inside(place.file, name, f"{place.path}: its well", allow=options.allow_outside)
            if name in node:
                names.append(name)
            else:
                missing.append(f"field {name}")
    if missing and not options.allow_missing_chunks:
        reason = never_written("wells and fields", missing, len(names) + len(missing))
        raise ValueError(
            Message(f"{reason}: ", argument("allow_missing_chunks", True), " opens the others")
        )
    if not names:
        raise ValueError("it is a plate without fields")
    return names


def _ome(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the OME metadata, which 0.5 put under a key of their own."""
    found = attributes.get("ome", attributes)
    return found if isinstance(found, Mapping) else attributes


def _multiscale(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    images = _ome(attributes).get("multiscales")
    return images[0] if images else None


def _scenes(place: Folder, node: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Return the names of the images of a group as bioformats2raw makes it, and of labels."""
    ome = _ome(attributes)
    if hasattr(node, "shape"):
        return []
    if "bioformats2raw.layout" in ome:
        return sorted(filter(str.isdigit, place.names()), key=int)
    labels = ome.get("labels")
    if isinstance(labels, list) and "multiscales" not in ome:
        return [name for name in map(str, labels) if name in node]
    return []


def _letters(axes: Sequence[Any]) -> str:
    """Return the axes of OME-NGFF as letters, "" where one of them has none."""
    found = ""
    for axis in axes:
        letter = _letter(axis if isinstance(axis, Mapping) else {"name": axis})
        if letter is None:
            return ""
        found += letter
    return found


def _letter(axis: Mapping[str, Any]) -> str | None:
    name = str(axis["name"]).upper()
    return name if len(name) == 1 and name in AXES else _LETTERS.get(axis.get("type", ""))


def _dimension_names(array: Any, attributes: Mapping[str, Any]) -> str:
    """Return the names of format 3, or those that xarray writes into format 2."""
    names = getattr(array.metadata, "dimension_names", None)
    names = names or attributes.get("_ARRAY_DIMENSIONS") or ()
    return "" if None in names else _letters(names)


def _calibration(image: Mapping[str, Any], level: Mapping[str, Any]) -> Calibration:
    """Return what the transformations of a level say, and those of the image that follow them."""
    axes = [axis for axis in image.get("axes", ()) if isinstance(axis, Mapping)]
    scale, shift = [1.0] * len(axes), [0.0] * len(axes)
    moved = False
    for transform in (t for of in (level, image) for t in of.get("coordinateTransformations", ())):
        kind = transform["type"]
        if kind not in ("scale", "translation") or kind not in transform:
            continue
        for i, (_, number) in enumerate(zip(axes, transform[kind], strict=True)):
            if kind == "scale":
                scale[i], shift[i] = scale[i] * number, shift[i] * number
            else:
                shift[i], moved = shift[i] + number, True
    letters = list(map(_letter, axes))
    units = [axis.get("unit") for axis in axes]
    at = {a: i for i, a in enumerate(letters) if a is not None}
    return Calibration(
        micrometres({a: (scale[at[a]], units[at[a]]) for a in "ZYX" if a in at}),
        positions({a: (shift[at[a]], units[at[a]]) for a in "ZYX" if a in at and moved}),
        seconds(scale[at["T"]], units[at["T"]]) if "T" in at else None,
    )


def _no_image(place: Folder, group: Any) -> str:
    """Say which images and arrays are in a group, the uppermost."""
    if not group.store.supports_listing:
        return "it is a group, and not of one image: name what is inside"
    found: list[str] = []
    groups = [("", group)]
    while groups and not found:
        deeper = []
        for start, node in groups:
            for name, child in sorted(node.members()):
                path = f"{start}{name}"
                is_image = hasattr(child, "shape") or {"multiscales", "plate", "well"} & set(
                    _ome(child.attrs.asdict())
                )
                if is_image:
                    found.append(path)
                else:
                    deeper.append((f"{path}/", child))
        groups = deeper
    if not found:
        return "it is a group without images"
    if isinstance(place, Zipped):
        return f"it is a group, of {shorten(found, 200)}: unpack it, and name what is inside"
    return (
        f"it is a group: name what is inside, such as '{place.at(found[0]).path}', of "
        + shorten(found, 200)
    )

"""Zarr by zarr-python: OME-Zarr 0.4 and 0.5, plain arrays, formats 2 and 3, sharded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.errors import argument, shorten
from gpu_patch.images._axes import AXES
from gpu_patch.images.readers._base import (
    ImageReader,
    Key,
    Options,
    checked_file,
    checked_level,
    chosen_scenes,
    described,
    inside,
    never_written,
    reading,
)
from gpu_patch.images.readers._units import Calibration, micrometres, positions, seconds
from gpu_patch.images.readers._zarr_chunks import ChunkFiles

METADATA = ("zarr.json", ".zarray", ".zgroup")
"""A folder with one of these is an array or a group."""

_KIND = "Zarr"
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
    path : Path
        The folder of the array, or of the image.
    options : Options
        `level` chooses the resolution of an image.
    """

    kind = _KIND

    def __init__(self, path: Path, options: Options) -> None:
        with reading(path, _KIND):
            node = _opened(path)
            attributes = node.attrs.asdict()
            image = _multiscale(attributes)
            if hasattr(node, "shape"):
                checked_level(path, options.level, 1)
                array, folder, calibration = node, path, Calibration()
                axes = _dimension_names(node, attributes)
            elif image is not None:
                levels = image["datasets"]
                level = levels[checked_level(path, options.level, len(levels))]
                who = f"{path}: its multiscales"
                folder = inside(path, level["path"], who, allow=options.allow_outside)
                array = _opened(folder)
                axes = _letters(image.get("axes", ()))
                calibration = _calibration(image, level)
            else:
                raise ValueError(_no_image(path, node, attributes))
            self._files = ChunkFiles(array, folder)
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
            files=(path, folder),
        )
        super().__init__(info, folder / ("zarr.json" if version == 3 else ".zarray"), shape)
        self._array, self._folder = array, folder
        self._allow_missing = options.allow_missing_chunks

    def _select(self, key: Key) -> NDArray[Any]:
        if not self._allow_missing:
            self._check_chunks(key)
        self._files.check(key)
        return np.asarray(self._array[key])

    def missing(self) -> str:
        """Say how many chunks were never written."""
        with reading(self.info.path, self.kind):
            stored, shape = self._stored_chunks, self._array.shape
            n_chunks = prod(-(-length // n) for length, n in zip(shape, stored, strict=True))
            missing = list(self._missing_chunks([slice(0, length) for length in shape]))
        return never_written("shards" if self._array.shards else "chunks", missing, n_chunks)

    def _check_chunks(self, key: Key) -> None:
        for name in self._missing_chunks(key):
            raise ValueError(
                f"its chunk {name} is missing. Where the writer left out chunks of nothing but "
                f"the fill value {self._array.fill_value}, "
                f"{argument('allow_missing_chunks', True)} reads them as such"
            )

    @property
    def _stored_chunks(self) -> tuple[int, ...]:
        return tuple(self._array.shards or self._array.chunks)

    def _missing_chunks(self, key: Sequence[slice]) -> Iterator[str]:
        """Yield the names of those that a part lacks."""
        places = [
            range(part.start // n, -(-part.stop // n))
            for part, n in zip(key, self._stored_chunks, strict=True)
        ]
        for place in product(*places):
            name = self._array.metadata.encode_chunk_key(place)
            file = self._folder / name
            # an empty one is no chunk; zarr takes an empty shard for one without chunks
            if not file.exists() or not file.stat().st_size:
                yield name


def open_all(path: Path, options: Options) -> list[ImageReader]:
    """Return the array, the image, or those of its images that `options.scene` means."""
    with reading(path, _KIND):
        node = _opened(path)
        attributes = node.attrs.asdict()
        names = _scenes(path, node, attributes)
    chosen = chosen_scenes(path, options.scene, names or [""])
    if not names:
        return [ZarrReader(path, options)]
    alone = replace(options, scene=None)
    return [ZarrReader(path / names[scene], alone) for scene in chosen]


def _opened(path: Path) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ImportError("reading Zarr needs zarr 3: pip install 'gpu_patch[io]'") from error
    if int(zarr.__version__.partition(".")[0]) < 3:
        raise ImportError(
            f"reading Zarr needs zarr 3, found {zarr.__version__}: pip install 'gpu_patch[io]'"
        )
    for name in (*METADATA, ".zattrs", ".zmetadata"):
        if (path / name).exists():
            checked_file(path / name)
    if not any((path / name).is_file() for name in METADATA):
        raise ValueError(f"'{path.name}' has none of the files {', '.join(METADATA)}")
    return zarr.open(path, mode="r")


def _ome(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the OME metadata, which 0.5 put under a key of their own."""
    found = attributes.get("ome", attributes)
    return found if isinstance(found, Mapping) else attributes


def _multiscale(attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    images = _ome(attributes).get("multiscales")
    return images[0] if images else None


def _scenes(path: Path, node: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Return the names of the images of a group as bioformats2raw makes it."""
    if "bioformats2raw.layout" not in _ome(attributes) or hasattr(node, "shape"):
        return []
    names = (entry.name for entry in path.iterdir() if entry.name.isdigit())
    return sorted(names, key=int)


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


def _no_image(path: Path, group: Any, attributes: Mapping[str, Any]) -> str:
    ome = _ome(attributes)
    inside = [entry["path"] for entry in ome.get("plate", {}).get("wells", ())]
    inside += [entry["path"] for entry in ome.get("well", {}).get("images", ())]
    kind = "a plate" if "plate" in ome else "a well" if "well" in ome else "a group"
    inside = inside or sorted(group.keys())
    if not inside:
        return "it is a group without images"
    return f"it is {kind}: name what is inside, such as '{path / inside[0]}', of " + shorten(
        inside, 200
    )

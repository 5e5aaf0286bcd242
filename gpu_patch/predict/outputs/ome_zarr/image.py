"""The arrays of an OME-Zarr image: making them, opening them, looking for missing chunks."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_patch.checks import whole_numbers
from gpu_patch.optional import imported
from gpu_patch.predict.outputs.axes import merged_axes, merged_shape
from gpu_patch.predict.outputs.base import Predicted, UnitKey
from gpu_patch.predict.outputs.disk import Disk
from gpu_patch.predict.outputs.ome_zarr.metadata import image_attributes
from gpu_patch.predict.outputs.ome_zarr.multiscale import levels

if TYPE_CHECKING:
    from gpu_patch.predict.outputs.ome_zarr.chunk_store import Writes

_OWN = "gpu_patch"
"""Key of the attributes that are the package's own."""

_CHUNKS = {2: (256, 256), 3: (16, 128, 128)}
"""(Z)YX: 0.25 and 1 MiB of float32."""


@dataclass(frozen=True)
class Storage:
    """Chunks, and shards of them where wanted.

    Parameters
    ----------
    chunk_size, shard_size : sequence of int or None
        (Z)YX, as in `OutputOptions`.
    """

    chunk_size: Sequence[int] | None = None
    shard_size: Sequence[int] | None = None

    @property
    def asked(self) -> dict[str, list[int] | None]:
        """What was asked for, as JSON has it."""
        asked = {"chunk_size": self.chunk_size, "shard_size": self.shard_size}
        return {
            name: None if size is None else list(whole_numbers(name, size, minimum=1))
            for name, size in asked.items()
        }

    def of(self, size: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Return the chunk and the shard of an image (Z)YX, no longer than it needs them."""
        ndim = len(size)
        wanted = _CHUNKS[ndim] if self.chunk_size is None else self.chunk_size
        chunk = whole_numbers("chunk_size", wanted, minimum=1, length=ndim)
        short = tuple(map(min, chunk, size))
        if self.shard_size is None:
            return short, None
        shard = whole_numbers("shard_size", self.shard_size, minimum=1, length=ndim)
        if any(s % c for s, c in zip(shard, chunk, strict=True)):
            raise ValueError(
                f"shard_size must be a multiple of chunk_size {chunk} along each axis, "
                f"found {shard}"
            )
        return short, tuple(
            s * min(n_chunks // c, -(-n // s))
            for s, c, n_chunks, n in zip(short, chunk, shard, size, strict=True)
        )

    def together(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return what is written at once, (Z)YX: a shard or a chunk."""
        chunk, shard = self.of(size)
        return shard or chunk


def create_image(
    image: Path, predicted: Predicted, storage: Storage, made_of: dict[str, Any]
) -> None:
    """Make an image without pixels.

    Parameters
    ----------
    image : Path
        Its folder.
    predicted : Predicted
        Its description.
    storage : Storage
        Chunks and shards.
    made_of : dict
        What is noted of the run, as JSON has it.
    """
    axes = merged_axes(predicted.original_axes, predicted.shape[1])
    found = levels(predicted.size, predicted.calibration.physical_sizes)
    attributes = {
        "ome": image_attributes(predicted, axes, found),
        _OWN: {
            "source": predicted.source,
            "axes": predicted.original_axes,
            **predicted.notes,
            **made_of,
        },
    }
    group = import_zarr().create_group(image, zarr_format=3, attributes=attributes)
    for i, level in enumerate(found):
        chunk, shard = storage.of(level.size)
        group.create_array(
            str(i),
            shape=merged_shape((*predicted.shape[:2], *level.size), axes),
            dtype=predicted.dtype,
            chunks=stored_shape(chunk, axes),
            shards=None if shard is None else stored_shape(shard, axes),
            dimension_names=list(axes.lower()),
            attributes=_of_array(predicted.notes),
        )


def _of_array(notes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of arrays: by these names xarray turns stored values back."""
    return {key: notes[key] for key in ("scale_factor", "add_offset") if key in notes}


def open_levels(image: Path, disk: Disk) -> tuple[Callable[[int], Any], Writes]:
    """Return a function that opens the array of a level, and what is written to all of them."""
    zarr = import_zarr()
    from gpu_patch.predict.outputs.ome_zarr.chunk_store import EndingStore, Writes

    writes = Writes(disk)

    def open_level(level: int) -> Any:
        found = zarr.open_array(image / str(level), mode="r+")
        place = zarr.storage.StorePath(EndingStore(image / str(level), writes))
        # chunks of zeros are written too: one that is missing has been lost. Set for this array,
        # since zarr's own settings are those of the whole process
        config = {"write_empty_chunks": True}
        return zarr.Array(zarr.AsyncArray(found.metadata, place, config=config))

    return open_level, writes


def own_attributes(image: Path) -> dict[str, Any] | None:
    """Return what this package has noted in an image, None in an image of another program."""
    try:
        own = json.loads((image / "zarr.json").read_text())["attributes"][_OWN]
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return own if isinstance(own, dict) and "fingerprint" in own else None


def has_levels(image: Path) -> bool:
    """Tell whether every level that an image describes is there."""
    try:
        described = json.loads((image / "zarr.json").read_text())["attributes"]["ome"]
        paths = [level["path"] for level in described["multiscales"][0]["datasets"]]
        return all((image / path / "zarr.json").is_file() for path in paths)
    except (OSError, KeyError, IndexError, TypeError, ValueError):
        return False


def complete_units(
    image: Path, units: Iterable[UnitKey], files: Collection[str], axes: str, slab_axis: int
) -> list[UnitKey]:
    """Return the units of which every chunk of the full resolution is there.

    Parameters
    ----------
    image : Path
        The folder of the image.
    units : iterable of UnitKey
        Units.
    files : collection of str
        Files that the image has.
    axes : str
        Of the image as stored.
    slab_axis : int
        Spatial axis along which rows are counted.
    """
    array = import_zarr().open_array(image / "0", mode="r")
    stored = array.shards or array.chunks
    n_stored = [-(-n // s) for n, s in zip(array.shape, stored, strict=True)]
    n_spatial = len(axes.replace("T", "").replace("C", ""))
    slab = len(axes) - n_spatial + slab_axis
    found = []
    for sample, first in units:
        places = [range(n) for n in n_stored]
        if "T" in axes:
            places[axes.index("T")] = range(sample, sample + 1)
        row = first // stored[slab]
        places[slab] = range(row, row + 1)
        names = (array.metadata.encode_chunk_key(place) for place in product(*places))
        if all(f"0/{name}" in files for name in names):
            found.append((sample, first))
    return found


def stored_shape(size: tuple[int, ...], axes: str) -> tuple[int, ...]:
    """Return the shape of what is stored together, of one time and channel."""
    return (1,) * (len(axes) - len(size)) + size


def import_zarr() -> Any:
    """Return zarr, or say what to install."""
    return imported("zarr", "writing Zarr")

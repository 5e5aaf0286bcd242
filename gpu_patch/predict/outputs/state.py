"""How far the results at a path are, and what made them, as anybody may read it from outside."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from gpu_patch.predict.outputs.claims import writer_of
from gpu_patch.predict.outputs.disk import Disk
from gpu_patch.predict.outputs.names import ending
from gpu_patch.predict.outputs.ome_zarr.image import Storage, own_attributes
from gpu_patch.predict.outputs.ome_zarr.unfinished import UnfinishedImage

_PARTIAL = ".partial"


class ResultState(NamedTuple):
    """How far a result is.

    Attributes
    ----------
    path : Path
        Where it is, or will be.
    done, units : int or None
        How many parts are written, and how many there are: rows of chunks of every sample. None
        where the format does not note it, as files of one block.
    complete : bool
        Whether it has its name.
    writer : str
        Which process writes it, "" where none does.
    settings : dict
        What was asked of the run; empty where the format does not note it.
    """

    path: Path
    done: int | None
    units: int | None
    complete: bool
    writer: str
    settings: dict[str, Any]


def results_at(path: Path) -> list[ResultState]:
    """Return the state of a result, or of all results in a folder; none is changed.

    Parameters
    ----------
    path : Path
        Of a result, whether or not it has its name already, or of the folder of several.

    Returns
    -------
    list of ResultState
        Unfinished ones, and OME-Zarr images that this package has written; in the order of names.
    """
    path = Path(os.path.abspath(path))
    if ending(path.name) is not None:
        found = [_unfinished(path), _finished(path)]
    elif path.is_dir():
        inside = [path / name for name in sorted(os.listdir(path))]
        hidden = [p for p in inside if p.name.startswith(".") and p.name.endswith(_PARTIAL)]
        named = [p.with_name(p.name[1:].removesuffix(_PARTIAL)) for p in hidden]
        found = [*map(_unfinished, named), *map(_finished, inside)]
    else:
        found = []
    return sorted((state for state in found if state), key=lambda state: state.path)


def _unfinished(path: Path) -> ResultState | None:
    """Return how far a result is that has not got its name."""
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    if not partial.exists():
        return None
    writer = writer_of(path.parent, path.name)
    image = UnfinishedImage(partial, Disk(durable=False))
    about = image.about()
    if not about.keys() >= {"shape", "slab_axis"}:  # or something else lies there
        return ResultState(path, None, None, complete=False, writer=writer, settings={})
    size, axis = tuple(about["shape"][2:]), about["slab_axis"]
    rows = Storage(about.get("chunk_size"), about.get("shard_size")).together(size)[axis]
    n_units = about["shape"][0] * -(-size[axis] // rows)
    done = len(image.units())
    return ResultState(path, done, n_units, complete=False, writer=writer, settings=_told(about))


def _finished(path: Path) -> ResultState | None:
    """Return what made an image that is complete, where this package has made it."""
    own = own_attributes(path) if path.is_dir() else None
    if own is None:
        return None
    return ResultState(path, None, None, complete=True, writer="", settings=_told(own))


def _told(about: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in what a run has noted."""
    try:
        found = json.loads(about["fingerprint"])
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

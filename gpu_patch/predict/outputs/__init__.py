"""Where predictions go, one file per format; each imports its package only where it is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gpu_patch.checks import Message, argument, choice, instance, whole_number
from gpu_patch.images.version import version
from gpu_patch.predict.outputs.apart import check_apart, files_of
from gpu_patch.predict.outputs.array import ArrayStore
from gpu_patch.predict.outputs.axes import restore, restored_axes
from gpu_patch.predict.outputs.base import Output, Predicted, Store, UnitKey
from gpu_patch.predict.outputs.names import FORMATS, ending, result_names
from gpu_patch.predict.outputs.npy import NpyStore
from gpu_patch.predict.outputs.ranks import Ranks
from gpu_patch.predict.outputs.storage import Storage
from gpu_patch.predict.outputs.tiff import TiffStore
from gpu_patch.predict.outputs.zarr import ZarrStore

__all__ = ["Output", "Predicted", "Store", "UnitKey", "make_store", "restore", "restored_axes"]


_NOT_WRITTEN = (
    ".png",
    ".jpg",
    ".jpeg",
    ".czi",
    ".nd2",
    ".lif",
    ".h5",
    ".hdf5",
    ".npz",
    ".zip",
    ".pt",
)
"""Endings of files that nobody means as the name of a folder."""


def make_store(
    out: str | Path | None,
    sources: Sequence[str | Path],
    *,
    variants: Sequence[str] = ("",),
    format: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    fingerprint: str | Callable[[], str] = "",
    versions: Callable[[], Sequence[str]] | None = None,
    files: Sequence[Sequence[Path]] = (),
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
    variants : sequence of str, default ("",)
        What is appended to the names: one result for each.
    format : {"ome-zarr", "ome-tiff", "npy"} or None, default None
        Format of the files in a folder; None is "ome-zarr".
    overwrite : bool, default False
        Whether to replace what is there, once the new is complete.
    resume : bool, default False
        Whether to go on where an earlier run ended ("ome-zarr" alone).
    fingerprint : str or callable, default ""
        What two runs must have in common for one to go on with the other, beside the files that
        the images come from; or what returns it, called where it can be gone on with.
    versions : callable or None, default None
        Returns what tells each image from others that its file has held, or holds, called where it
        can be gone on with; None tells name, size and date of the file as it is now.
    files : sequence of sequence of Path, default ()
        Every file or folder that each image is in; none are those that its source names.
    rank, world_size : int
        Number of this process and how many there are ("ome-zarr" where there are several).
    chunk_size, shard_size : sequence of int or None, default None
        (Z)YX, of OME-Zarr. A shard is a file of many chunks.
    timeout : float, default 1800
        Seconds without any progress after which a process gives up waiting for the others.
    """
    whole_number(
        "rank", rank, minimum=0, maximum=whole_number("world_size", world_size, minimum=1) - 1
    )
    if out is None:
        _refuse_what_zarr_alone_can("arrays", resume, world_size, chunk_size, shard_size)
        if format is not None:
            raise ValueError(
                Message(
                    argument("format"),
                    f" {format!r} needs ",
                    argument("out"),
                    ", a path to write to",
                )
            )
        return ArrayStore(result_names(sources, variants))
    path = Path(instance("out", out, (str, os.PathLike), "a path, or None for arrays"))
    known = ending(path.name)
    if format is not None:
        choice("format", format, tuple(FORMATS))
    if known is None and path.suffix.lower() in _NOT_WRITTEN and not path.is_dir():
        raise ValueError(
            Message(
                argument("out"),
                " must be a folder, or end in .ome.zarr, .zarr, .ome.tif, .tif or .npy, found "
                f"{str(path)!r}",
            )
        )
    if known is None:
        folder, names = path, result_names(sources, variants)
        format = format or "ome-zarr"
        suffix = FORMATS[format][0]
    else:
        suffix, meant = known
        if len(sources) != 1:
            raise ValueError(
                Message(
                    argument("out"),
                    f" must be a folder for {len(sources)} images, found {str(path)!r}, a file for "
                    "one",
                )
            )
        if format not in (None, meant):
            raise ValueError(
                Message(
                    argument("format"),
                    f" is {format!r}, but ",
                    argument("out"),
                    f" {str(path)!r} means {meant!r}",
                )
            )
        folder, names, format = path.parent, [path.name[: -len(suffix)]], meant
    results = [folder / (name + variant + suffix) for name in names for variant in variants]
    check_apart(
        results,
        [
            (str(source), tuple(files[i] if i < len(files) else ()) or files_of(source))
            for i, source in enumerate(sources)
        ],
    )
    if format == "ome-zarr":
        ranks = Ranks(folder / f".{names[0]}{suffix}.ranks", rank, world_size, timeout)
        return ZarrStore(
            folder,
            names,
            variants,
            suffix,
            overwrite=overwrite,
            resume=resume,
            fingerprint=fingerprint() if callable(fingerprint) else fingerprint,
            versions=[version(source) for source in sources] if versions is None else versions(),
            storage=Storage(chunk_size, shard_size),
            ranks=ranks,
        )
    _refuse_what_zarr_alone_can(format, resume, world_size, chunk_size, shard_size)
    kind = TiffStore if format == "ome-tiff" else NpyStore
    return kind(folder, names, variants, suffix, overwrite=overwrite)


def _refuse_what_zarr_alone_can(
    kind: str,
    resume: bool,
    world_size: int,
    chunk_size: Sequence[int] | None,
    shard_size: Sequence[int] | None,
) -> None:
    asked = {
        argument("resume", True): resume,
        f"world_size={world_size}": world_size > 1,
        "chunk_size": chunk_size is not None,
        "shard_size": shard_size is not None,
    }
    for option, is_asked in asked.items():
        if is_asked:
            raise ValueError(
                Message(option, f" is for the format 'ome-zarr' alone, not for {kind}")
            )

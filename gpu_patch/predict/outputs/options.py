"""What is asked of a prediction's output: where it goes, how it is stored, and who writes it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_patch.checks import Message, argument, choice, instance, whole_number, whole_numbers
from gpu_patch.images.readers import SUFFIXES, without_login
from gpu_patch.predict.outputs.names import FORMATS, ResultNames, ending, result_names

_ADDRESS = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")
"""Beginning of what is on a server; a drive has one letter."""
_NOT_WRITTEN = (
    *{*SUFFIXES}.difference(*FORMATS.values()),
    *(".h5", ".hdf5", ".npz", ".zip", ".pt"),
)
"""Endings of files that nobody means as the name of a folder."""


@dataclass(frozen=True)
class Shard:
    """The part of a prediction that one of several processes makes.

    Parameters
    ----------
    rank, world_size : int, default 0 and 1
        Number of this process, and how many there are.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        n_ranks = whole_number("world_size", self.world_size, minimum=1)
        whole_number("rank", self.rank, minimum=0, maximum=n_ranks - 1)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def is_whole(self) -> bool:
        """Whether this process is the only one."""
        return self.world_size == 1


@dataclass(frozen=True)
class OutputOptions:
    """Where results go, and how they are stored.

    Parameters
    ----------
    out : str, path or None, default None
        None for arrays. A path that ends in .ome.zarr, .zarr, .ome.tif, .ome.tiff, .tif, .tiff or
        .npy for one image, else a folder, which is made.
    format : {"ome-zarr", "ome-tiff", "npy"} or None, default None
        Format of the files in a folder; None is "ome-zarr".
    overwrite : bool, default False
        Whether to replace what is there, once the new is complete.
    resume : bool, default False
        Whether to go on where an earlier run ended ("ome-zarr" alone).
    chunk_size, shard_size : sequence of int or None, default None
        (Z)YX, of OME-Zarr. A shard is a file of many chunks.
    timeout : float, default 1800
        Seconds without any progress after which a process gives up waiting for the others.
    durable : bool, default False
        Whether chunks and files reach the disk before they count as written.
    """

    out: str | os.PathLike[str] | None = None
    format: str | None = None
    overwrite: bool = False
    resume: bool = False
    chunk_size: Sequence[int] | None = None
    shard_size: Sequence[int] | None = None
    timeout: float = 1800.0
    durable: bool = False

    def __post_init__(self) -> None:
        if self.out is None:
            self._refuse_what_zarr_alone_can()
            if self.format is not None:
                needs = f" {self.format!r} needs "
                raise ValueError(
                    Message(argument("format"), needs, argument("out"), ", a path to write to")
                )
            if self.durable:
                raise ValueError(
                    Message(
                        argument("durable", True),
                        " needs ",
                        argument("out"),
                        ", a path to write to: arrays are in memory",
                    )
                )
            return
        self._check_path()
        for name in ("chunk_size", "shard_size"):
            if getattr(self, name) is not None:
                whole_numbers(name, getattr(self, name), minimum=1)
        if self.kind != "ome-zarr":
            self._refuse_what_zarr_alone_can()

    @property
    def kind(self) -> str:
        """The format that is written, "arrays" where nothing is."""
        if self.out is None:
            return "arrays"
        known = ending(self._path.name)
        return known[1] if known else self.format or "ome-zarr"

    def results_of(self, sources: Sequence[str | Path], variants: Sequence[str]) -> ResultNames:
        """Return what the results of images are called.

        Parameters
        ----------
        sources : sequence of str or Path
            Where each image comes from: the results in a folder are named after them.
        variants : sequence of str
            What is appended to the names: one result for each.
        """
        known = None if self.out is None else ending(self._path.name)
        if known is None:
            folder = None if self.out is None else self._path
            suffix = FORMATS[self.kind][0] if folder else ""
            names = result_names(sources, variants)
            return ResultNames(folder, tuple(names), tuple(variants), suffix)
        if len(sources) != 1:
            raise ValueError(
                Message(
                    argument("out"),
                    f" must be a folder for {len(sources)} images, found {str(self._path)!r}, a "
                    "file for one",
                )
            )
        suffix = known[0]
        name = self._path.name[: -len(suffix)]
        return ResultNames(self._path.parent, (name,), tuple(variants), suffix)

    def check_shard(self, shard: Shard) -> None:
        """Raise where several processes cannot write this format together."""
        if not shard.is_whole and self.kind != "ome-zarr":
            raise self._for_zarr_alone(f"world_size={shard.world_size}")

    @property
    def _path(self) -> Path:
        assert self.out is not None
        return Path(self.out)

    def _check_path(self) -> None:
        """Raise where path and format do not say together what is to be written."""
        path = Path(instance("out", self.out, (str, os.PathLike), "a path, or None for arrays"))
        if _ADDRESS.match(str(path)):
            raise ValueError(
                Message(
                    argument("out"),
                    " must be on this machine, found the address "
                    f"{without_login(str(self.out))!r}: results are renamed when they are whole, "
                    "which servers cannot do. Write to a folder, and copy it to the server",
                )
            )
        known = ending(path.name)
        if self.format is not None:
            choice("format", self.format, tuple(FORMATS))
        if known is None and path.suffix.lower() in _NOT_WRITTEN and not path.is_dir():
            raise ValueError(
                Message(
                    argument("out"),
                    " must be a folder, or end in .ome.zarr, .zarr, .ome.tif, .tif or .npy, found "
                    f"{str(path)!r}",
                )
            )
        if known is not None and self.format not in (None, known[1]):
            raise ValueError(
                Message(
                    argument("format"),
                    f" is {self.format!r}, but ",
                    argument("out"),
                    f" {str(path)!r} means {known[1]!r}",
                )
            )

    def _refuse_what_zarr_alone_can(self) -> None:
        asked = {
            argument("resume", True): self.resume,
            "chunk_size": self.chunk_size is not None,
            "shard_size": self.shard_size is not None,
        }
        for option, is_asked in asked.items():
            if is_asked:
                raise self._for_zarr_alone(option)

    def _for_zarr_alone(self, option: str) -> ValueError:
        return ValueError(
            Message(option, f" is for the format 'ome-zarr' alone, not for {self.kind}")
        )

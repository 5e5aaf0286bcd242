"""The compiled library for this processor: finding it, and why there is none."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpu_patch._host import build
from gpu_patch.pages.slot_table import PAGE_BOX, PAGED_IMAGE
from gpu_patch.table import CHANNEL_SOURCE, EPILOGUE_RECORD

VARIABLE = "GPU_PATCH_CPU"
"""Environment variable: "numpy", or the instruction set to use."""


class ImpossiblePlaceError(Exception):
    """A place that a function cannot read."""


_RESULTS = {
    1: MemoryError("the CPU kernels had no memory left for what they work in"),
    3: ImpossiblePlaceError("a place cannot be read"),
    4: RuntimeError("a window reads a page that nobody holds: this is a fault of gpu_patch"),
}


class Job(ctypes.Structure):
    """`struct Job` in rows.h."""

    _fields_ = (
        ("patch", ctypes.c_int64 * 3),
        ("n_samples", ctypes.c_int64),
        ("n_planned", ctypes.c_int64),
        *(
            (name, ctypes.c_int32)
            for name in ("n_channels", "n_scales", "n_dims", "mode", "half_output", "n_threads")
        ),
        *((name, ctypes.c_int32) for name in ("n_places", "n_images", "n_values")),
        ("value_at", ctypes.c_int32 * 6),
    )


class Columns(ctypes.Structure):
    """`struct Columns` in records.h."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in (
            *("images", "samples", "image_idx", "sample_idx", "coords", "channels"),
            *("weights", "values", "orientation"),
        )
    )


class MomentsJob(ctypes.Structure):
    """`struct MomentsJob` in moments.h."""

    _fields_ = (
        ("n_tiles", ctypes.c_int64),
        ("n_values", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("is_half", "number", "n_samples", "n_threads")),
    )


class StitchJob(ctypes.Structure):
    """`struct StitchJob` in stitch.h."""

    _fields_ = (
        ("patch", ctypes.c_int64 * 3),
        ("n_tiles", ctypes.c_int64),
        *(
            (name, ctypes.c_int32)
            for name in ("n_channels", "is_half", "n_threads", "sums", "again")
        ),
    )


class MeansJob(ctypes.Structure):
    """`struct MeansJob` in stitch.h."""

    _fields_ = (
        *((name, ctypes.c_int64 * 3) for name in ("slab_size", "in_slab", "size")),
        ("counts", ctypes.c_uint64 * 3),
        ("n_channels", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("squares", "n_threads")),
    )


class DrawJob(ctypes.Structure):
    """`struct DrawJob` in draws.h."""

    _fields_ = (
        ("n_samples", ctypes.c_int64),
        ("n_blocks", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
        ("epoch", ctypes.c_int64),
    )


class CellsJob(ctypes.Structure):
    """`struct CellsJob` in cells.h."""

    _fields_ = (
        ("n_cells", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("size", ctypes.c_int64 * 3),
        ("threshold", ctypes.c_double),
        ("outside", ctypes.c_int32),
        ("n_threads", ctypes.c_int32),
    )


STITCH_TILE = np.dtype(
    [
        ("slab", np.uint64),
        *((name, np.int64, 3) for name in ("slab_size", "start", "low", "high", "middle")),
        ("weights", np.uint64, 3),
    ]
)
"""`struct StitchTile` in stitch.h."""
_STRUCTURES = (Job, MomentsJob, StitchJob, MeansJob, DrawJob, CellsJob, Columns)
_KERNELS = (
    ("lateral_context", Job, 7),
    ("gather", Job, 5),
    *((f"gather_{n}_bytes", Job, 2) for n in (1, 2, 4, 8)),
    ("fill_records", Job, 3),
    ("fill_short_records", Job, 3),
    ("find_boxes", Job, 7),
    ("add_sample", MomentsJob, 2),
    ("stitch", StitchJob, 4),
    ("means", MeansJob, 2),
    ("draw", DrawJob, 3),
    ("count_near", CellsJob, 3),
    ("measure_cells", CellsJob, 3),
    ("cell_entropies", CellsJob, 2),
    ("count_marked", CellsJob, 2),
)
"""Name, job and number of addresses of each; those with a `Job` take `Columns` and rows first."""


class Library:
    """The kernels of one instruction set.

    Parameters
    ----------
    level : str
        The instruction set, as `build.LEVELS` names it.
    path : Path
        The library.

    Raises
    ------
    OSError
        Where it cannot be loaded, or was compiled from other sources.
    """

    def __init__(self, level: str, path: Path) -> None:
        self.level, self.path = level, path
        self._functions = ctypes.CDLL(str(path))  # calls let other Python threads run
        self._functions.source_digest.restype = ctypes.c_char_p
        if self._functions.source_digest().decode() != build.digest():
            raise OSError(f"{path} is of other sources: python -m gpu_patch._host")
        self._functions.struct_bytes.restype = ctypes.c_int64
        sizes = [ctypes.sizeof(each) for each in _STRUCTURES]
        records = (CHANNEL_SOURCE, EPILOGUE_RECORD, STITCH_TILE, PAGE_BOX, PAGED_IMAGE)
        sizes += [record.itemsize for record in records]
        found = [self._functions.struct_bytes(i) for i in range(len(sizes))]
        if found != sizes:
            raise OSError(f"{path} has records of {found} bytes, and not {sizes}")
        self._kernels = {}
        for name, job, n_addresses in _KERNELS:
            kernel = getattr(self._functions, name)
            structures = [job, Columns] if job is Job else [job]
            kernel.argtypes = [
                *(ctypes.POINTER(each) for each in structures),
                *[ctypes.c_void_p] * n_addresses,
            ]
            self._kernels[name] = kernel

    def __reduce__(self) -> tuple[Any, ...]:
        return Library, (self.level, self.path)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a kernel.

        Parameters
        ----------
        name : str
            Which.
        *arguments : ctypes.Structure, int or None
            A job, columns where it takes them, and addresses; None is a null pointer.

        Raises
        ------
        ImpossiblePlaceError
            The columns have a place that cannot be read. Nothing has been done.
        MemoryError
            A thread had no memory.
        """
        if result := self._kernels[name](*arguments):
            raise _RESULTS.get(result, RuntimeError(f"{name} failed"))


class Choice(NamedTuple):
    """What computes on the CPU, and why."""

    library: Library | None
    reason: str
    """"" for the best that there can be."""


_forced: Choice | None = None


def choice() -> Choice:
    """Return what computes on the CPU of this process."""
    return find() if _forced is None else _forced


@contextmanager
def computing(library: Library | None) -> Iterator[None]:
    """Let this library compute for a while, or NumPy, in all threads of the process."""
    global _forced
    before, _forced = _forced, Choice(library, "asked for")
    try:
        yield
    finally:
        _forced = before


@cache
def find() -> Choice:
    """Return the best that there is for this processor, as far as the environment lets it."""
    wanted = os.environ.get(VARIABLE, "")
    levels = build.LEVELS.get(build.machine(), {})
    if wanted == "numpy":
        return Choice(None, f"{VARIABLE} is numpy")
    if wanted and wanted not in levels:
        known = ", ".join(["numpy", *levels])
        raise ValueError(f"{VARIABLE} must be one of {known}, found {wanted!r}")
    if not levels:
        return Choice(None, f"there are no kernels for {build.machine()}")
    if not any(build.library_path(level).exists() for level in levels):
        return Choice(None, "not compiled: python -m gpu_patch._host, with a C++ compiler")
    reason = ""
    try:
        usable = [level for level in levels if level in supported()]
        if not usable:
            return Choice(None, f"this processor has none of {', '.join(levels)}")
        if wanted and wanted not in usable:
            raise ValueError(f"{VARIABLE} is {wanted}, which this processor does not have")
        for level in [wanted] if wanted else usable:
            try:
                return Choice(Library(level, build.library_path(level)), reason)
            except OSError as error:
                reason = str(error)
    except OSError as error:
        reason = str(error)
    return Choice(None, reason)


def active() -> Library | None:
    """Return the library that computes, None where NumPy does."""
    return choice().library


@cache
def supported() -> tuple[str, ...]:
    """Return the instruction sets that this processor has, of those that there are kernels for."""
    levels = build.LEVELS.get(build.machine(), {})
    if build.machine() != "x86_64":
        return tuple(levels)
    probe = ctypes.CDLL(str(build.library_path(build.PROBE)))
    level = probe.x86_64_level()
    return tuple(name for name in levels if int(name[-1]) <= level)


class Host:
    """NumPy's arrays, as a table of images takes them."""

    def pointer(self, array: Any) -> int:
        """Return the address of an array."""
        return int(array.ctypes.data)


HOST = Host()

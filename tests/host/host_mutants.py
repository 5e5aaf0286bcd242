"""Breaks the CPU's kernels, one edit at a time, and shows that a comparison notices each.

Run as ``python tests/host/host_mutants.py [word in a mutant's name]``; prints a table, and fails
where a mutant survives. Each runs in a process of its own, since a broken kernel may crash or hang.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from variants import SUMS_IN_REGISTERS, cases, compiled, drawn_and_measured, stitched

from gpu_patch import ops, set_num_threads
from gpu_patch._host import arguments, lateral_context, library
from gpu_patch._host.records import HostRecords
from gpu_patch.device.host_memory import BufferPool
from gpu_patch.records import MOST_SHORT, Windows
from gpu_patch.sources import ChannelSources
from gpu_patch.table import ImageTable, short_record

# isort: split
from cases import MODES, Case
from paged import host_context, in_slots
from pixels import labels

MOST_SECONDS = 300
LACKING = {
    "reflect": {},
    "wrap": {"input_shift": None},
    "periodic": {"target_shift": None, "orientation": None},
}
"""What epilogues do without, by the mode that they are tried with."""
ROWS = np.array([2, 0, 2])
"""Of the samples of a case, those of another batch."""
_MARGIN = 64
IN_REGISTERS = "in registers"
"""What names those of sums that stay in registers, as the widest vectors have them."""
UNCHANGED = "unchanged"
"""What shows that the comparison tells broken kernels from those that are not."""


class Mutant(NamedTuple):
    """One edit of a file."""

    file: str
    before: str
    after: str


def load() -> dict[str, Mutant]:
    """Read host_mutants.txt."""
    mutants, file = {}, ""
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            file = line.removeprefix("== ")
        elif file and line:
            name, edit = line.split(" | ", 1)
            before, old, new, after = re.split("[⟦→⟧]", edit)
            mutants[name.strip()] = Mutant(file, before + old + after, before + new + after)
    return mutants


def results(found: library.Library) -> Iterator[list[bytes]]:
    """Yield what a library makes of one case after the other."""
    arguments._WORK_OF_A_THREAD = 1  # threads for small batches, too
    for number, case in enumerate(cases()):
        yield contexts(found, number, case) + patches(found, number, case)
        yield of_cuda(found, number, case)
        if max(max(image.shape) for image in case.images) < 100:
            yield boxes(found, case)
    for n in (1, 5):
        set_num_threads(n)
        with library.computing(found):
            made = [*stitched(), *drawn_and_measured(found)]
        yield [array.tobytes() for array in made]


def contexts(found: library.Library, number: int, case: Case) -> list[bytes]:
    """Return inputs and targets, of whole images and by page."""
    made = []
    for n in (1, 5):
        set_num_threads(n)
        for epilogue in (None, case.epilogue(number, mixed=True)):
            made += case.host_context(found, epilogue=epilogue)
            made += case.host_context(found, epilogue=epilogue, rows=ROWS)
            made += host_context(found, case, epilogue=epilogue)
        made += missing(found, case)
    return [array.tobytes() for array in made if array is not None]


def missing(found: library.Library, case: Case) -> Iterator[NDArray[Any]]:
    """Yield what is said of rows that a plan does not have, though there is something there."""
    for some, row in ((slice(1, None), -1), (slice(None, -1), len(case.weights) - 1)):
        columns = (own[some] for own in case.sources[:3])
        sources = ChannelSources(*columns, case.sources.channels)
        try:
            yield from replace(case, sources=sources, weights=case.weights[some]).host_context(
                found, rows=np.array([0, row])
            )
        except IndexError as error:
            yield np.array(str(error))


def of_cuda(found: library.Library, number: int, case: Case) -> list[bytes]:
    """Return the records that CUDA's kernels read, or what they say of places that cannot be."""
    made = []
    n_dims, table = len(case.patch_size), ImageTable(library.HOST, case.images)
    made_by = HostRecords(found)
    # known to be there, as in most batches: then all the rest is left to compiled functions
    case.sources.channels.flags.writeable = False
    table.of_channels(case.sources.channels)
    for mode in MODES:
        window = case.patch_size, case.n_scales, mode
        for sources in (case.sources, *impossible(case)):
            memory = np.zeros(case.weights.size, short_record(n_dims, True))
            epilogue = replace(case.epilogue(number, mixed=True), **LACKING[mode])
            windows = Windows(table, sources, *window, case.weights, epilogue)
            try:
                fits = made_by.short(windows, memory)
                places, finish = made_by.full(windows)
                for records in [memory.reshape(places.shape)] * fits + [places]:
                    from_start(records, case, sources)
                made += [memory, np.array(fits), places, finish]
            except (IndexError, ValueError) as error:
                made.append(np.array(str(error)))
    return [array.tobytes() for array in made]


def from_start(records: NDArray[np.void], case: Case, sources: ChannelSources) -> None:
    """Count addresses from each image's first pixel: others have their images elsewhere."""
    starts = np.array([image.ctypes.data for image in case.images], records["pixels"].dtype)
    records["pixels"] -= starts[sources.image_idx]


def boxes(found: library.Library, case: Case) -> list[bytes]:
    """Return the boxes of pages that are read, for CUDA's kernels, and what is said of others."""
    made = []
    for mode in ("zero", *MODES):
        with in_slots(library.HOST, case, case.n_scales - 1, mode) as table:
            windows = Windows(table, case.sources, case.patch_size, case.n_scales, mode)
            for scale in range(case.n_scales):
                made += HostRecords(found).pages(windows, scale)
            if mode == "zero":  # nothing is read of a window that misses the image
                largest = np.array(case.patch_size) << case.n_scales
                for at in (-largest, of_last_place(case) + largest):
                    coords = case.sources.coords.copy()
                    coords[-1] = at
                    beside = windows._replace(sources=case.sources._replace(coords=coords))
                    made += HostRecords(found).pages(beside, case.n_scales - 1)
            for pins in {id(image.pins): image.pins for image in table._images}.values():
                for slot in np.flatnonzero(pins)[::7]:
                    pins[slot] -= 1
                    try:
                        HostRecords(found).pages(windows, case.n_scales - 1)
                    except RuntimeError as error:
                        made.append(np.array(str(error)))
                    pins[slot] += 1
    return [array.tobytes() for array in made]


def of_last_place(case: Case) -> NDArray[np.integer]:
    """Return the sizes of the images that the last places lie in."""
    sizes = np.array([image.shape[2:] for image in case.images])
    return sizes[case.sources.image_idx[-1]]


def impossible(case: Case) -> Iterator[ChannelSources]:
    """Yield what no kernel may read, and the last places that some may."""
    of_last = {"image_idx": len(case.images), "sample_idx": case.images[0].shape[0]}
    for name, value in of_last.items():
        wrong = getattr(case.sources, name).copy()
        wrong[-1] = value
        yield case.sources._replace(**{name: wrong})
    before = -np.array(case.patch_size) // 2 - (np.array(case.patch_size) << case.n_scales) // 2
    for at in (MOST_SHORT, MOST_SHORT - 1, 1 << 56, before, before + 1):
        coords = case.sources.coords.copy()
        coords[-1] = at
        yield case.sources._replace(coords=coords)


def patches(found: library.Library, number: int, case: Case) -> list[bytes]:
    """Return plain patches of numbers and of labels."""
    made = []
    options = {"n_scales": case.n_scales}
    dtypes = itertools.cycle(["int32", "bool", "int8", "uint16"])
    of_labels = [
        labels(image.shape, dtype) for image, dtype in zip(case.images, dtypes, strict=False)
    ]
    with library.computing(found):
        for mode in ("zero", *MODES):
            epilogue = case.epilogue(number, mixed=False)
            dtype = np.float16 if number % 2 else np.float32
            where = (case.sources, case.patch_size)
            made.append(
                ops.gather(
                    case.images, *where, mode=mode, epilogue=epilogue, dtype=dtype, **options
                )
            )
            epilogue = epilogue if number % 3 else None
            made.append(
                ops.gather(
                    of_labels, *where, mode=mode, epilogue=epilogue, dtype=np.int64, **options
                )
            )
    return [array.tobytes() for array in made]


_lent: deque[NDArray[Any]] = deque(maxlen=8)


def guarded(_: BufferPool, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Lend memory that does not hold the right answer of an earlier call, nor ends what is there.

    What was written behind the last ones is an error.
    """
    nothing = np.nan if np.dtype(dtype).kind == "f" else 77
    for whole in _lent:
        behind = whole[-_MARGIN:]
        if not (
            np.isnan(behind) if whole.dtype.kind == "f" else behind == whole.dtype.type(77)
        ).all():
            raise RuntimeError("the kernel has written behind its output")
    _lent.append(np.full(prod(shape) + _MARGIN, nothing, dtype))
    return _lent[-1][:-_MARGIN].reshape(shape)


_host_taps = lateral_context._taps


@cache
def before_nothing(n_scales: int) -> tuple[ctypes.Array[ctypes.c_void_p], list[NDArray[Any]]]:
    """Return taps that are followed by no number."""
    taps = [np.append(own, [np.nan] * 4).astype(np.float32) for own in _host_taps(n_scales)[1]]
    return (ctypes.c_void_p * n_scales)(*(own.ctypes.data for own in taps)), taps


def survives(name: str) -> bool:
    """Whether the comparison takes a mutant for the original."""
    original = library.Library(
        level := library.supported()[-1], library.build.library_path(level)
    )  # fmt: skip
    BufferPool.take = guarded
    lateral_context._taps = before_nothing
    with tempfile.TemporaryDirectory() as folder:
        edits: list[tuple[str, str, str]] = [] if UNCHANGED in name else [load()[name]]
        if IN_REGISTERS in name:
            edits.append(SUMS_IN_REGISTERS)
        mutant = compiled(Path(folder), ["-O1"], edits)
        try:
            pairs = zip(results(mutant), results(original), strict=True)
            return all(made == expected for made, expected in pairs)
        except RuntimeError:  # the kernel has told that it failed
            return False


def main(word: str = "") -> None:
    survivors = []
    unchanged = [UNCHANGED, f"{UNCHANGED}, {IN_REGISTERS}"]
    for name in [*unchanged, *(name for name in load() if word in name)]:
        command = [sys.executable, __file__, "--one", name]
        try:
            done = subprocess.run(
                command, timeout=MOST_SECONDS, capture_output=True, text=True, check=False
            )
            alive, how = done.returncode == 0, f"exit {done.returncode}"
            if done.returncode == 1 and "Error" in done.stderr:
                raise SystemExit(done.stderr)
        except subprocess.TimeoutExpired:
            alive, how = False, "hangs"
        print(f"{'SURVIVES' if alive else 'killed':9} {how:8} {name}", flush=True)
        if name in unchanged:
            if not alive:
                raise SystemExit("the comparison finds differences where nothing was changed")
            continue
        survivors += [name] if alive else []
    sys.exit(f"{len(survivors)} survive" if survivors else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.exit(0 if survives(sys.argv[2]) else 3)
    main(*sys.argv[1:])

"""``gpu-patch info``: what image files hold, and whether it fits, before anything is loaded.

Without files it tells of the machine: `gpu_patch.cli.machine`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from gpu_patch import device as devices
from gpu_patch.cli.arguments import Commands, add_budget, add_reading, whole
from gpu_patch.cli.machine.report import show
from gpu_patch.cli.messages import in_options, one_line
from gpu_patch.cli.result_states import as_json, lines_of
from gpu_patch.images import named_once, sources
from gpu_patch.images.agreement import check_images, single_slices
from gpu_patch.images.budget import Budget, make_budget, size_text
from gpu_patch.images.readers import ImageInfo, Options, open_file, without_login
from gpu_patch.images.remarks import remarks_on
from gpu_patch.images.values import ValueCounts, count_values_of
from gpu_patch.predict.outputs.state import ResultState, results_at
from gpu_patch.words import counted

_HEAD = ("shape", "axes", "type", "resident", "chunks", "pixel, µm", "fits", "format", "file")
_FLAGS = ("allow_missing_chunks", "keep_alpha", "allow_outside", "check_values")


def add_to(commands: Commands) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "info",
        help="tell what image files hold; without files, what this machine has",
        description="Tell shape, axes, data type, bytes, chunks and pixel sizes of image files, "
        "and whether they fit in memory together. Pixels are read for --check-values alone. "
        "Of a prediction, finished, running or stopped, how much is done and what was asked for. "
        "Without files: versions, devices, CuPy, the kernel cache, optional packages, and the one "
        "thing to fix.",
    )
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="an image, a pattern, a folder, the address of a Zarr, or what predict writes",
    )
    parser.add_argument("--axes", help="axes of every image; default: what the file says")
    parser.add_argument("--level", type=whole(0), help="resolution level (default: 0)")
    parser.add_argument("--device", help="where images should go: cpu, cuda or cuda:N")
    add_budget(parser)
    add_reading(parser)
    parser.add_argument(
        "--check-values",
        action="store_true",
        help="read all pixels, a piece at a time, and count NaN, infinity, and samples that hold "
        "nothing but zeros or one value",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--check",
        action="store_true",
        help="without files: say in one line whether images can go to the device, and fail with "
        "the one thing to fix, which info alone only prints; takes no memory of the device",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if not options.files:
        given = {name: getattr(options, name) for name in ("axes", "level", "memory_budget")}
        given |= {name: getattr(options, name) or None for name in _FLAGS}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"--{name.replace('_', '-')} is about files: give a FILE")
        return show(
            options.device, options.parser.options, as_json=options.json, check=options.check
        )
    if options.check:
        raise ValueError("argument --check: is about the machine: give no FILE")
    budget = make_budget(devices.resolve(options.device), options.memory_budget)
    files = _read(options)
    if options.json:
        print(json.dumps(_as_json(files, budget), indent=2))
    else:
        print("\n".join(_as_table(files, budget)))
    if files.errors:
        raise ValueError(f"{counted(len(files.errors), 'file')} cannot be read")
    return None


class _Files(NamedTuple):
    """What files hold.

    Attributes
    ----------
    infos : list of ImageInfo
        Of each image that can be read.
    errors : dict of str to str
        Of those that cannot, why.
    remarks : list of str
        What users should know.
    together : str
        What comes of opening all of them at once, "" for nothing to tell.
    values : list of ValueCounts
        What was counted of each image, empty where nobody asked.
    results : list of ResultState
        Predictions among them.
    """

    infos: list[ImageInfo]
    errors: dict[str, str]
    remarks: list[str]
    together: str
    values: list[ValueCounts]
    results: list[ResultState]


def _read(options: argparse.Namespace) -> _Files:
    """Read what the files of the command line say of their images."""
    names, outside = options.parser.options, options.allow_outside
    infos: list[ImageInfo] = []
    errors: dict[str, str] = {}
    remarks: list[str] = []
    values: list[ValueCounts] = []
    states = {name: results_at(Path(name)) for name in options.files}

    def read(path: Path) -> None:
        try:
            for info, missing, counts in _images_of(path, options):
                infos.append(info)
                values.extend(counts)
                if missing and options.allow_missing_chunks:
                    remarks.append(f"{info.path}: {missing}")
                elif missing:
                    errors[info.path] = f"{missing}: --allow-missing-chunks reads the rest"
        except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
            errors[without_login(str(path))] = one_line(error, names)

    seen: set[Path] = set()
    # an unfinished result has no image at its path yet
    names_of_images = [n for n in options.files if Path(n).exists() or not states[n]]
    for name in named_once(names_of_images, allow_outside=outside):
        try:
            for path in sources(name, allow_outside=outside):
                if path not in seen:
                    seen.add(path)
                    read(path)
        except OSError as error:  # a pattern that nothing matches, a folder without images
            if not states[str(name)]:
                errors[without_login(str(name))] = one_line(error, names)
    remarks += [in_options(remark, names) for remark in remarks_on(infos)]
    results = [state for name in dict.fromkeys(options.files) for state in states[name]]
    return _Files(infos, errors, remarks, _together(infos, names), values, results)


def _images_of(
    path: Path, options: argparse.Namespace
) -> Iterator[tuple[ImageInfo, str, list[ValueCounts]]]:
    """Yield each image of a file, what of it was never written, and its counts where wanted."""
    device = devices.resolve(options.device)
    wanted = Options(
        options.axes,
        options.level or 0,
        "all",
        # to be counted; servers that list nothing tell of a missing chunk when it is read
        allow_missing_chunks=options.allow_missing_chunks or not options.check_values,
        keep_alpha=options.keep_alpha,
        allow_outside=options.allow_outside,
    )
    for reader in open_file(path, wanted):
        with reader:
            reader.check()
            missing = reader.missing()
            readable = options.allow_missing_chunks or not missing
            counted = options.check_values and readable
            counts = [count_values_of(reader, device)] if counted else []
        yield reader.info, missing, counts


def _together(infos: Sequence[ImageInfo], names: dict[str, str]) -> str:
    """Say what comes of opening images at once."""
    if not infos:
        return ""
    try:
        check_images(infos)
    except ValueError as error:
        return f"not to be opened together: {one_line(error, names)}"
    if any(single_slices(infos)):
        return "note: opened together, images of one slice are stacks of it"
    return ""


def _as_json(files: _Files, budget: Budget) -> dict[str, Any]:
    total = sum(info.nbytes for info in files.infos)
    return {
        "images": [
            {
                "path": info.path,
                "format": info.format,
                "shape": info.shape,
                "axes": info.axes,
                **({"colours": info.colours} if info.colours else {}),
                "dtype": str(info.dtype),
                "canonical_shape": info.canonical_shape,
                "resident_dtype": str(info.resident_dtype),
                "resident_bytes": info.nbytes,
                "chunk_shape": info.chunk_shape,
                "physical_sizes": dict(info.physical_sizes),
                "origin": dict(info.calibration.origin),
                "time_interval": info.calibration.time_interval,
                "fits": budget.holds(info.nbytes),
                **({"values": asdict(files.values[i])} if files.values else {}),
            }
            for i, info in enumerate(files.infos)
        ],
        "errors": files.errors,
        "remarks": files.remarks,
        **({"results": as_json(files.results)} if files.results else {}),
        "resident_bytes": total,
        "device": budget.device,
        "free_bytes": budget.free,
        "budget_bytes": budget.limit,
        "fits": budget.holds(total),
    }


def _as_table(files: _Files, budget: Budget) -> list[str]:
    infos = files.infos
    rows = [_HEAD, *(_cells(info, budget) for info in infos)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines = (lines if infos else []) + lines_of(files.results)
    lines += [
        f"error: {message}" if name in message else f"error: {name}: {message}"
        for name, message in files.errors.items()
    ]
    if not infos:
        return lines
    lines += [f"note: {remark}" for remark in files.remarks]
    found = zip(infos, files.values, strict=False)
    wrong = [f"values: {info.path}: {counts}" for info, counts in found if str(counts)]
    if files.values:
        lines += wrong or ["values: all are finite, and no sample holds one value alone"]
    lines += [files.together] * bool(files.together)
    total = sum(info.nbytes for info in infos)
    limit = "without a limit" if budget.limit is None else f"may take {size_text(budget.limit)}"
    free = "" if budget.free is None else f", {size_text(budget.free)} are free"
    verdict = (
        "they fit" if budget.holds(total) else "they do not fit: open_images keeps them by chunk"
    )
    return [
        *lines,
        f"images: {len(infos)}, together {size_text(total)}; "
        f"on {budget.device} they {limit}{free}: {verdict}",
    ]


def _cells(info: ImageInfo, budget: Budget) -> tuple[str, ...]:
    sizes = (f"{axis} {size:.3g}" for axis, size in info.physical_sizes.items())
    stored, resident = str(info.dtype), str(info.resident_dtype)
    return (
        "×".join(map(str, info.shape)),
        f"{info.axes} ({info.colours})" if info.colours else info.axes,
        stored if info.dtype == info.resident_dtype else f"{stored} as {resident}",
        size_text(info.nbytes),
        "×".join(map(str, info.chunk_shape)),
        ", ".join(sizes) or "–",
        "yes" if budget.holds(info.nbytes) else "no",
        info.format,
        info.path,
    )

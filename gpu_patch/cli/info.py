"""``gpu-patch info``: what image files hold, and whether it fits, before anything is loaded.

Without files it tells of the machine: machine_info.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_patch import device as devices
from gpu_patch.checks import argument
from gpu_patch.cli.arguments import Commands, add_budget, add_reading, said, whole
from gpu_patch.cli.machine.report import show
from gpu_patch.cli.text import counted
from gpu_patch.images import named_once, sources
from gpu_patch.images.agreement import check_images, single_slices
from gpu_patch.images.budget import Budget, make_budget, size_text
from gpu_patch.images.readers import ImageInfo, Options, open_file
from gpu_patch.images.remarks import remarks_on

_HEAD = ("shape", "axes", "type", "resident", "chunks", "pixel, µm", "fits", "format", "file")
_FLAGS = ("allow_missing_chunks", "keep_alpha", "allow_outside")


def add_to(commands: Commands) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "info",
        help="tell what image files hold; without files, what this machine has",
        description="Tell shape, axes, data type, bytes, chunks and pixel sizes of image files, "
        "and whether they fit in memory together. Nothing is loaded. Without files: versions, "
        "devices, CuPy, the kernel cache, optional packages, and the one thing to fix.",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="an image, a pattern, or a folder of images"
    )
    parser.add_argument("--axes", help="axes of every image; default: what the file says")
    parser.add_argument("--level", type=whole(0), help="resolution level (default: 0)")
    parser.add_argument("--device", help="where images should go: cpu, cuda or cuda:N")
    add_budget(parser)
    add_reading(parser)
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
        return show(options.device, as_json=options.json, check=options.check)
    if options.check:
        raise ValueError("argument --check: is about the machine: give no FILE")
    budget = make_budget(devices.resolve(options.device), options.memory_budget)
    infos: list[ImageInfo] = []
    errors: dict[str, str] = {}
    remarks: list[str] = []
    # what is missing is counted below
    wanted = Options(
        options.axes,
        options.level or 0,
        "all",
        allow_missing_chunks=True,
        keep_alpha=options.keep_alpha,
        allow_outside=options.allow_outside,
    )
    seen: set[Path] = set()
    for name in named_once(options.files, allow_outside=options.allow_outside):
        try:
            for path in sources(name, allow_outside=options.allow_outside):
                if path in seen:
                    continue
                seen.add(path)
                try:
                    for reader in open_file(path, wanted):
                        with reader:
                            reader.check()
                            infos.append(reader.info)
                            missing = reader.missing()
                        if missing and options.allow_missing_chunks:
                            remarks.append(f"{reader.info.path}: {missing}")
                        elif missing:
                            option = argument("allow_missing_chunks", True)
                            errors[reader.info.path] = f"{missing}: {option} reads the rest"
                except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
                    errors[str(path)] = said(error)
        except OSError as error:  # a pattern that nothing matches, a folder without images
            errors[str(name)] = said(error)
    if options.json:
        print(json.dumps(_as_json(infos, errors, remarks, budget), indent=2))
    else:
        print("\n".join(_as_table(infos, errors, remarks, budget)))
    if errors:
        raise ValueError(f"{counted(len(errors), 'file')} cannot be read")
    return None


def _as_json(
    infos: Sequence[ImageInfo], errors: dict[str, str], remarks: Sequence[str], budget: Budget
) -> dict[str, Any]:
    total = sum(info.nbytes for info in infos)
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
            }
            for info in infos
        ],
        "errors": errors,
        "remarks": [*remarks, *remarks_on(infos)],
        "resident_bytes": total,
        "device": budget.device,
        "free_bytes": budget.free,
        "budget_bytes": budget.limit,
        "fits": budget.holds(total),
    }


def _as_table(
    infos: Sequence[ImageInfo], errors: dict[str, str], remarks: Sequence[str], budget: Budget
) -> list[str]:
    rows = [_HEAD, *(_cells(info, budget) for info in infos)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines = lines if infos else []
    lines += [
        f"error: {message}" if name in message else f"error: {name}: {message}"
        for name, message in errors.items()
    ]
    if not infos:
        return lines
    lines += [f"note: {remark}" for remark in (*remarks, *remarks_on(infos))]
    try:
        check_images(infos)
        if any(single_slices(infos)):
            lines.append("note: opened together, images of one slice are stacks of it")
    except ValueError as error:
        lines.append(f"not to be opened together: {error}")
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

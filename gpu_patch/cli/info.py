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
from gpu_patch.cli.arguments import Commands, add_budget, said, whole
from gpu_patch.cli.machine.report import show
from gpu_patch.cli.text import counted
from gpu_patch.images import named_once, sources
from gpu_patch.images._agreement import check_agreement
from gpu_patch.images._budget import Budget, make_budget, size_text
from gpu_patch.images.readers import ImageInfo, ImageReader, Options, open_file

_HEAD = ("shape", "axes", "type", "resident", "chunks", "pixel, µm", "fits", "format", "file")


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
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--check",
        action="store_true",
        help="without files: say in one line whether images can go to the device, and fail with "
        "the one thing to fix; takes no memory of the device",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if not options.files:
        given = {name: getattr(options, name) for name in ("axes", "level", "memory_budget")}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"--{name.replace('_', '-')} is about files: give a FILE")
        return show(options.device, as_json=options.json, check=options.check)
    if options.check:
        raise ValueError("argument --check: is about the machine: give no FILE")
    budget = make_budget(devices.resolve(options.device), options.memory_budget)
    infos: list[ImageInfo] = []
    errors: dict[str, str] = {}
    wanted = Options(options.axes, options.level or 0, scene="all")
    seen: set[Path] = set()
    for name in named_once(options.files):
        try:
            for path in sources(name):
                try:
                    infos += map(_checked, [] if path in seen else open_file(path, wanted))
                    seen.add(path)
                except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
                    errors[str(path)] = said(error)
        except OSError as error:  # a pattern that nothing matches, a folder without images
            errors[str(name)] = said(error)
    if options.json:
        print(json.dumps(_as_json(infos, errors, budget), indent=2))
    else:
        print("\n".join(_as_table(infos, errors, budget)))
    if errors:
        raise ValueError(f"{counted(len(errors), 'file')} cannot be read")
    return None


def _checked(reader: ImageReader) -> ImageInfo:
    with reader:
        reader.check()
        return reader.info


def _as_json(infos: Sequence[ImageInfo], errors: dict[str, str], budget: Budget) -> dict[str, Any]:
    total = sum(info.nbytes for info in infos)
    return {
        "images": [
            {
                "path": info.path,
                "format": info.format,
                "shape": info.shape,
                "axes": info.axes,
                "dtype": str(info.dtype),
                "canonical_shape": info.canonical_shape,
                "resident_dtype": str(info.resident_dtype),
                "resident_bytes": info.nbytes,
                "chunk_shape": info.chunk_shape,
                "physical_sizes": dict(info.physical_sizes),
                "fits": budget.holds(info.nbytes),
            }
            for info in infos
        ],
        "errors": errors,
        "resident_bytes": total,
        "device": budget.device,
        "free_bytes": budget.free,
        "budget_bytes": budget.limit,
        "fits": budget.holds(total),
    }


def _as_table(infos: Sequence[ImageInfo], errors: dict[str, str], budget: Budget) -> list[str]:
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
    try:
        check_agreement([info.path for info in infos], [info.canonical_shape for info in infos])
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
        info.axes,
        stored if info.dtype == info.resident_dtype else f"{stored} as {resident}",
        size_text(info.nbytes),
        "×".join(map(str, info.chunk_shape)),
        ", ".join(sizes) or "–",
        "yes" if budget.holds(info.nbytes) else "no",
        info.format,
        info.path,
    )

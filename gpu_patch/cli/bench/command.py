"""``gpu-patch bench``: how fast this machine makes batches, beside what else would make them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from gpu_patch.cli.arguments import (
    Commands,
    add_json,
    needs,
    path_named,
    picture_file,
    whole,
    writable,
)
from gpu_patch.cli.bench import by_chunk_table
from gpu_patch.cli.bench.report import report
from gpu_patch.cli.bench.workloads import CONSTRUCTORS, USUAL_BATCH, curves, settings_of
from gpu_patch.device import resolve
from gpu_patch.plots.bench import panels, plot_bench
from gpu_patch.plots.by_chunk import plot_by_chunk

Measured: TypeAlias = tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]
"""All figures, and what draws them."""


def add_to(commands: Commands) -> None:
    """Add the command to a parser."""
    parser = commands.add_parser(
        "bench",
        help="time batches on this machine, beside what else would make them",
        description="Time batches on random uint16 images with two channels (2048×2048, patches of "
        "64×64; in 3D 64×512×512, patches of 16×64×64): of every constructor on one thread of the "
        "CPU, or on a GPU beside what one would do there without gpu_patch.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer scales and batches: less exact")
    add_json(parser)
    parser.add_argument(
        "--plot",
        type=path_named,
        metavar="FILE",
        help="also draw patches per second over scales and over batch sizes here; measures "
        "multichannel alone, unless the next three options say otherwise",
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", nargs="+", type=whole(1), metavar="N", help=f"default: {USUAL_BATCH}"
    )
    parser.add_argument(
        "--constructors",
        nargs="+",
        choices=CONSTRUCTORS,
        metavar="NAME",
        help="some of: %(choices)s; default: all, on a GPU multichannel",
    )
    parser.add_argument(
        "--scales",
        nargs="+",
        type=whole(1, 8),
        metavar="N",
        help="numbers of scales, for 2D constructors with context "
        "(default: 1 2 3 4 5; with --quick 1 4, and 1 2 4 for --plot; on a GPU 4)",
    )
    parser.add_argument(
        "--by-chunk",
        nargs="?",
        const=Path(),
        type=path_named,
        metavar="PATH",
        help="instead: images that are larger than memory, beside other ways to read patches out "
        "of files; of PATH, or of a Zarr that is written for it (67 MB)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.json is not None:
        writable("--json", options.json)
    if options.plot is not None:
        needs("bench --plot", "matplotlib.figure")
        picture_file("--plot", options.plot)
    document, plot = (_by_chunk if options.by_chunk is not None else _resident)(options)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"\nwritten  {options.json}")
    if options.plot is not None:
        plot(document).savefig(options.plot)
        print(f"\npicture  {options.plot}")


def _resident(options: argparse.Namespace) -> Measured:
    chosen = (options.constructors, options.scales, options.batch_size)
    settings = settings_of(
        resolve(options.device),
        quick=options.quick,
        **dict(zip(("constructors", "scales", "batch_sizes"), chosen, strict=True)),
        workloads=curves(options.quick) if options.plot and not any(chosen) else None,
    )
    if options.plot is not None:
        panels(settings["workloads"])
    return report(settings), plot_bench


def _by_chunk(options: argparse.Namespace) -> Measured:
    others = {
        "--device": resolve(options.device) != "cpu",
        "--batch-size": options.batch_size,
        "--constructors": options.constructors,
        "--scales": options.scales,
    }
    if given := [name for name, value in others.items() if value]:
        raise ValueError(f"argument --by-chunk: goes without {' and '.join(given)}")
    path = options.by_chunk
    if path == Path():
        needs("bench --by-chunk", "zarr")
    elif not path.exists():
        raise FileNotFoundError(f"argument --by-chunk: there is no {path}")
    settings = {
        "device": "cpu",
        "by_chunk": "" if path == Path() else str(path.absolute()),
        "quick": options.quick,
    }
    return by_chunk_table.report(settings), plot_by_chunk

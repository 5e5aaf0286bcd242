"""``gpu-patch bench``: how fast this machine makes batches, beside what else would make them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from gpu_patch.cli import chart, cuda_bench
from gpu_patch.cli.arguments import Commands, needs, path_named, picture_file, whole, writable
from gpu_patch.cli.measure import measured
from gpu_patch.cli.tables import head, line, machine_lines
from gpu_patch.cli.workloads import CONSTRUCTORS, USUAL_BATCH, Workload, curves, workloads_of
from gpu_patch.device import resolve

_BUDGET, _QUICK_BUDGET = 2.0, 0.3
_SCALES, _QUICK_SCALES = [1, 2, 3, 4, 5], [1, 4]

_COLUMNS = (
    ("constructor", 16),
    ("scales", 6),
    ("batch", 6),
    ("µs/patch", 9),
    ("patches/s", 10),
    ("floor µs", 9),
    ("careamics µs", 13),
    ("ratio", 7),
    ("peak MB", 8),
    ("outputs MB", 11),
    ("extra/windows", 14),
)
_LEGEND = """\
µs/patch       median over batches of different patches of one epoch, one thread
floor          the largest windows read once and the outputs written once, at the copy bandwidth
careamics      the same case, patch by patch, in a process of its own between ours
ratio          careamics / gpu_patch
peak           most memory that a batch holds at once beyond the images, its outputs included
extra/windows  (peak - outputs) / the bytes of the batch's largest windows"""


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
    parser.add_argument(
        "--json", type=path_named, metavar="FILE", help="also write the figures here"
    )
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.json is not None:
        writable("--json", options.json)
    chosen = (options.constructors, options.scales, options.batch_size)
    choice = {
        "quick": options.quick,
        **dict(zip(("constructors", "scales", "batch_sizes"), chosen, strict=True)),
        "workloads": curves(options.quick) if options.plot and not any(chosen) else None,
    }
    device = resolve(options.device)
    settings = (
        settings_of(**choice) if device == "cpu" else cuda_bench.settings_of(device, **choice)
    )
    if options.plot is not None:
        needs("bench --plot", "matplotlib.figure")
        picture_file("--plot", options.plot)
        chart.panels(settings["workloads"])
    document = report(settings) if device == "cpu" else cuda_bench.report(settings)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"\nwritten  {options.json}")
    if options.plot is not None:
        chart.draw(document, options.plot)
        print(f"\npicture  {options.plot}")


def settings_of(
    *,
    quick: bool,
    constructors: list[str] | None,
    scales: list[int] | None,
    batch_sizes: list[int] | None,
    workloads: list[Workload] | None = None,
) -> dict[str, Any]:
    """Return what to measure on the CPU: every constructor, or what is asked for."""
    return {
        "workloads": workloads
        or workloads_of(
            constructors or CONSTRUCTORS,
            scales or (_QUICK_SCALES if quick else _SCALES),
            batch_sizes or [USUAL_BATCH],
        ),
        "budget": _QUICK_BUDGET if quick else _BUDGET,
        "device": "cpu",
    }


def report(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure, print the table, and return all figures."""
    records = measured(settings)
    machine = next(records)
    print_machine(machine)
    rows = []
    for row in records:
        rows.append(row)
        print(format_row(row), flush=True)
    print(f"\n{_LEGEND}")
    return {"machine": machine, "settings": settings, "rows": rows}


def print_machine(machine: dict[str, Any]) -> None:
    """Print what is measured on, and the head of the table."""
    print("\n".join(machine_lines(machine)))
    careamics = machine["careamics"]
    without = ": its columns stay empty" if careamics.startswith("not ") else ""
    print(f"careamics  {careamics}{without}")
    print(f"copying    {machine['copy_bytes_per_second'] / 1e9:.1f} GB/s, read and written\n")
    print(head(_COLUMNS))


def format_row(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    ours, theirs = row["seconds_per_patch"], row["careamics_seconds_per_patch"]
    extra = (row["peak_bytes"] - row["output_bytes"]) / row["largest_window_bytes"]
    cells = (
        row["constructor"],
        str(row["n_scales"] or "-"),
        str(row["batch_size"]),
        f"{ours * 1e6:.1f}",
        f"{1 / ours:.0f}",
        f"{row['floor_seconds_per_patch'] * 1e6:.1f}",
        f"{theirs * 1e6:.0f}" if theirs else "-",
        f"{theirs / ours:.1f}" if theirs else "-",
        f"{row['peak_bytes'] / 1e6:.1f}",
        f"{row['output_bytes'] / 1e6:.1f}",
        f"{extra:.2f}",
    )
    return line(_COLUMNS, cells)

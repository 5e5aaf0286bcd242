"""``gpu-patch bench``: how fast this machine makes batches, beside careamics where it is there."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_patch
from gpu_patch.cli.arguments import Commands, whole, writable
from gpu_patch.cli.measure import CONSTRUCTORS, command

_ONE_THREAD = ("OMP", "OPENBLAS", "MKL", "VECLIB")
_BUDGET, _QUICK_BUDGET = 2.0, 0.3
_SCALES, _QUICK_SCALES = [1, 2, 3, 4, 5], [1, 4]

_COLUMNS = (
    ("constructor", 16),
    ("scales", 6),
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
        help="time batches on this machine, beside careamics where it is installed",
        description="Time batches of every constructor on random uint16 images with two channels "
        "(2048×2048, patches of 64×64; in 3D 64×512×512, patches of 16×64×64), on one thread.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer scales and batches: less exact")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    # times of asynchronous launches would mean nothing: tests/cuda/gpu_check.py takes those
    parser.add_argument("--device", choices=["cpu"], default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--batch-size", type=whole(1), default=32, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--constructors",
        nargs="+",
        choices=CONSTRUCTORS,
        default=list(CONSTRUCTORS),
        metavar="NAME",
        help="some of: %(choices)s; default: all",
    )
    parser.add_argument(
        "--scales",
        nargs="+",
        type=whole(1, 8),
        metavar="N",
        help="numbers of scales, for 2D constructors with context "
        "(default: 1 2 3 4 5, with --quick 1 4)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.json is not None:
        writable("--json", options.json)
    settings = {
        "constructors": options.constructors,
        "scales": options.scales or (_QUICK_SCALES if options.quick else _SCALES),
        "batch_size": options.batch_size,
        "budget": _QUICK_BUDGET if options.quick else _BUDGET,
        "device": options.device,
    }
    records = measured(settings)
    machine = next(records)
    print_machine(machine, options.batch_size)
    rows = []
    for row in records:
        rows.append(row)
        print(format_row(row), flush=True)
    print(f"\n{_LEGEND}")
    if options.json is not None:
        document = {"machine": machine, "settings": settings, "rows": rows}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"\nwritten  {options.json}")


def measured(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Measure in a process that has one thread; yield its records as they come."""
    environment = dict(os.environ)
    environment.update({f"{library}_NUM_THREADS": "1" for library in _ONE_THREAD})
    # the process is to measure this very package, installed or not
    here = str(Path(gpu_patch.__file__).parent.parent)
    known = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = here + (os.pathsep + known if known else "")
    with subprocess.Popen(
        command(settings), env=environment, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise RuntimeError(f"the measuring process ended with status {process.returncode}")


def print_machine(machine: dict[str, Any], batch_size: int) -> None:
    """Print what is measured on, and the head of the table."""
    load = "" if machine["load"] is None else f", load before {machine['load']:.1f}"
    print(f"machine    {machine['cpu']}, {machine['n_cores']} cores, one thread used{load}")
    print(
        f"software   gpu_patch {machine['gpu_patch']}, Python {machine['python']}, "
        f"NumPy {machine['numpy']}"
    )
    careamics = machine["careamics"]
    without = ": its columns stay empty" if careamics.startswith("not ") else ""
    print(f"careamics  {careamics}{without}")
    print(f"copying    {machine['copy_bytes_per_second'] / 1e9:.1f} GB/s, read and written")
    print(f"batches    of {batch_size}\n")
    print(_line(*(name for name, _ in _COLUMNS)))


def format_row(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    ours, theirs = row["seconds_per_patch"], row["careamics_seconds_per_patch"]
    extra = (row["peak_bytes"] - row["output_bytes"]) / row["largest_window_bytes"]
    cells = (
        str(row["n_scales"] or "-"),
        f"{ours * 1e6:.1f}",
        f"{1 / ours:.0f}",
        f"{row['floor_seconds_per_patch'] * 1e6:.1f}",
        f"{theirs * 1e6:.0f}" if theirs else "-",
        f"{theirs / ours:.1f}" if theirs else "-",
        f"{row['peak_bytes'] / 1e6:.1f}",
        f"{row['output_bytes'] / 1e6:.1f}",
        f"{extra:.2f}",
    )
    return _line(str(row["constructor"]), *cells)


def _line(name: str, *cells: str) -> str:
    widths = [width for _, width in _COLUMNS[1:]]
    aligned = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return name.ljust(_COLUMNS[0][1]) + "".join(aligned)

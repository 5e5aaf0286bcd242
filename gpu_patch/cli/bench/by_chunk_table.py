"""The table of ``gpu-patch bench --by-chunk``."""

from __future__ import annotations

from typing import Any

from gpu_patch.cli.bench.process import measured
from gpu_patch.cli.text import head, line, machine_lines

_COLUMNS = (
    ("patches", 22),
    ("scales", 7),
    ("patches/s", 11),
    ("of resident", 12),
    ("read", 7),
    ("MB/s", 7),
    ("waited", 8),
    ("strips", 8),
)
_LEGEND = """\
resident          all images in memory, in random order
paged             in the order "sweep", within the budget; planning of the epoch included
tensorstore loop  each patch cut by tensorstore, with a cache of the budget, at the same places
reader alone      each page read once, by what reads paged images; nothing is made of them
torch DataLoader  a worker per core cuts them there by zarr-python; after all have started
read, MB/s        bytes read in the epoch, or until it was stopped, as a part of the images'
waited            part of the time that batches waited for pages which had not been read ahead"""


def report(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure, print the table, and return all figures."""
    records = measured(settings)
    machine = next(records)
    rows: list[dict[str, Any]] = []
    print(
        *machine_lines(machine, f"{machine['n_threads']} threads used"),
        f"images     {machine['images']}: {machine['image_bytes'] / 1e6:.0f} MB, of which "
        f"{machine['budget_bytes'] / 1e6:.0f} MB may be in memory",
        "",
        head(_COLUMNS),
        sep="\n",
    )
    for row in records:
        rows.append(row)
        print(row_line(row, rows, machine["image_bytes"]), flush=True)
    print(f"\n{_LEGEND}")
    return {"machine": machine, "settings": settings, "rows": rows}


def row_line(row: dict[str, Any], rows: list[dict[str, Any]], image_bytes: int) -> str:
    """Return a row of the table, beside the resident one of as many scales."""
    scales = str(row["n_scales"] or "-")
    if "skipped" in row:
        (_, first), (_, second), *_ = _COLUMNS
        return f"{row['name'].ljust(first)}{scales.rjust(second)}   not measured: {row['skipped']}"
    resident = speed_of(rows, "resident", row["n_scales"])
    speed = row["patches_per_second"]
    cells = [row["name"], scales, f"{speed:.0f}", f"{speed / resident:.2f}" if resident else "-"]
    if "bytes_read" in row:
        cells += (
            f"{row['bytes_read'] / image_bytes:.2f}",
            f"{row['megabytes_per_second']:.0f}",
            f"{row['waited_share']:.1%}",
            str(row["n_strips"] or "-"),
        )
    return line(_COLUMNS, [*cells, *["-"] * (len(_COLUMNS) - len(cells))])


def speed_of(rows: list[dict[str, Any]], name: str, n_scales: int) -> float | None:
    """Return the patches a second of a contender, None where it was not measured."""
    for row in rows:
        if (row["name"], row["n_scales"]) == (name, n_scales):
            found: float | None = row.get("patches_per_second")
            return found
    return None

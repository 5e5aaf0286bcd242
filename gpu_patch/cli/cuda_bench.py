"""``gpu-patch bench --device cuda``: how fast the GPU makes batches, beside what it replaces."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from gpu_patch.cli.measure import measured
from gpu_patch.cli.tables import head, line, machine_lines
from gpu_patch.cli.workloads import USUAL_BATCH, Workload, workloads_of

WORKLOADS = [
    Workload("multichannel", 4, 32),
    Workload("multichannel", 4, 256),
    Workload("multichannel-3d", 3, 16),
]
"""What must be fast."""
OTHER_WORKLOADS = workloads_of(["multichannel", "basic"], [1, 2, 3, 5], [32])
_BUDGET, _QUICK_BUDGET = 1.0, 0.2

_COLUMNS = (
    ("constructor", 16),
    ("scales", 6),
    ("batch", 6),
    ("device µs", 10),
    ("min-max", 11),
    ("floor µs", 9),
    ("ratio", 6),
    ("patches/s", 10),
    ("elapsed µs", 11),
    ("host µs", 8),
    ("launch µs", 10),
    ("added MB", 9),
    ("added %", 8),
)
_LEGEND = """\
device         what the GPU works on a batch, by events while its queue is full; medians
floor          pixels read once and outputs written once, at the copy bandwidth
ratio          device / floor
patches/s      batch / device
elapsed        a batch in a loop that does nothing else, host and device together
host, launch   what construct_batch takes the host without waiting; what of it is not planning
added          device memory beyond the images after some batches, also as a part of the images"""

_OTHER_COLUMNS = (
    ("  instead", 32),
    ("device µs", 12),
    ("× ours", 8),
    ("elapsed µs", 12),
    ("× ours", 8),
    ("differs by", 12),
)
_OTHER_LEGEND = """\
device         where the host is slower than the device: the time between two batches
differs by     the largest difference from ours, as a part of the largest value"""


def settings_of(
    device: str,
    *,
    quick: bool = False,
    constructors: Sequence[str] | None = None,
    scales: Sequence[int] | None = None,
    batch_sizes: Sequence[int] | None = None,
    workloads: Sequence[Workload] | None = None,
) -> dict[str, Any]:
    """Return what to measure: the usual workloads, or those asked for."""
    if constructors is None and scales is None and batch_sizes is None:
        usual = WORKLOADS if quick else WORKLOADS + OTHER_WORKLOADS
    else:
        usual = workloads_of(
            constructors or ["multichannel"], scales or [4], batch_sizes or [USUAL_BATCH]
        )
    return {
        "device": device,
        "workloads": list(workloads or usual),
        "budget": _QUICK_BUDGET if quick else _BUDGET,
    }


def report(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure, print the tables, and return all figures."""
    records = measured(settings)
    machine = next(records)
    print("\n".join(cuda_machine_lines(machine)), end="\n\n")
    rows = list(_printed(records))
    print(f"\n{_LEGEND}\n")
    for row in rows:
        print("\n".join(alternative_lines(row)))
    print(f"\n{_OTHER_LEGEND}\n")
    first = first_batches(settings["device"])
    print("\n".join(first_batch_lines(first)), flush=True)
    return {"machine": machine, "settings": settings, "rows": rows, "first_batch": first}


def first_batches(device: str) -> dict[str, dict[str, float]]:
    """Time the first batch of two fresh processes: kernels are compiled, then found compiled."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {"CUPY_CACHE_DIR": folder, "CUDA_CACHE_PATH": folder}
        for cache in ("cold", "warm"):
            settings = {"device": device, "first_batch_since": time.time()}
            (times[cache],) = measured(settings, environment)
    return times


def cuda_machine_lines(machine: dict[str, Any]) -> list[str]:
    """Say what the GPU's figures were measured on."""
    driver = "" if machine["driver"] is None else f", driver {machine['driver']}"
    return [
        f"GPU        {machine['gpu']}, {machine['memory_bytes'] / 1e9:.0f} GB, compute capability "
        f"{machine['compute_capability']}, cache {machine['cache_bytes'] / 1e6:.0f} MB",
        f"CUDA       {machine['cuda_runtime']}{driver} (up to CUDA {machine['cuda_driver']}), "
        f"CuPy {machine['cupy']}",
        *machine_lines(machine),
        f"copying    {machine['copy_bytes_per_second'] / 1e9:.0f} GB/s there, read and written",
    ]


def format_row(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    device: float = row["device_seconds"]
    low, high = row["device_seconds_range"]
    cells = (
        row["constructor"],
        str(row["n_scales"] or "-"),
        str(row["batch_size"]),
        _micro(device),
        f"{low * 1e6:.0f}-{high * 1e6:.0f}",
        _micro(row["floor_seconds"]),
        f"{device / row['floor_seconds']:.2f}",
        f"{row['batch_size'] / device:.0f}",
        _micro(row["elapsed_seconds"]),
        _micro(row["host_seconds"]),
        _micro(row["launch_seconds"]),
        f"{row['added_bytes'] / 1e6:.1f}",
        f"{row['added_bytes'] / row['image_bytes']:.2%}",
    )
    return line(_COLUMNS, cells)


def alternative_lines(row: dict[str, Any]) -> list[str]:
    """Return the small table of what one would do instead."""
    scales = row["n_scales"] or "-"
    title = f"{row['constructor']}, scales {scales}, batch {row['batch_size']}"
    lines = [title, head(_OTHER_COLUMNS)]
    for other in row["alternatives"]:
        name = f"  {other['name']}"
        if "skipped" in other:
            lines.append(f"{name.ljust(_OTHER_COLUMNS[0][1])}  not measured: {other['skipped']}")
            continue
        cells = [name]
        for time_of in ("device_seconds", "elapsed_seconds"):
            seconds = other.get(time_of)
            cells += (
                ["-", "-"]
                if seconds is None
                else [_micro(seconds), f"{seconds / row[time_of]:.1f}"]
            )
        difference = other.get("difference")
        cells.append("-" if difference is None else f"{difference:.1e}")
        lines.append(line(_OTHER_COLUMNS, cells))
    return lines


def first_batch_lines(first: dict[str, dict[str, float]]) -> list[str]:
    """Say how long the first batch of a process takes."""
    return [
        f"first batch, {cache} kernel cache: {times['first_batch_seconds']:.2f} s, the second "
        f"{times['second_batch_seconds'] * 1e3:.1f} ms; before it importing "
        f"{times['import_seconds']:.2f} s and images {times['images_seconds']:.2f} s; "
        f"{times['total_seconds']:.2f} s since the process started"
        for cache, times in first.items()
    ]


def _printed(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    print(head(_COLUMNS))
    for row in rows:
        print(format_row(row), flush=True)
        yield row


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}"

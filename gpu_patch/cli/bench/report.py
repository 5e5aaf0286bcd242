"""The tables of ``gpu-patch bench``, of the CPU and of GPUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpu_patch.cli.bench.process import first_batches, measured
from gpu_patch.cli.text import Columns, head, line, machine_lines

_CPU_COLUMNS = (
    ("constructor", 16),
    ("scales", 6),
    ("batch", 6),
    ("µs/patch", 9),
    ("patches/s", 10),
    ("NumPy", 9),
    ("threads", 9),
    ("floor µs", 9),
    ("careamics µs", 13),
    ("ratio", 7),
    ("peak MB", 8),
    ("outputs MB", 11),
    ("extra/windows", 14),
)
_CPU_LEGEND = """\
µs/patch       median over batches of different patches of one epoch, one thread
NumPy          the same without the compiled kernels
threads        the same with all threads
floor          the largest windows read once and the outputs written once, at the copy bandwidth
careamics      the same case, patch by patch, in a process of its own between ours
ratio          careamics / gpu_patch
peak           most memory that a batch holds at once beyond the images, its outputs included
extra/windows  (peak - outputs) / the bytes of the batch's largest windows"""

_CUDA_COLUMNS = (
    ("constructor", 16),
    ("scales", 6),
    ("batch", 6),
    ("device µs", 10),
    ("min-max", 11),
    ("floor µs", 9),
    ("ratio", 6),
    ("model µs", 16),
    ("patches/s", 10),
    ("elapsed µs", 11),
    ("host µs", 8),
    ("launch µs", 10),
    ("added MB", 9),
    ("added %", 8),
)
_CUDA_LEGEND = """\
device         what the GPU works on a batch, by events while its queue is full; medians
floor          pixels read once and outputs written once, at the copy bandwidth
ratio          device / floor
model          what it should be, not measured, and what limits it by gpu_patch.cli.bench.model
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


def report(
    settings: dict[str, Any], keep: Callable[[dict[str, Any]], object] = lambda document: None
) -> dict[str, Any]:
    """Measure, print the tables, and return all figures; `keep` is called with those so far."""
    records = measured(settings)
    machine = next(records)
    rows: list[dict[str, Any]] = []
    document = {"machine": machine, "settings": settings, "rows": rows}

    def print_rows(columns: Columns, format_row: Callable[[dict[str, Any]], str]) -> None:
        print(head(columns))
        for row in records:
            print(format_row(row), flush=True)
            rows.append(row)
            keep(document)

    if settings["device"] == "cpu":
        print("\n".join(cpu_machine_lines(machine)), end="\n\n")
        print_rows(_CPU_COLUMNS, cpu_row)
        print(f"\n{_CPU_LEGEND}")
        return document
    print("\n".join(cuda_machine_lines(machine)), end="\n\n")
    print_rows(_CUDA_COLUMNS, cuda_row)
    print(f"\n{_CUDA_LEGEND}\n")
    for row in rows:
        print("\n".join(alternative_lines(row)))
    print(f"\n{_OTHER_LEGEND}\n")
    first = first_batches(settings["device"])
    print("\n".join(first_batch_lines(first)), flush=True)
    return {**document, "first_batch": first}


def cpu_machine_lines(machine: dict[str, Any]) -> list[str]:
    """Say what the CPU's figures were measured on."""
    careamics = machine["careamics"]
    without = ": its columns stay empty" if careamics.startswith("not ") else ""
    return [
        *machine_lines(machine),
        f"kernels    {_kernels(machine)}",
        f"careamics  {careamics}{without}",
        f"copying    {machine['copy_bytes_per_second'] / 1e9:.1f} GB/s, read and written",
    ]


def _kernels(machine: dict[str, Any]) -> str:
    if machine["kernels"] is None:
        return "NumPy computes; gpu-patch info says why"
    return f"compiled for {machine['kernels']}; all threads are {machine['n_threads']}"


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


def cpu_row(row: dict[str, Any]) -> str:
    """Return a row of the CPU's table."""
    ours, theirs = row["seconds_per_patch"], row["careamics_seconds_per_patch"]
    extra = (row["peak_bytes"] - row["output_bytes"]) / row["largest_window_bytes"]
    cells = (
        row["constructor"],
        str(row["n_scales"] or "-"),
        str(row["batch_size"]),
        f"{ours * 1e6:.1f}",
        f"{1 / ours:.0f}",
        _micro_or_none(row["numpy_seconds_per_patch"]),
        _micro_or_none(row["threads_seconds_per_patch"]),
        f"{row['floor_seconds_per_patch'] * 1e6:.1f}",
        f"{theirs * 1e6:.0f}" if theirs else "-",
        f"{theirs / ours:.1f}" if theirs else "-",
        f"{row['peak_bytes'] / 1e6:.1f}",
        f"{row['output_bytes'] / 1e6:.1f}",
        f"{extra:.2f}",
    )
    return line(_CPU_COLUMNS, cells)


def cuda_row(row: dict[str, Any]) -> str:
    """Return a row of the GPU's table."""
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
        _model_cell(row.get("model_seconds")),
        f"{row['batch_size'] / device:.0f}",
        _micro(row["elapsed_seconds"]),
        _micro(row["host_seconds"]),
        _micro(row["launch_seconds"]),
        f"{row['added_bytes'] / 1e6:.1f}",
        f"{row['added_bytes'] / row['image_bytes']:.2%}",
    )
    return line(_CUDA_COLUMNS, cells)


def _model_cell(limits: dict[str, float] | None) -> str:
    if limits is None:
        return "-"
    limit = max(limits, key=limits.__getitem__)
    return f"{_micro(limits[limit])} {limit}"


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


def _micro_or_none(seconds: float | None) -> str:
    return "-" if seconds is None else _micro(seconds)


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}"

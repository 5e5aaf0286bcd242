"""Lines of tables."""

from __future__ import annotations

from collections.abc import Sequence

Columns = Sequence[tuple[str, int]]
"""Names and widths."""


def head(columns: Columns) -> str:
    """Return the line of names."""
    return line(columns, [name for name, _ in columns])


def line(columns: Columns, cells: Sequence[str]) -> str:
    """Return a line: the first cell to the left, numbers to the right."""
    (first, *others), (_, *widths) = cells, [width for _, width in columns]
    aligned = (cell.rjust(width) for cell, width in zip(others, widths, strict=True))
    return first.ljust(columns[0][1]) + "".join(aligned)


def machine_lines(machine: dict[str, object], used: str = "one thread used") -> list[str]:
    """Say what the CPU's figures were measured on."""
    load = "" if machine["load"] is None else f", load before {machine['load']:.1f}"
    commit = "" if machine["commit"] is None else f" ({machine['commit']})"
    return [
        f"machine    {machine['cpu']}, {machine['n_cores']} cores, {used}{load}",
        f"software   gpu_patch {machine['gpu_patch']}{commit}, Python {machine['python']}, "
        f"NumPy {machine['numpy']}, {machine['date']}",
    ]

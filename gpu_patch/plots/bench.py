"""Patches per second over the number of scales and over the batch size, on logarithmic axes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

from gpu_patch.plots.colours import CURVE_STYLES, LIGHT
from gpu_patch.plots.sheet import Sheet

FLOOR = "memory bandwidth"
_PLACE = ("constructor", "n_scales", "batch_size", "window_side")
_USUAL_BATCH = 32
_DPI = 120
_WIDTH, _HEIGHT, _HEAD, _FOOT, _LEFT, _GAP, _RIGHT = 4.6, 3.9, 1.65, 0.95, 0.95, 0.55, 0.3
"""Of a panel and what surrounds it, in inches."""


class Measured(Protocol):
    """What was measured: batches of a constructor.

    `window_side` is the pixels a side of the largest windows.
    """

    @property
    def constructor(self) -> str: ...
    @property
    def n_scales(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def window_side(self) -> int: ...


class Curves(NamedTuple):
    """What one panel shows: what of the workloads is alike, the other is its horizontal axis."""

    constructor: str
    n_scales: int | None
    batch_size: int | None

    def shows(self, workload: Measured) -> bool:
        """Tell whether a workload is one of its points."""
        alike = (self.n_scales in (None, workload.n_scales)) and (
            self.batch_size in (None, workload.batch_size)
        )
        return alike and workload.constructor == self.constructor

    def place(self, workload: Measured) -> int:
        """Return where a workload stands: pixels a side of its largest windows, or patches."""
        if self.n_scales is None:
            return workload.window_side
        return workload.batch_size


def panels(workloads: Sequence[Measured]) -> list[Curves]:
    """Return the panels that show workloads: for each constructor those of two points or more.

    Of several that could show how the scales count, it is the one with most points; so it is for
    the batch size.

    Raises
    ------
    ValueError
        Where there is none.
    """
    found = []
    for constructor in dict.fromkeys(workload.constructor for workload in workloads):
        over_scales, over_batch = defaultdict(set), defaultdict(set)
        for workload in workloads:
            if workload.constructor == constructor:
                over_scales[workload.batch_size].add(workload.n_scales)
                over_batch[workload.n_scales].add(workload.batch_size)
        size = max(over_scales, key=lambda size: (len(over_scales[size]), size == _USUAL_BATCH))
        if len(over_scales[size]) > 1:
            found.append(Curves(constructor, None, size))
        scales = max(over_batch, key=lambda scales: (len(over_batch[scales]), scales))
        if len(over_batch[scales]) > 1:
            found.append(Curves(constructor, scales, None))
    if not found:
        raise ValueError("argument --plot: needs two numbers of scales, or two batch sizes")
    return found


def contenders(row: dict[str, Any]) -> dict[str, float]:
    """Return patches per second of a row of either bench, with those of memory's bandwidth.

    On a GPU they are of a loop that does nothing else, host and device together.
    """
    if "seconds_per_patch" in row:
        seconds = {
            "gpu_patch": row["seconds_per_patch"],
            "careamics": row["careamics_seconds_per_patch"],
            FLOOR: row["floor_seconds_per_patch"],
        }
        return {name: 1 / time for name, time in seconds.items() if time}
    batches = {"gpu_patch": row["elapsed_seconds"], FLOOR: row["floor_seconds"]}
    for other in row["alternatives"]:
        if "elapsed_seconds" in other:
            batches[other["name"]] = other["elapsed_seconds"]
    return {name: row["batch_size"] / time for name, time in batches.items()}


def plot_bench(document: dict[str, Any]) -> Any:
    """Draw what ``gpu-patch bench`` has measured.

    ![Patches per second over scales and over the batch size](../../docs/bench.png)

    Parameters
    ----------
    document : dict
        What ``gpu-patch bench --json`` writes.

    Returns
    -------
    matplotlib.figure.Figure
        A panel over the number of scales for each constructor, or over the batch size, or both: as
        many as there are two points for.

    Raises
    ------
    ValueError
        The rows differ neither in scales nor in batch size.
    ImportError
        matplotlib is missing.
    """
    rows = [
        (SimpleNamespace(**{name: row[name] for name in _PLACE}), contenders(row))
        for row in document["rows"]
    ]
    shown = panels([workload for workload, _ in rows])
    n_columns, n_rows = min(2, len(shown)), (len(shown) + 1) // 2
    width = _LEFT + n_columns * _WIDTH + (n_columns - 1) * _GAP + _RIGHT
    height = _HEAD + n_rows * (_HEIGHT + _FOOT)
    sheet = Sheet(width, height, dpi=_DPI, theme=LIGHT)
    names = dict.fromkeys(name for _, speeds in rows for name in speeds if name != FLOOR)
    styles = dict(zip(names, CURVE_STYLES, strict=False))
    all_axes: list[Any] = []
    for i, panel in enumerate(shown):
        left = _LEFT + i % 2 * (_WIDTH + _GAP)
        top = _HEAD + (i // 2) * (_HEIGHT + _FOOT)
        first = all_axes[0] if all_axes else None
        axes = sheet.axes(left, top, _WIDTH, _HEIGHT, sharey=first)
        all_axes.append(axes)
        points = {panel.place(w): speeds for w, speeds in rows if panel.shows(w)}
        _plot(axes, dict(sorted(points.items())), styles)
        _label(axes, panel, [w for w, _ in rows if panel.shows(w)], first=i % 2 == 0)
    _write_head(sheet, document["machine"], all_axes[0])
    return sheet.figure


def _plot(
    axes: Any, points: dict[int, dict[str, float]], styles: dict[str, tuple[str, str]]
) -> None:
    """Draw a line per contender, and what memory allows as the edge of what nobody reaches."""
    axes.set(xscale="log", yscale="log", facecolor=LIGHT.background)
    most = [speeds[FLOOR] for speeds in points.values()]
    axes.plot(
        list(points), most, color=LIGHT.faint, linewidth=1.4, linestyle=(0, (5, 3)), label=FLOOR
    )
    for order, (name, (colour, mark)) in enumerate(styles.items()):
        known = {x: speeds[name] for x, speeds in points.items() if name in speeds}
        axes.plot(
            list(known),
            list(known.values()),
            color=colour,
            marker=mark,
            markersize=7 if order == 0 else 6,
            markeredgecolor=LIGHT.background,
            linewidth=2.6 if order == 0 else 1.6,
            label=name,
            zorder=5 - 0.1 * order,
        )
    for x, speeds in points.items():
        if "careamics" in speeds:
            ours, theirs = speeds["gpu_patch"], speeds["careamics"]
            axes.annotate(
                f"{ours / theirs:.0f}×",
                (x, (ours * theirs) ** 0.5),
                ha="center",
                va="center",
                fontsize=9.5,
                color=LIGHT.faint,
                bbox={"boxstyle": "square,pad=0.15", "facecolor": LIGHT.background, "linewidth": 0},
            )


def _label(axes: Any, panel: Curves, workloads: Sequence[Measured], *, first: bool) -> None:
    from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

    ticks = {panel.place(workload): workload for workload in workloads}
    if panel.n_scales is None:
        title = f"{panel.constructor}, batches of {panel.batch_size}"
        axes.set_xlabel("scales (pixels a side of the largest windows)")
        texts = [f"{workload.n_scales}\n({x})" for x, workload in ticks.items()]
    else:
        scales = f"{panel.n_scales} scales" if panel.n_scales > 1 else "no context"
        title = f"{panel.constructor}, {scales}"
        axes.set_xlabel("patches of a batch")
        texts = [str(x) for x in ticks]
    axes.set_title(title, fontsize=11, color=LIGHT.text, loc="left", pad=7)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(ticks), texts)
    axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(color=LIGHT.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=LIGHT.faint, labelcolor=LIGHT.text, length=0, labelleft=first)
    axes.xaxis.label.set_color(LIGHT.faint)
    axes.spines[:].set_visible(False)
    if first:
        axes.set_ylabel("patches per second", color=LIGHT.faint)


def _write_head(sheet: Sheet, machine: dict[str, Any], axes: Any) -> None:
    speed = machine["copy_bytes_per_second"]
    sheet.write(_LEFT, 0.42, "Patches per second", fontsize=16, fontweight="bold")
    what = machine["gpu"] if "gpu" in machine else f"{machine['cpu']}, one thread"
    about = f"{what}; gpu_patch {machine['gpu_patch']}, {machine['date']}"
    sheet.write(_LEFT, 0.7, about, fontsize=9.5, color=LIGHT.faint)
    handles, labels = axes.get_legend_handles_labels()
    # first what is drawn first, which is the bandwidth, last in the list
    order = [*range(1, len(labels)), 0]
    sheet.figure.legend(
        [handles[i] for i in order],
        [f"{FLOOR}, {speed / 1e9:.0f} GB/s" if not i else labels[i] for i in order],
        loc="lower left",
        bbox_to_anchor=sheet.fraction(_LEFT, _HEAD - 0.36),
        bbox_transform=sheet.figure.transFigure,
        borderaxespad=0,
        borderpad=0.3,
        ncols=3,
        frameon=False,
        fontsize=9.5,
        labelcolor=LIGHT.text,
        columnspacing=1.6,
    )

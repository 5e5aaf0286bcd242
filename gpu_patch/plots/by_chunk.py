"""Patches per second of images that are larger than memory, beside other ways to read them."""

from __future__ import annotations

from typing import Any

from gpu_patch.plots.colours import CURVE_STYLES, LIGHT
from gpu_patch.plots.sheet import Sheet

_DPI = 120
_LEFT, _TOP, _HEIGHT, _FOOT, _RIGHT = 1.6, 1.35, 3.0, 0.75, 0.35
_BARS, _GAP, _CURVES = 4.6, 0.95, 3.6
"""Widths, in inches."""
_OWN = ("resident", "paged")


def plot_by_chunk(document: dict[str, Any]) -> Any:
    """Draw what ``gpu-patch bench --by-chunk`` has measured.

    Parameters
    ----------
    document : dict
        What ``gpu-patch bench --by-chunk --json`` writes.

    Returns
    -------
    matplotlib.figure.Figure
        Plain patches of every way as bars; patches with context of resident and paged images as
        curves over the number of scales.

    Raises
    ------
    ImportError
        matplotlib is missing.
    """
    rows = [row for row in document["rows"] if "patches_per_second" in row]
    sheet = Sheet(
        _LEFT + _BARS + _GAP + _CURVES + _RIGHT, _TOP + _HEIGHT + _FOOT, dpi=_DPI, theme=LIGHT
    )
    sheet.write(0.35, 0.42, "Patches per second", fontsize=16, fontweight="bold")
    machine = document["machine"]
    share = machine["budget_bytes"] / machine["image_bytes"]
    about = (
        f"{machine['image_bytes'] / 1e6:.0f} MB in a file, {share:.0%} of them in memory; "
        f"{machine['cpu']}, {machine['n_threads']} threads; gpu_patch {machine['gpu_patch']}, "
        f"{machine['date']}"
    )
    sheet.write(0.35, 0.7, about, fontsize=9.5, color=LIGHT.faint)
    _bars(sheet, {r["name"]: r["patches_per_second"] for r in rows if not r["n_scales"]})
    _curves(sheet, rows)
    return sheet.figure


def _bars(sheet: Sheet, speeds: dict[str, float]) -> None:
    from matplotlib.ticker import EngFormatter

    axes = sheet.axes(_LEFT, _TOP, _BARS, _HEIGHT)
    names = list(speeds)[::-1]
    colours = [CURVE_STYLES[0][0] if name == "paged" else LIGHT.grid for name in names]
    bars = axes.barh(names, [speeds[name] for name in names], 0.62, color=colours)
    axes.bar_label(bars, fmt=EngFormatter(sep=" ", places=1), padding=4, color=LIGHT.text)
    axes.set_xscale("log")
    axes.set_xlim(min(speeds.values()) / 3, max(speeds.values()) * 4)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    _plain(axes, "plain patches")


def _curves(sheet: Sheet, rows: list[dict[str, Any]]) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    axes = sheet.axes(_LEFT + _BARS + _GAP, _TOP, _CURVES, _HEIGHT)
    n_scales = sorted({row["n_scales"] for row in rows})
    for name, (colour, mark) in zip(reversed(_OWN), CURVE_STYLES, strict=False):
        own = {r["n_scales"]: r["patches_per_second"] for r in rows if r["name"] == name}
        x = [n_scales.index(n) for n in own]
        axes.plot(x, list(own.values()), color=colour, marker=mark, linewidth=2, label=name)
    axes.set_xticks(range(len(n_scales)), [str(n) if n else "plain" for n in n_scales])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(frameon=False, labelcolor=LIGHT.text, fontsize=9.5)
    _plain(axes, "with context, by the number of scales")


def _plain(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=11, color=LIGHT.text, loc="left", pad=7)
    axes.grid(color=LIGHT.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=LIGHT.faint, labelcolor=LIGHT.text, length=0, which="both")
    axes.spines[:].set_visible(False)

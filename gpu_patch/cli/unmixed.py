"""The picture of ``gpu-patch train-demo``: what a network makes of a mixture it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from gpu_patch.cli import display

_DPI = 100
_PANEL, _GAP, _EDGE, _TOP, _TITLE = 3.84, 0.16, 0.35, 1.25, 0.45
_AXIS = 0.5
"""Inches."""
_TOO_BRIGHT, _TOO_DARK = (1.0, 0.62, 0.0), (0.34, 0.71, 1.0)
_ERROR_RANGE = 0.25
"""Errors of this part of the contrast have their full colour."""


def draw(
    truth: NDArray[np.uint16],
    predicted: NDArray[np.float32],
    *,
    names: Sequence[str],
    psnr: Sequence[float],
    losses: NDArray[np.float32],
    smoothed: NDArray[np.float64],
    subtitle: str,
    out: Path,
) -> tuple[int, int]:
    """Draw mixture, structures as predicted and as they are, errors, and losses into a PNG file.

    Parameters
    ----------
    truth, predicted : array, shape (2, Y, X)
        The structures, whose mean is the mixture.
    names, psnr : sequence of str, sequence of float
        Of the structures.
    losses, smoothed : array, shape (steps,) and (steps − n + 1,)
        Of each step, and means of n consecutive ones.
    subtitle : str
        Says what was trained.
    out : Path
        The file.

    Returns
    -------
    width, height : int
        Size of the picture in pixels.
    """
    sheet = _Sheet()
    sheet.write(0.5, "Two structures unmixed, in an image the network has not seen", size=18)
    sheet.write(0.8, subtitle, size=11, color=display.FAINT)
    mixture = truth.mean(axis=0)
    grey = display.tint(display.stretch(mixture, display.limits(mixture)), (1, 1, 1))
    sheet.show(0, 0, "Input: the mixture", grey)
    sheet.plot(1, 0, losses, smoothed)
    colours = display.channel_colours(len(truth))
    for row, (name, true, found, colour) in enumerate(
        zip(names, truth, predicted, colours, strict=True)
    ):
        between = display.limits(true)
        for column, (title, image) in enumerate(
            ((f"{name}, predicted ({psnr[row]:.1f} dB)", found), (f"{name}, true", true)), start=1
        ):
            sheet.show(row, column, title, display.tint(display.stretch(image, between), colour))
        most = _ERROR_RANGE * (between[1] - between[0])
        error = found - true.astype(np.float32)
        painted = display.overlay(
            np.stack([error, -error]), [(0, most)] * 2, [_TOO_BRIGHT, _TOO_DARK]
        )
        sheet.show(row, 3, f"error: orange too bright, blue too dark (full: {most:.0f})", painted)
    sheet.figure.savefig(out, dpi=_DPI)
    return sheet.size


class _Sheet:
    """A figure of two rows of four panels."""

    def __init__(self) -> None:
        self.width = 2 * _EDGE + 4 * _PANEL + 3 * _GAP
        self.height = _TOP + 2 * _PANEL + _TITLE + _EDGE
        self.size = round(self.width * _DPI), round(self.height * _DPI)
        # matplotlib cuts off what is no whole pixel
        width, height = ((pixels + 0.1) / _DPI for pixels in self.size)
        self.figure: Any = Figure((width, height), _DPI, facecolor=display.BACKGROUND)

    def write(self, y: float, text: str, *, size: float, color: str = display.TEXT) -> None:
        place = _EDGE / self.width, 1 - y / self.height
        weight = "bold" if color == display.TEXT else "normal"
        self.figure.text(*place, text, fontsize=size, color=color, fontweight=weight)

    def show(self, row: int, column: int, title: str, rgb: NDArray[np.float32]) -> None:
        """Show an image."""
        axes = self._axes(row, column, title)
        axes.imshow(rgb, interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=display.FAINT, linewidth=0.8)

    def plot(
        self,
        row: int,
        column: int,
        losses: NDArray[np.float32],
        smoothed: NDArray[np.float64],
    ) -> None:
        """Plot the losses and their running mean, on a logarithmic scale."""
        axes = self._axes(row, column, "Loss: mean squared error, normalised", _AXIS)
        axes.set_facecolor("black")
        steps = np.arange(1, len(losses) + 1)
        n = len(losses) - len(smoothed) + 1
        axes.axhline(1, color=display.FAINT, linewidth=1, linestyle="--", label="the mean")
        axes.plot(steps, losses, color=display.FAINT, linewidth=0.7, alpha=0.6, label="each step")
        axes.plot(
            steps[n - 1 :],
            smoothed,
            color=display.SCALE_COLOURS[0],
            linewidth=2,
            label=f"mean of {n} steps",
        )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("step", color=display.FAINT)
        axes.tick_params(which="both", colors=display.FAINT)
        axes.spines[:].set(color=display.FAINT, linewidth=0.8)
        axes.legend(frameon=False, labelcolor=display.TEXT, loc="lower left")

    def _axes(self, row: int, column: int, title: str, inset: float = 0) -> Any:
        left = _EDGE + column * (_PANEL + _GAP) + inset
        bottom = self.height - _TOP - (row + 1) * _PANEL - row * _TITLE + inset
        size = (_PANEL - inset) / self.width, (_PANEL - inset) / self.height
        axes = self.figure.add_axes((left / self.width, bottom / self.height, *size))
        axes.set_title(title, fontsize=10.5, color=display.TEXT, loc="left", pad=5)
        return axes

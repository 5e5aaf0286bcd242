"""A figure that is laid out in inches from its top left corner."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.optional import imported
from gpu_patch.plots.colours import DARK, Theme

DPI = 100
EDGE = 0.35
"""Between the content of a dark sheet and its edges, inches."""


class Panel(NamedTuple):
    """A small image.

    Attributes
    ----------
    title : str
        What it is.
    rgb : array of float32, shape (Y, X, 3)
        Its colours.
    scale : int or None, default None
        The scale of lateral context that it shows.
    """

    title: str
    rgb: NDArray[np.float32]
    scale: int | None = None


class Sheet:
    """A matplotlib figure, and where things stand in it.

    Parameters
    ----------
    width, height : float
        Inches.
    dpi : int, default 100
        Pixels per inch.
    theme : Theme
        Its colours.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
        Which nobody keeps open: it goes when it is let go of. Notebooks show it.
    """

    def __init__(self, width: float, height: float, *, dpi: int = DPI, theme: Theme = DARK) -> None:
        self.width, self.height, self.theme = width, height, theme
        # matplotlib cuts off what is no whole pixel
        size = ((round(inches * dpi) + 0.1) / dpi for inches in (width, height))
        self.figure: Any = _figure_class()(tuple(size), dpi, facecolor=theme.background)

    def fraction(self, x: float, y: float) -> tuple[float, float]:
        """Return a place as matplotlib counts it: parts of the figure, from below."""
        return x / self.width, 1 - y / self.height

    def axes(self, x: float, y: float, width: float, height: float, **options: Any) -> Any:
        """Add axes of which the top left corner is at a place."""
        size = width / self.width, height / self.height
        return self.figure.add_axes((*self.fraction(x, y + height), *size), **options)

    def image(self, x: float, y: float, width: float, height: float, panel: Panel) -> Any:
        """Show a panel in a thin frame, its title above its left corner; return the axes."""
        axes = self.axes(x, y, width, height)
        axes.imshow(panel.rgb, interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=self.theme.faint, linewidth=0.8)
        axes.set_title(panel.title, fontsize=10.5, color=self.theme.text, loc="left", pad=5)
        return axes

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write text of which the base line begins at a place."""
        self.figure.text(*self.fraction(x, y), text, **{"color": self.theme.text, **style})

    def write_head(self, title: str, subtitle: str) -> None:
        """Write what the figure shows above everything else."""
        self.write(EDGE, 0.5, title, fontsize=18, fontweight="bold")
        self.write(EDGE, 0.8, subtitle, fontsize=11, color=self.theme.faint)


@cache
def _figure_class() -> type:
    matplotlib = imported("matplotlib.figure", "gpu_patch.plots")
    base: Any = matplotlib.Figure

    class NotebookFigure(base):  # type: ignore[misc]
        """A figure that notebooks show as it is, whether or not pyplot was imported."""

        def _repr_png_(self) -> bytes:
            picture = BytesIO()
            self.savefig(picture, format="png")
            return picture.getvalue()

    return NotebookFigure

"""The picture of ``gpu-patch predict``: inputs and predictions side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gpu_patch import ImageStack, Prediction
from gpu_patch import device as devices
from gpu_patch.cli import display
from gpu_patch.images.readers import Options, open_file
from gpu_patch.predict.outputs import restored_axes

_DPI = 100
_PANEL, _GAP, _EDGE, _TOP, _TITLE, _HEADING = 3.84, 0.16, 0.35, 0.98, 0.34, 0.3
"""Inches."""
_SHOWN = 768
"""Pixels of the middle of an image, at most, along each axis."""
_MOST_IMAGES, _MOST_CHANNELS = 3, 3


class Panel(NamedTuple):
    """A title and an image (Y, X, 3)."""

    title: str
    rgb: NDArray[np.float32]


def draw(
    stacks: Sequence[ImageStack], found: Prediction, subtitle: str, out: Path
) -> tuple[int, int]:
    """Draw the middle of the first images and of what was made of them into a PNG file.

    Parameters
    ----------
    stacks : sequence of ImageStack
        The images.
    found : Prediction
        The paths of their predictions.
    subtitle : str
        Says what was done.
    out : Path
        The file.

    Returns
    -------
    width, height : int
        Size of the picture in pixels.
    """
    rows = [
        _panels(stack, image, None if found.std is None else found.std[i])
        for i, (stack, image) in enumerate(
            zip(stacks[:_MOST_IMAGES], found.images[:_MOST_IMAGES], strict=True)
        )
    ]
    sheet = _Sheet(rows)
    hidden = len(stacks) - len(rows)
    more = f", the first {len(rows)} of {len(stacks)} images" if hidden else ""
    sheet.write(0.5, f"Predictions{more}", size=18)
    sheet.write(0.8, subtitle, size=11, color=display.FAINT)
    for row, (stack, panels) in enumerate(zip(stacks, rows, strict=False)):
        sheet.write_heading(row, _described(stack))
        for column, panel in enumerate(panels):
            sheet.show(row, column, panel)
    sheet.figure.savefig(out, dpi=_DPI)
    return sheet.size


def _panels(stack: ImageStack, image: Path, std: Path | None) -> list[Panel]:
    """Return the panels of an image: input, channels of the prediction, of their deviations."""
    place = _middle(stack.data_shape)
    pixels = _of_stack(stack, place)
    between = [display.limits(channel) for channel in pixels]
    colours = display.channel_colours(len(pixels))
    panels = [Panel("Input", display.overlay(pixels, between, colours))]
    predicted = _of_file(image, stack, place)
    colours = display.channel_colours(len(predicted))
    which = "" if len(predicted) == 1 else f", channel {{}} of {len(predicted)}"
    # what has the same channels can be compared
    same = len(predicted) == len(pixels)
    shown = predicted[:_MOST_CHANNELS]
    for c, channel in enumerate(shown):
        limits = between[c] if same else display.limits(channel)
        title = f"Prediction{which.format(c)}" + " (contrast of the input)" * same
        panels.append(Panel(title, display.tinted(channel, limits, colours[c])))
    if std is not None:
        for c, channel in enumerate(_of_file(std, stack, place)[:_MOST_CHANNELS]):
            limits = 0.0, display.limits(channel)[1]
            title = f"Standard deviation{which.format(c)} (0 … {limits[1]:.3g})"
            panels.append(Panel(title, display.tinted(channel, limits, (1, 1, 1))))
    return panels


def _middle(shape: Sequence[int]) -> list[slice]:
    """Return the place in (Z)YX that is shown."""
    place = []
    for axis, n in zip("ZYX"[5 - len(shape) :], shape[2:], strict=True):
        length = 1 if axis == "Z" else min(n, _SHOWN)
        place.append(slice((n - length) // 2, (n - length) // 2 + length))
    return place


def _of_stack(stack: ImageStack, place: Sequence[slice]) -> NDArray[Any]:
    """Return pixels of the first sample, (C, Y, X)."""
    start = [part.start for part in place]
    found: Any = stack.extract_patch(0, None, start, [part.stop - part.start for part in place])
    if devices.is_cuda_array(found):
        found = found.get()
    return display.middle_plane(found, 1)


def _of_file(path: Path, stack: ImageStack, place: Sequence[slice]) -> NDArray[Any]:
    """Return the same of a result."""
    axes = None
    if path.suffix == ".npy":  # which says nothing of its axes
        n_channels = _n_channels(path, stack)
        axes = restored_axes(stack.original_axes, n_channels)
    with open_file(path, Options(axes))[0] as reader:
        shape = reader.info.canonical_shape
        region = [slice(0, 1), slice(0, shape[1]), *place]
        out = np.empty([part.stop - part.start for part in region], reader.info.resident_dtype)
        reader.read(region, out)
    return display.middle_plane(out[0], 1)


def _n_channels(path: Path, stack: ImageStack) -> int:
    size = np.load(path, mmap_mode="r").size
    n_pixels = int(np.prod(stack.data_shape)) // stack.data_shape[1]
    return int(size) // n_pixels


def _described(stack: ImageStack) -> str:
    """Name an image and the part that is shown."""
    height, width = stack.data_shape[-2:]
    words = [Path(stack.source).name, f"{height}×{width}"]
    if stack.data_shape[0] > 1:
        words.append(f"sample 0 of {stack.data_shape[0]}")
    if len(stack.data_shape) == 5:
        words.append(f"z {stack.data_shape[2] // 2} of {stack.data_shape[2]}")
    if max(height, width) > _SHOWN:
        words.append(f"the middle {min(height, _SHOWN)}×{min(width, _SHOWN)}")
    return ", ".join(words)


class _Sheet:
    """A figure of a row of panels per image."""

    def __init__(self, rows: Sequence[Sequence[Panel]]) -> None:
        n_columns = max(map(len, rows))
        slim = [row[0].rgb.shape[0] / row[0].rgb.shape[1] for row in rows]
        # slim images leave room beside them, for titles
        self._sizes = [(min(_PANEL, _PANEL / s), min(_PANEL, _PANEL / s) * s) for s in slim]
        self._tops = []
        top = _TOP
        for _, height in self._sizes:
            self._tops.append(top + _HEADING + _TITLE)
            top += _HEADING + _TITLE + height + _GAP
        self.width = 2 * _EDGE + n_columns * (_PANEL + _GAP) - _GAP
        self.height = top - _GAP + _EDGE
        self.size = round(self.width * _DPI), round(self.height * _DPI)
        # matplotlib cuts off what is no whole pixel
        width, height = ((pixels + 0.1) / _DPI for pixels in self.size)
        self.figure: Any = Figure((width, height), _DPI, facecolor=display.BACKGROUND)

    def write(self, y: float, text: str, *, size: float, color: str = display.TEXT) -> None:
        """Write a line of the header."""
        weight = "bold" if color == display.TEXT else "normal"
        place = _EDGE / self.width, 1 - y / self.height
        self.figure.text(*place, text, fontsize=size, color=color, fontweight=weight)

    def write_heading(self, row: int, text: str) -> None:
        """Write what an image is above its panels."""
        y = self._tops[row] - _TITLE - 0.06
        self.write(y, text, size=11)

    def show(self, row: int, column: int, panel: Panel) -> None:
        """Show a panel."""
        width, height = self._sizes[row]
        left = _EDGE + column * (_PANEL + _GAP)
        bottom = self.height - self._tops[row] - height
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(place)
        axes.imshow(panel.rgb, interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color=display.FAINT, linewidth=0.8)
        axes.set_title(panel.title, fontsize=10.5, color=display.TEXT, loc="left", pad=5)

"""The picture of predictions: inputs and what was made of them, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch import ImageStack, PatchExtractor, Prediction
from gpu_patch.checks import Message, argument
from gpu_patch.images.axes import to_canonical
from gpu_patch.images.readers import Options, open_file
from gpu_patch.plots import colours
from gpu_patch.plots.sheet import EDGE, Panel, Sheet
from gpu_patch.plots.subject import on_host, region_of
from gpu_patch.predict.outputs import restored_axes

_GAP, _TOP, _TITLE, _HEADING = 0.16, 0.98, 0.34, 0.3
"""Inches."""
_SHOWN = 768
"""Pixels of the middle of an image, at most, along each axis."""
_MOST_IMAGES, _MOST_CHANNELS = 3, 3


def plot_prediction(
    images: PatchExtractor | ImageStack | Sequence[ImageStack],
    prediction: Prediction,
    *,
    subtitle: str = "",
    panel_size: float = 3.84,
) -> Any:
    """Draw the middle of the first images beside what was predicted of them.

    ![Input and prediction side by side](../../docs/guide/prediction.png)

    Parameters
    ----------
    images : PatchExtractor, ImageStack or sequence of ImageStack
        What `gpu_patch.predict` was given.
    prediction : Prediction
        What it returned, arrays or paths.
    subtitle : str, default ""
        Says what was done.
    panel_size : float, default 3.84
        Longer side of a panel, inches.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each of the first three images: the input, the first three channels of the
        prediction, in the contrast of the input where it has the same channels, and their standard
        deviations where there are any. Of stacks the middle Z plane is drawn.

    Raises
    ------
    ValueError
        There are not as many predictions as images, or none.
    ImportError
        matplotlib is missing.
    """
    if isinstance(images, PatchExtractor):
        images = images.image_stacks
    stacks = [images] if isinstance(images, ImageStack) else list(images)
    if not stacks or len(prediction.images) != len(stacks):
        raise ValueError(
            Message(
                argument("prediction"),
                f" must have an image for each of {len(stacks)}, found {len(prediction.images)}",
            )
        )
    rows = [
        _panels(stack, prediction.images[i], None if prediction.std is None else prediction.std[i])
        for i, stack in enumerate(stacks[:_MOST_IMAGES])
    ]
    hidden = len(stacks) - len(rows)
    more = f", the first {len(rows)} of {len(stacks)} images" if hidden else ""
    sheet = _drawn([*map(_described, stacks[: len(rows)])], rows, panel_size)
    sheet.write_head(f"Predictions{more}", subtitle)
    return sheet.figure


def _drawn(titles: Sequence[str], rows: Sequence[Sequence[Panel]], panel_size: float) -> Sheet:
    """Draw rows of panels, each under its title."""
    # slim images leave room beside them, for titles
    slim = [row[0].rgb.shape[0] / row[0].rgb.shape[1] for row in rows]
    sizes = [(min(panel_size, panel_size / s), min(panel_size, panel_size / s) * s) for s in slim]
    sheet = Sheet(
        2 * EDGE + max(map(len, rows)) * (panel_size + _GAP) - _GAP,
        _TOP + sum(_HEADING + _TITLE + height + _GAP for _, height in sizes) - _GAP + EDGE,
    )
    top = _TOP
    for title, panels, (width, height) in zip(titles, rows, sizes, strict=True):
        top += _HEADING + _TITLE
        sheet.write(EDGE, top - _TITLE - 0.06, title, fontsize=11, fontweight="bold")
        for column, panel in enumerate(panels):
            sheet.image(EDGE + column * (panel_size + _GAP), top, width, height, panel)
        top += height + _GAP
    return sheet


def _panels(stack: ImageStack, image: Any, std: Any | None) -> list[Panel]:
    """Return the panels of an image: input, channels of the prediction, of their deviations."""
    place = _middle(stack.data_shape)
    pixels = _of_stack(stack, place)
    between = [colours.limits(channel) for channel in pixels]
    panels = [
        Panel("Input", colours.overlay(pixels, between, colours.channel_colours(len(pixels))))
    ]
    predicted = _of_result(image, stack, place)
    tints = colours.channel_colours(len(predicted))
    which = "" if len(predicted) == 1 else f", channel {{}} of {len(predicted)}"
    # what has the same channels can be compared
    same = len(predicted) == len(pixels)
    for c, channel in enumerate(predicted[:_MOST_CHANNELS]):
        limits = between[c] if same else colours.limits(channel)
        title = f"Prediction{which.format(c)}" + " (contrast of the input)" * same
        panels.append(Panel(title, colours.tinted(channel, limits, tints[c])))
    if std is not None:
        for c, channel in enumerate(_of_result(std, stack, place)[:_MOST_CHANNELS]):
            limits = 0.0, colours.limits(channel)[1]
            title = f"Standard deviation{which.format(c)} (0 … {limits[1]:.3g})"
            panels.append(Panel(title, colours.tinted(channel, limits, (1, 1, 1))))
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
    return colours.middle_plane(region_of(stack, 0, place), 1)


def _of_result(result: Any, stack: ImageStack, place: Sequence[slice]) -> NDArray[Any]:
    """Return the same of a prediction, which is an array or in a file."""
    if not isinstance(result, Path):
        data = to_canonical(result, restored_axes(stack.original_axes, _n_channels(result, stack)))
        return colours.middle_plane(on_host(data[0, :, *place]), 1)
    axes = None
    if result.suffix == ".npy":  # which says nothing of its axes
        n_channels = _n_channels(np.load(result, mmap_mode="r"), stack)
        axes = restored_axes(stack.original_axes, n_channels)
    with open_file(result, Options(axes))[0] as reader:
        shape = reader.info.canonical_shape
        region = [slice(0, 1), slice(0, shape[1]), *place]
        out = np.empty([part.stop - part.start for part in region], reader.info.resident_dtype)
        reader.read(region, out)
    return colours.middle_plane(out[0], 1)


def _n_channels(result: Any, stack: ImageStack) -> int:
    n_pixels = int(np.prod(stack.data_shape)) // stack.data_shape[1]
    return int(result.size) // n_pixels


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

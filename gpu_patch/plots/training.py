"""The picture of a training: its losses, and what a network makes of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_patch.checks import Message, argument, whole_number
from gpu_patch.patching.split import LOST, VALIDATED
from gpu_patch.plots import colours
from gpu_patch.plots.sheet import EDGE, Panel, Sheet

_PANEL, _GAP, _TOP, _TITLE, _AXIS, _LOW = 3.84, 0.16, 1.25, 0.45, 0.5, 2.6
"""Inches."""
_TOO_BRIGHT, _TOO_DARK = (1.0, 0.62, 0.0), (0.34, 0.71, 1.0)
_ERROR_RANGE = 0.25
"""Errors of this part of the contrast have their full colour."""
_DARK, _FRAME, _THIN = 0.25, (1.0, 1.0, 0.0), 192
"""What is left of the brightness of lost pixels; colour of frames, and frames in a panel's side."""


def plot_training(
    losses: ArrayLike,
    truth: ArrayLike | None = None,
    predicted: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str = "Training",
    subtitle: str = "",
    loss_title: str = "Loss",
    baseline: float | None = None,
    window: int = 20,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    image: ArrayLike | None = None,
    parts: ArrayLike | None = None,
    axes: Any = None,
) -> Any:
    """Draw the losses of a training, and how well structures were told apart.

    ![Losses, and two structures as predicted and as they are](../../docs/guide/training.png)

    Parameters
    ----------
    losses : array_like, shape (steps,)
        Loss of each step.
    truth, predicted : array_like, shape (C, Y, X), optional
        Structures as they are, and as a network predicted them from their mean.
    names : sequence of str, optional
        Of the structures.
    title, subtitle : str
        Above everything.
    loss_title : str, default "Loss"
        Above the losses.
    baseline : float, optional
        Loss of who predicts the mean of the image, to be drawn as a line.
    window : int, default 20
        Steps of which the mean is drawn too.
    validation : (array_like, array_like), shapes (n,), optional
        Steps, and the losses of validation after them.
    image, parts : array_like, shapes (C, Y, X) and (Y, X), optional
        What was trained on, and the `map` of its split (see `gpu_patch.split_validation`): shows
        what is trained on, validated on and lost. With `truth` alone.
    axes : matplotlib.axes.Axes, optional
        Draws the losses there alone.

    Returns
    -------
    matplotlib.figure.Figure
        The losses; with `truth` also the mixture, and of each structure the prediction with its
        PSNR, the truth and the errors; that of `axes` where they are given.

    Raises
    ------
    ValueError
        Losses are no row of numbers; shapes or names do not fit; images for given `axes`; `parts`
        without `image` or `truth`.
    ImportError
        matplotlib is missing.
    """
    losses = np.asarray(losses, np.float64)
    if losses.ndim != 1 or not losses.size:
        raise ValueError(
            Message(
                argument("losses"),
                f" must be one-dimensional and not empty, found the shape {losses.shape}",
            )
        )
    means = running_mean(losses, whole_number("window", window, minimum=1))
    structures = _checked_structures(truth, predicted, names, axes)
    split = _checked_split(image, parts, structures)
    curve = _Curve(losses, means, loss_title, baseline, _checked_validation(validation))
    if axes is not None:
        curve.draw(axes, colours.LIGHT)
        return axes.figure
    if structures is None:
        sheet = Sheet(2 * EDGE + 2 * _PANEL, _TOP + _PANEL + EDGE)
        curve.draw(sheet.axes(EDGE + _AXIS, _TOP, 2 * _PANEL - _AXIS, _PANEL - _AXIS), sheet.theme)
    else:
        sheet = _with_structures(curve, *structures, split)
    sheet.write_head(title, subtitle)
    return sheet.figure


def _with_structures(
    curve: _Curve,
    truth: NDArray[Any],
    predicted: NDArray[Any],
    names: Sequence[str],
    split: Panel | None,
) -> Sheet:
    """Draw a row of panels per structure, and the losses beside them, or below the split."""
    n_rows = max(2, len(truth))
    width = 2 * EDGE + 4 * _PANEL + 3 * _GAP
    height = _TOP + n_rows * _PANEL + (n_rows - 1) * _TITLE + EDGE
    sheet = Sheet(width, height + (0 if split is None else _TITLE + _LOW))
    mixture = truth.mean(axis=0)
    grey = colours.tint(colours.stretch(mixture, colours.limits(mixture)), (1, 1, 1))
    _show(sheet, 0, 0, Panel("Input: the mixture", grey))
    if split is None:
        x, y = _corner(1, 0)
        axes = sheet.axes(x + _AXIS, y, _PANEL - _AXIS, _PANEL - _AXIS)
    else:
        _show(sheet, 1, 0, split)
        x, y = _corner(n_rows, 0)
        axes = sheet.axes(x + _AXIS, y, width - 2 * EDGE - _AXIS, _LOW - _AXIS)
    curve.draw(axes, sheet.theme)
    for row, panels in enumerate(_structure_panels(truth, predicted, names)):
        for column, panel in enumerate(panels, start=1):
            _show(sheet, row, column, panel)
    return sheet


def running_mean(values: NDArray[Any], window: int) -> NDArray[np.float64]:
    """Return means of consecutive values, the last one of the last values; shorter by window − 1.

    Of fewer values than `window` it is the mean of all.
    """
    n = min(window, len(values))
    return np.convolve(values.astype(np.float64), np.full(n, 1 / n), mode="valid")


def psnr(predicted: NDArray[Any], truth: NDArray[Any]) -> list[float]:
    """Return the peak signal-to-noise ratio of each channel of (C, Y, X) in dB.

    The peak is the largest minus the smallest value of the true image.
    """
    errors = ((predicted - truth.astype(np.float64)) ** 2).mean(axis=(1, 2))
    peaks = np.ptp(truth, axis=(1, 2)).astype(np.float64)
    with np.errstate(divide="ignore"):  # without any error it is infinite
        decibels: list[float] = (10 * np.log10(peaks**2 / errors)).tolist()
    return decibels


def _checked_structures(
    truth: ArrayLike | None, predicted: ArrayLike | None, names: Sequence[str] | None, axes: Any
) -> tuple[NDArray[Any], NDArray[Any], Sequence[str]] | None:
    """Return truth, prediction and names of structures, None where none are given."""
    if truth is None and predicted is None:
        return None
    true, found = np.asarray(truth), np.asarray(predicted)
    if axes is not None:
        raise ValueError(
            Message(argument("truth"), " needs a figure of its own: leave out ", argument("axes"))
        )
    if true.ndim != 3 or found.shape != true.shape:
        raise ValueError(
            Message(
                argument("truth"),
                " and ",
                argument("predicted"),
                f" must have one shape, CYX, found {true.shape} and {found.shape}",
            )
        )
    names = [f"structure {c}" for c in range(len(true))] if names is None else names
    if len(names) != len(true):
        raise ValueError(
            Message(argument("names"), f" must be {len(true)}, one per structure, found {names}")
        )
    return true, found, names


def _checked_validation(
    validation: tuple[ArrayLike, ArrayLike] | None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return steps and losses of validation, empty ones where there are none."""
    steps, losses = map(np.asarray, ((), ()) if validation is None else validation)
    if steps.ndim != 1 or steps.shape != losses.shape:
        raise ValueError(
            Message(
                argument("validation"),
                " must be two rows of one length, steps and losses, found the shapes "
                f"{steps.shape} and {losses.shape}",
            )
        )
    return steps, losses


def _checked_split(
    image: ArrayLike | None, parts: ArrayLike | None, structures: object
) -> Panel | None:
    """Return the panel of a split, None where there is none."""
    if image is None and parts is None:
        return None
    pixels, where = np.asarray(image), np.asarray(parts)
    if pixels.ndim != 3 or where.shape != pixels.shape[1:]:
        raise ValueError(
            Message(
                argument("parts"),
                " must have the shape YX of ",
                argument("image"),
                f", CYX, found {where.shape} and {pixels.shape}",
            )
        )
    if structures is None:
        raise ValueError(
            Message(argument("parts"), " are drawn beside structures: give ", argument("truth"))
        )
    return _split_panel(pixels, where)


def _split_panel(image: NDArray[Any], where: NDArray[Any]) -> Panel:
    """Show what is trained on bright, what is validated on framed, and what is lost dark."""
    step = colours.step_to_thin(*(4 * n for n in where.shape))
    image, where = image[:, ::step, ::step], where[::step, ::step]
    limits = [colours.limits(channel) for channel in image]
    rgb = colours.overlay(image, limits, colours.channel_colours(len(image)))
    rgb[where == LOST] *= _DARK
    held = where == VALIDATED
    outside = np.pad(~held, 1, constant_values=True)
    rgb[held & colours.grown(outside, max(where.shape) // _THIN)[1:-1, 1:-1]] = _FRAME
    lost, trained, validated = np.bincount(where.ravel(), minlength=3) / where.size
    title = f"{trained:.0%} trained on, {validated:.0%} validated (framed), {lost:.0%} lost"
    return Panel(title, rgb)


def _structure_panels(
    truth: NDArray[Any], predicted: NDArray[Any], names: Sequence[str]
) -> list[list[Panel]]:
    """Return for each structure the prediction, the truth, and the errors."""
    tints, qualities, rows = colours.channel_colours(len(truth)), psnr(predicted, truth), []
    for c, (name, true, found) in enumerate(zip(names, truth, predicted, strict=True)):
        between = colours.limits(true)
        most = _ERROR_RANGE * (between[1] - between[0])
        error = found - true.astype(np.float32)
        rows.append(
            [
                Panel(title, colours.tint(colours.stretch(image, between), tints[c]))
                for title, image in (
                    (f"{name}, predicted ({qualities[c]:.1f} dB)", found),
                    (f"{name}, true", true),
                )
            ]
            + [
                Panel(
                    f"error: orange too bright, blue too dark (full: {most:.0f})",
                    colours.overlay(
                        np.stack([error, -error]), [(0, most)] * 2, [_TOO_BRIGHT, _TOO_DARK]
                    ),
                )
            ]
        )
    return rows


def _corner(row: int, column: int) -> tuple[float, float]:
    """Return the top left corner of a panel."""
    return EDGE + column * (_PANEL + _GAP), _TOP + row * (_PANEL + _TITLE)


def _show(sheet: Sheet, row: int, column: int, panel: Panel) -> None:
    sheet.image(*_corner(row, column), _PANEL, _PANEL, panel)


class _Curve(NamedTuple):
    """Losses, their running mean, a title, the loss of who predicts the mean, and validation's."""

    losses: NDArray[np.float64]
    means: NDArray[np.float64]
    title: str
    baseline: float | None
    validation: tuple[NDArray[Any], NDArray[Any]]

    def draw(self, axes: Any, theme: colours.Theme) -> None:
        """Plot the losses on a logarithmic scale."""
        from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

        dark = theme is colours.DARK
        axes.set_facecolor("black" if dark else theme.background)
        steps = np.arange(1, len(self.losses) + 1)
        n = len(self.losses) - len(self.means) + 1
        if self.baseline is not None:
            line = {"color": theme.faint, "linewidth": 1, "linestyle": "--"}
            axes.axhline(self.baseline, **line, label="the mean")
        each = {"color": theme.faint, "linewidth": 0.7, "alpha": 0.6}
        axes.plot(steps, self.losses, **each, label="each step")
        colour = colours.SCALE_COLOURS[0] if dark else colours.CURVE_STYLES[0][0]
        axes.plot(steps[n - 1 :], self.means, color=colour, linewidth=2, label=f"mean of {n} steps")
        if len(self.validation[0]):
            mark = colours.SCALE_COLOURS[1] if dark else colours.CURVE_STYLES[1][0]
            axes.plot(
                *self.validation, "o-", color=mark, linewidth=1, markersize=4, label="validation"
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_title(self.title, fontsize=10.5, color=theme.text, loc="left", pad=5)
        axes.set_xlabel("step", color=theme.faint)
        axes.tick_params(which="both", colors=theme.faint)
        axes.spines[:].set(color=theme.faint, linewidth=0.8)
        axes.legend(frameon=False, labelcolor=theme.text, loc="lower left")

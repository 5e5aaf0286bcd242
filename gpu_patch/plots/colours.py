"""Colours of figures, and from pixels to colours: contrast, tints, overlays. NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
Limits = tuple[float, float]


class Theme(NamedTuple):
    """The colours of a figure beside its data.

    Attributes
    ----------
    background, text, faint, grid : str
        Behind everything; of titles; of what is said beside, and of frames; of lines of a grid.
    """

    background: str
    text: str
    faint: str
    grid: str


DARK = Theme("#16181d", "#f0f0f0", "#a8adb5", "#3a3f47")
"""For images, which are bright on black."""
LIGHT = Theme("white", "#1f2328", "#59616b", "#dfe3e8")
"""For curves."""

# what colour-blind people can tell apart (Okabe and Ito)
_YELLOW, _SKY, _ORANGE, _PINK = "#F0E442", "#56B4E9", "#E69F00", "#CC79A7"
_GREEN, _VERMILION, _BLUE = "#009E73", "#D55E00", "#0072B2"
SCALE_COLOURS = (_YELLOW, _SKY, _ORANGE, "#FFFFFF", _PINK, _GREEN, _VERMILION, _BLUE)
"""On dark, of boxes and frames from the native scale outwards: similar ones are apart."""
CURVE_STYLES = (
    (_BLUE, "o"),
    (_VERMILION, "s"),
    (_GREEN, "^"),
    (_PINK, "D"),
    (_ORANGE, "v"),
)
"""On light, colours of curves, and marks for grey print."""

_CHANNEL_COLOURS: dict[int, list[Colour]] = {
    1: [(1, 1, 1)],
    2: [(1, 0, 1), (0, 1, 0)],
    3: [(1, 0, 0), (0, 1, 0), (0, 0, 1)],
}
_MANY_COLOURS: list[Colour] = [(1, 0, 1), (0, 1, 0), (0, 0.6, 1), (1, 0.6, 0), (1, 1, 0), (0, 1, 1)]
_STRIPES: tuple[Colour, Colour] = ((1, 0, 1), (1, 1, 0))
"""What no image looks like: what is not finite has them, across."""
_MOST_PIXELS = 2048
_ROUNDING = 5e-7
"""Of a context in float32, relative."""


def channel_colours(n_channels: int) -> list[Colour]:
    """Return one RGB colour per channel: grey for one, magenta and green for two."""
    known = _CHANNEL_COLOURS.get(n_channels)
    return known or [_MANY_COLOURS[c % len(_MANY_COLOURS)] for c in range(n_channels)]


def limits(pixels: NDArray[Any], low: float = 0.5, high: float = 99.8) -> Limits:
    """Return the percentiles that are shown black and white."""
    finite = pixels[np.isfinite(pixels)].astype(np.float32, copy=False)
    if not finite.size:
        return 0.0, 1.0
    black, white = (float(value) for value in np.percentile(finite, (low, high)))
    if _differ(black, white):
        return black, white
    # a few bright pixels on an even background have no percentiles of their own
    black, white = float(finite.min()), float(finite.max())
    return (black, white) if _differ(black, white) else (black, black + 1)


def _differ(black: float, white: float) -> bool:
    """Tell whether values differ by more than rounding, which is nothing to show."""
    return white - black > _ROUNDING * max(abs(black), abs(white))


def stretch(pixels: NDArray[Any], between: Limits) -> NDArray[np.float32]:
    """Bring `between` to 0 … 1, and clip."""
    low, high = between
    clipped = np.clip(pixels.astype(np.float32, copy=False), low, high)  # infinity included
    scaled: NDArray[np.float32] = np.nan_to_num((clipped - low) / (high - low))
    return np.minimum(scaled, 1, out=scaled)


def tint(grey: NDArray[np.float32], colour: Colour) -> NDArray[np.float32]:
    """Show values in 0 … 1 from black over `colour` to white, (Y, X) to (Y, X, 3)."""
    value = grey[..., None]
    rgb: NDArray[np.float32] = value * (np.array(colour, np.float32) * (1 - value**4) + value**4)
    return rgb


def tinted(plane: NDArray[Any], between: Limits, colour: Colour) -> NDArray[np.float32]:
    """Show a plane (Y, X) in a colour, (Y, X, 3), with stripes where it is not finite."""
    return striped(tint(stretch(plane, between), colour), ~np.isfinite(plane))


def overlay(
    channels: NDArray[Any], between: Sequence[Limits], colours: Sequence[Colour]
) -> NDArray[np.float32]:
    """Add channels (C, Y, X) up, each in its colour, to an image (Y, X, 3).

    With stripes where a channel is not finite.
    """
    if len(channels) == 1:
        return tinted(channels[0], between[0], colours[0])
    rgb = np.zeros((*channels.shape[1:], 3), np.float32)
    for channel, shown, colour in zip(channels, between, colours, strict=True):
        rgb += stretch(channel, shown)[..., None] * np.array(colour, np.float32)
    return striped(np.minimum(rgb, 1), ~np.isfinite(channels).all(axis=0))


def striped(
    rgb: NDArray[np.float32], where: NDArray[np.bool_], width: int = 2
) -> NDArray[np.float32]:
    """Paint stripes `width` pixels wide where a mask (Y, X) is set, in place."""
    if where.any():
        y, x = np.nonzero(where)
        rgb[y, x] = np.array(_STRIPES, np.float32)[(y + x) // width % 2]
    return rgb


def n_not_finite(pixels: NDArray[Any]) -> int:
    """Count values that are NaN or infinite."""
    return pixels.size - int(np.count_nonzero(np.isfinite(pixels)))


def grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Grow what is set in a mask (Y, X) by so many pixels, to squares."""
    padded = np.pad(mask, by)
    for axis in (0, 1):
        n = mask.shape[axis]
        shifted = [padded.take(range(i, i + n), axis) for i in range(2 * by + 1)]
        padded = np.logical_or.reduce(shifted)
    return padded


def step_to_thin(*sizes: int) -> int:
    """Return the step that leaves at most some 2048 pixels along every axis."""
    return max(1, -(-max(sizes) // _MOST_PIXELS))


def thinned(plane: NDArray[Any]) -> NDArray[Any]:
    """Return a view of every n-th pixel of (..., Y, X), small enough for quick statistics."""
    step = step_to_thin(*plane.shape[-2:])
    return plane[..., ::step, ::step]


def middle_plane(pixels: NDArray[Any], n_leading: int) -> NDArray[Any]:
    """Return the middle z plane of an array with `n_leading` axes before (Z)YX."""
    if pixels.ndim == n_leading + 2:
        return pixels
    plane: NDArray[Any] = np.take(pixels, pixels.shape[n_leading] // 2, axis=n_leading)
    return plane

"""What the axes and the samples of a TIFF series mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument
from gpu_patch.images.axes import AXES
from gpu_patch.images.readers.base import Key
from gpu_patch.images.readers.info import alpha_left_out

_RGB, _PALETTE, _YCBCR = 2, 3, 6
"""Values of the tag PhotometricInterpretation; tifffile decodes the last to the first."""
_ALPHA = (1, 2)
"""Those of ExtraSamples: premultiplied, and not."""


class Samples(NamedTuple):
    """Which of a pixel's samples are read.

    Attributes
    ----------
    axis : int or None
        That of the series which counts them; None where all are read.
    kept : tuple of int
        Those that are read.
    colours : str
        As in `ImageInfo`.
    remarks : tuple of str
        As in `ImageInfo`.
    """

    axis: int | None
    kept: tuple[int, ...]
    colours: str
    remarks: tuple[str, ...]

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of a series, of what is read."""
        return tuple(len(self.kept) if i == self.axis else int(n) for i, n in enumerate(shape))

    def select(self, read: Callable[[Key], NDArray[Any]], key: Key) -> NDArray[Any]:
        """Return a part, from what `read` returns of all samples."""
        if self.axis is None:
            return read(key)
        wanted = np.array(self.kept[key[self.axis]])
        first = int(wanted.min())
        span = slice(first, int(wanted.max()) + 1)
        block = read((*key[: self.axis], span, *key[self.axis + 1 :]))
        return block.take(wanted - first, axis=self.axis)


def samples_of(series: Any, *, keep_alpha: bool) -> Samples:
    """Return what is read of the samples of a series: all but alpha channels."""
    page = series.keyframe
    n_samples, extra = int(page.samplesperpixel), tuple(map(int, page.extrasamples))
    first_extra = n_samples - len(extra)
    alpha = {first_extra + i for i, kind in enumerate(extra) if kind in _ALPHA}
    kept = tuple(i for i in range(n_samples) if keep_alpha or i not in alpha)
    is_rgb = page.photometric in (_RGB, _YCBCR) and first_extra == 3
    colours = {3: "RGB", 4: "RGBA" if alpha else ""}.get(len(kept), "") if is_rgb else ""
    remarks = [alpha_left_out()] if len(kept) < n_samples else []
    if page.photometric == _PALETTE and series.kind not in ("imagej", "ome"):
        # ImageJ and OME use a palette for display only; in other files the colours are the data
        remarks += [_PALETTE_TAKEN] * (not _is_ramp(page.colormap))
    if len(kept) == n_samples:
        return Samples(None, kept, colours, tuple(remarks))
    return Samples(series.axes.rindex("S"), kept, colours, tuple(remarks))


_PALETTE_TAKEN = (
    "its pixels are numbers of colours in a palette: the numbers are taken as they are; save it "
    "as grey values or RGB where the colours are meant"
)


def _is_ramp(colormap: Any) -> bool:
    """Tell whether a palette is of greys that grow with their numbers."""
    if colormap is None:
        return True
    red, *others = np.asarray(colormap).astype(np.int64)
    return all(np.array_equal(red, other) for other in others) and bool((np.diff(red) > 0).all())


def stated_axes(series: Any, samples: Samples) -> tuple[str, tuple[int, ...]]:
    """Return axes and shape that a file states, those of one pixel included.

    The axes are "" where they are not one letter of "STCZYX" each; then the shape is without what
    tifffile leaves out.
    """
    stored_shape = samples.shape(series.shape)
    unsqueezed = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    for axes, shape in (unsqueezed, (series.axes, series.shape)):
        named = [(str(axis), int(n)) for axis, n in zip(axes, shape, strict=True)]
        if series.kind != "shaped":
            # drop axes of length 1 that tifffile adds, or whose letters are none of ours
            named = [(axis, n) for axis, n in named if n > 1 or axis in AXES.replace("S", "")]
        if series.keyframe.samplesperpixel > 1:
            # tifffile calls the colours of a pixel S, which means samples here
            named = [pair for pair in named if pair != ("C", 1)]
            colours = "?" if "C" in dict(named) else "C"
            named = [
                (colours, len(samples.kept)) if axis == "S" else (axis, n) for axis, n in named
            ]
        found = "".join(axis for axis, _ in named), tuple(n for _, n in named)
        same = [n for n in found[1] if n > 1] == [n for n in stored_shape if n > 1]
        if same and set(found[0]) <= set(AXES) and len(set(found[0])) == len(found[0]):
            return found
    return "", stored_shape


def channels_of_colours(series: Any, shape: tuple[int, ...]) -> str:
    """Say what to do where a series has channels and colours, "" where it has not."""
    axes = str(series.axes)
    if series.keyframe.samplesperpixel == 1 or "C" not in axes:
        return ""
    n_channels, n_colours = shape[axes.index("C")], shape[axes.rindex("S")]
    free = [axis for axis in "STZ" if axis not in axes.replace("S", "")][:2]
    choices = [axes.replace("S", "?").replace("C", axis).replace("?", "C") for axis in free]
    return Message(
        f"has {n_channels} channels of {n_colours} colours each, its shape is {shape}, and one "
        "letter, C, is for both: ",
        argument("axes", *choices),
        " takes the colours as channels and the channels as samples",
        " or slices" if "Z" in free else " or times" * (len(free) > 1),
        "; or save it with channels alone",
    )

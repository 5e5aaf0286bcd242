"""Whole images with the boxes of patches on them: what to show, in pixels. NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch import ImageStack
from gpu_patch.constructors.plan import Plan
from gpu_patch.geometry import border_index, window_start
from gpu_patch.plots import colours
from gpu_patch.plots.subject import planes_of

_WIDEST_BORDER = 0.5
_AIR = 0.015
_DIMMED = 0.4
_OUTSIDE = 0.16
_SHOWN = 500
"""Pixels of the picture that an image is shown in, about: a mark of one would be overlooked."""


class Box(NamedTuple):
    """A window in the image's YX plane, which it may leave; pixels."""

    y: int
    x: int
    height: int
    width: int


class Overview(NamedTuple):
    """An image and the patches that come from it.

    Attributes
    ----------
    image_idx, sample_idx : int
        Image stack and sample.
    boxes : dict of int to list of Box
        For each patch of the batch that reads this image, its windows from the native scale out.
    """

    image_idx: int
    sample_idx: int
    boxes: dict[int, list[Box]]

    def leaves(self, image: ImageStack) -> bool:
        """Tell whether any box leaves the image."""
        return self.view(*image.data_shape[-2:]) != (0, 0, *image.data_shape[-2:])

    def cuts(self, image: ImageStack) -> bool:
        """Tell whether any box goes farther out than what is shown."""
        view = self.view(*image.data_shape[-2:])
        return any(
            box.y < view.y
            or box.x < view.x
            or box.y + box.height > view.y + view.height
            or box.x + box.width > view.x + view.width
            for windows in self.boxes.values()
            for box in windows
        )

    def view(self, height: int, width: int) -> Box:
        """Return what to show: the image and its boxes, where they do not go too far out."""
        boxes = [box for windows in self.boxes.values() for box in windows]
        top, left = min(0, *(box.y for box in boxes)), min(0, *(box.x for box in boxes))
        bottom = max(height, *(box.y + box.height for box in boxes))
        right = max(width, *(box.x + box.width for box in boxes))
        if (top, left, bottom, right) == (0, 0, height, width):
            return Box(0, 0, height, width)
        air, most = (round(part * max(height, width)) for part in (_AIR, _WIDEST_BORDER))
        top, left = max(top - air, -most), max(left - air, -most)
        bottom, right = min(bottom + air, height + most), min(right + air, width + most)
        return Box(top, left, bottom - top, right - left)


def overviews_of(plan: Plan, n_scales: int) -> list[Overview]:
    """Return the images that a plan reads, each with the boxes of its patches."""
    found: dict[tuple[int, int], Overview] = {}
    image_idx, sample_idx, coords, _ = plan.sources
    for b, c in np.ndindex(image_idx.shape):
        key = int(image_idx[b, c]), int(sample_idx[b, c])
        overview = found.setdefault(key, Overview(*key, {}))
        place = coords[b, c, -2:].tolist()
        overview.boxes[b] = [_box(place, plan.patch_size[-2:], s) for s in range(n_scales)]
    return [found[key] for key in sorted(found)]


def _box(place: Sequence[int], size: Sequence[int], scale: int) -> Box:
    y, x = (window_start(at, n, scale) for at, n in zip(place, size, strict=True))
    return Box(y, x, size[0] << scale, size[1] << scale)


def paint(
    image: ImageStack,
    sample_idx: int,
    view: Box,
    padding: str,
    tints: Sequence[colours.Colour],
) -> NDArray[np.float32]:
    """Paint the part `view` of an image in colour, (Y, X, 3).

    Beyond the image it is dim: mirrored or repeated where the context is, plain where that is
    zero, or depends on the patch ("wrap"). What is not finite is striped, every pixel of it.
    """
    channels = planes_of(image, sample_idx)
    between = [colours.limits(channel) for channel in colours.thinned(channels)]
    step = colours.step_to_thin(view.height, view.width)
    reads, inside = [], []
    for first, length, n in zip(view[:2], view[2:], channels.shape[1:], strict=True):
        virtual = np.arange(first, first + length, step)
        mode = padding if padding in ("reflect", "periodic") else "zero"
        reads.append(border_index(virtual, 0, n, mode))
        inside.append((virtual >= 0) & (virtual < n))
    pixels = channels[:, reads[0][:, None], reads[1]]
    rgb = colours.overlay(pixels, between, tints)
    not_finite = ~np.isfinite(pixels).all(axis=0)
    y, x = np.nonzero(~np.isfinite(channels).all(axis=0))
    # of those that are thinned out too
    not_finite[(y - view.y) // step, (x - view.x) // step] = True
    larger = 2 * max(not_finite.shape) // _SHOWN
    colours.striped(rgb, colours.grown(not_finite, larger), max(2, 3 * larger // 2))
    blank = np.logical_or.outer(reads[0] < 0, reads[1] < 0)
    outside = ~np.logical_and.outer(*inside)
    rgb[blank] = 0
    rgb[outside] = _DIMMED * rgb[outside] + _OUTSIDE
    return rgb

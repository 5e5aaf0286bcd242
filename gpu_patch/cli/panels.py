"""The rows of small images: the scales of each input, and its targets. NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch import PatchBatch
from gpu_patch.cli import display
from gpu_patch.cli.modes import Subject, channel_names
from gpu_patch.constructors.plan import Plan

MOST_CHANNELS = 6


class Panel(NamedTuple):
    """A small image.

    Attributes
    ----------
    title : str
        What it is.
    rgb : array of float32, shape (Y, X, 3)
        Its colours.
    scale : int or None
        The scale that it shows; None for targets.
    """

    title: str
    rgb: NDArray[np.float32]
    scale: int | None


def input_panels(subject: Subject, plan: Plan, batch: PatchBatch) -> list[list[Panel]]:
    """Return a row of panels per patch: the scales of the input, or its channels."""
    if subject.mode == "basic":
        n_channels = batch.input.shape[1]
        names = channel_names(subject.images, n_channels)
        titles, colours = [names] * len(batch.input), display.channel_colours(n_channels)
        return _channel_panels(subject, plan, batch.input, titles, colours, scale=0)
    planes = display.middle_plane(batch.input, 2)
    # one contrast for all, so that brightness can be compared
    between = display.limits(planes)
    return [
        [
            Panel(f"×{1 << scale}", display.tinted(pixels, between, (1, 1, 1)), scale)
            for scale, pixels in enumerate(plane)
        ]
        for plane in planes
    ]


def target_panels(subject: Subject, plan: Plan, batch: PatchBatch) -> list[list[Panel]]:
    """Return a row of panels per patch: the targets, with their weights in the plan."""
    if batch.target is None:
        return [[] for _ in batch.input]
    weights = plan.weights
    if weights is None:
        weights = np.empty((len(batch.input), 0), np.float32)
    titles = [subject.target_titles(row) for row in weights]
    colours = display.channel_colours(subject.n_targets)
    return _channel_panels(subject, plan, batch.target, titles, colours, scale=None)


def _channel_panels(
    subject: Subject,
    plan: Plan,
    patches: NDArray[np.float32],
    titles: Sequence[Sequence[str]],
    colours: Sequence[display.Colour],
    scale: int | None,
) -> list[list[Panel]]:
    """Show channels with the contrast of the whole images that they come from."""
    rows = []
    for b, plane in enumerate(display.middle_plane(patches, 2)):
        row = []
        for c, pixels in enumerate(plane[:MOST_CHANNELS]):
            source = subject.pixels(plan, b, c, of_target=scale is None)
            between = display.limits(display.thinned(display.middle_plane(source, 0)))
            row.append(Panel(titles[b][c], display.tinted(pixels, between, colours[c]), scale))
        rows.append(row)
    return rows

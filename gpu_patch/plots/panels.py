"""The rows of small images: the scales of each input, and its targets. NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from gpu_patch import PatchBatch
from gpu_patch.constructors.plan import Plan
from gpu_patch.plots import colours
from gpu_patch.plots.sheet import Panel
from gpu_patch.plots.subject import Subject

MOST_CHANNELS = 6


def input_panels(subject: Subject, plan: Plan, batch: PatchBatch) -> list[list[Panel]]:
    """Return a row of panels per patch: the scales of the input, or its channels."""
    if subject.mode == "basic":
        titles = [subject.input_names(plan)] * len(batch.input)
        tints = colours.channel_colours(batch.input.shape[1])
        return _channel_panels(subject, plan, batch.input, titles, tints, scale=0)
    planes = colours.middle_plane(batch.input, 2)
    # one contrast for all, so that brightness can be compared
    between = colours.limits(planes)
    return [
        [
            Panel(f"×{1 << scale}", colours.tinted(pixels, between, (1, 1, 1)), scale)
            for scale, pixels in enumerate(plane)
        ]
        for plane in planes
    ]


def target_panels(subject: Subject, plan: Plan, batch: PatchBatch) -> list[list[Panel]]:
    """Return a row of panels per patch: the targets, with their weights in the plan."""
    if batch.target is None:
        return [[] for _ in batch.input]
    titles = [subject.target_names(plan, b) for b in range(len(batch.input))]
    tints = colours.channel_colours(subject.n_targets)
    return _channel_panels(subject, plan, batch.target, titles, tints, scale=None)


def _channel_panels(
    subject: Subject,
    plan: Plan,
    patches: NDArray[Any],
    titles: Sequence[Sequence[str]],
    tints: Sequence[colours.Colour],
    scale: int | None,
) -> list[list[Panel]]:
    """Show channels with the contrast of the whole images that they come from."""
    rows = []
    for b, plane in enumerate(colours.middle_plane(patches, 2)):
        row = []
        for c, pixels in enumerate(plane[:MOST_CHANNELS]):
            source = subject.plane(plan, b, c, of_target=scale is None)
            between = colours.limits(colours.thinned(source))
            row.append(Panel(titles[b][c], colours.tinted(pixels, between, tints[c]), scale))
        rows.append(row)
    return rows

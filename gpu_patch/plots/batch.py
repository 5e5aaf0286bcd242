"""The picture of a batch: where its patches lie, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from textwrap import fill
from typing import Any

import numpy as np

from gpu_patch import PatchBatch
from gpu_patch.checks import Message, argument
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.execute import execute
from gpu_patch.constructors.plan import Plan
from gpu_patch.constructors.target_dtype import checked_target_dtype
from gpu_patch.plots import colours
from gpu_patch.plots.captions import cut, explanation, n_not_finite, names, title
from gpu_patch.plots.layout import TOP, Layout
from gpu_patch.plots.overview import Box, Overview, overviews_of, paint
from gpu_patch.plots.panels import input_panels, target_panels
from gpu_patch.plots.sheet import EDGE, Panel, Sheet
from gpu_patch.plots.subject import Subject, on_host, subject_of
from gpu_patch.words import counted, times

_USUAL = 4
_CHARACTERS_PER_INCH = 14


def plot_batch(
    constructor: PlannedConstr, indices: Sequence[int] | None = None, *, epoch: int = 0
) -> Any:
    """Draw patches: where they lie, their context at every scale, and their targets.

    ![Boxes on an image, and the patches in them at four scales](../../docs/preview.png)

    Parameters
    ----------
    constructor : PlannedConstr
        One of the five of gpu_patch.
    indices : sequence of int, optional
        The patches, at most 26; default four that are spread over the epoch.
    epoch : int, default 0
        As for `construct_batch`, which makes the same patches.

    Returns
    -------
    matplotlib.figure.Figure
        As large as the images and the patches need, 16 inches wide at most.

    Raises
    ------
    ValueError
        Of more than 26 patches, or what `construct_batch` raises for wrong indices.
    TypeError
        The constructor is none of gpu_patch's.
    ImportError
        matplotlib is missing.

    Notes
    -----
    Of stacks the middle Z plane is drawn. What is not finite is striped. An image that is kept by
    chunk is read plane by plane, one for each sample that patches come from.
    """
    subject = subject_of(constructor)
    indices = subject.choose(_USUAL, 0) if indices is None else indices
    if len(indices) > len(ascii_uppercase):
        raise ValueError(
            Message(
                argument("indices"),
                f" must be at most {len(ascii_uppercase)}, a letter each, found {len(indices)}",
            )
        )
    plan = subject.plan(indices, epoch)
    sampling = subject.constructor.sampling
    kind = checked_target_dtype("native" if sampling.has_labels else None, sampling)
    inputs, targets = execute(plan, np.float32, kind)
    batch = PatchBatch(on_host(inputs), None if targets is None else on_host(targets), plan.specs)
    return _drawn(subject, plan, batch, indices)


def _drawn(subject: Subject, plan: Plan, batch: PatchBatch, indices: Sequence[int]) -> Any:
    """Draw the patches of a plan."""
    inputs, targets = input_panels(subject, plan, batch), target_panels(subject, plan, batch)
    n_inputs, n_targets = len(inputs[0]), len(targets[0])
    overviews = overviews_of(plan, subject.n_scales)
    n_panels = len(indices), n_inputs, n_targets
    picture = _BatchPicture(subject, overviews, plan.patch_size, n_panels)
    picture.write_head()
    picture.write_heading(0, "Mixed input" if subject.mixes else "Input")
    if n_targets:
        hidden = subject.n_targets - n_targets
        heading = "Targets" + (f" ({hidden} more not shown)" if hidden else "")
        picture.write_heading(n_inputs, heading)
    for row, (index, left, right) in enumerate(zip(indices, inputs, targets, strict=True)):
        picture.write_label(row, index)
        for column, panel in enumerate(left + right):
            picture.show_panel(row, column, panel)
    picture.show_overviews()
    picture.write_notes()
    return picture.sheet.figure


class _BatchPicture:
    """A sheet, and the parts of the picture on it: rows, inputs and targets of panels."""

    def __init__(
        self,
        subject: Subject,
        overviews: Sequence[Overview],
        patch_size: Sequence[int],
        n_panels: tuple[int, int, int],
    ) -> None:
        self.subject, self.overviews, self.patch_size = subject, overviews, patch_size
        self.views = [
            overview.view(*subject.images[overview.image_idx].data_shape[-2:])
            for overview in overviews
        ]
        self.layout = Layout(*n_panels, patch_size, self.views)
        self.sheet = Sheet(self.layout.width, self.layout.height)

    def write_head(self) -> None:
        """Say what is drawn."""
        subject, patch_size = self.subject, self.patch_size
        sources = list(dict.fromkeys(names(subject.images)))
        shown = ", ".join(sources[:3]) + (" …" if len(sources) > 3 else "")
        axes = "×".join("ZYX"[-len(patch_size) :])
        parts = [f"patches of {times(patch_size)} pixels ({axes})"]
        if subject.mode != "basic":
            scales = counted(subject.n_scales, "scale")
            parts += [scales, f"padding {subject.padding}"]
        if len(patch_size) == 3:
            parts.append("middle z plane of each")
        kind = type(subject.constructor).__name__
        self.sheet.write_head(cut(f"Patches of {shown}", 80), f"{kind}: {', '.join(parts)}")

    def write_heading(self, column: int, text: str) -> None:
        """Write the heading of a group of panels."""
        x = self.layout.column(column)
        self.sheet.write(x, TOP - 0.45, text, fontsize=11.5, fontweight="bold")

    def write_label(self, row: int, index: int) -> None:
        """Write the letter of a patch to the left of its panels."""
        x = self.layout.column(0) - 0.12
        y = self.layout.row(row) + self.layout.panel_height / 2
        self.sheet.write(x, y, ascii_uppercase[row], fontsize=20, fontweight="bold", ha="right")
        self.sheet.write(
            x, y + 0.18, f"index {index}", fontsize=7.5, color=self.sheet.theme.faint, ha="right"
        )

    def show_panel(self, row: int, column: int, panel: Panel) -> None:
        """Show a panel with its title and frame, and in it the window of the scale before."""
        from matplotlib.patches import Rectangle

        layout = self.layout
        place = layout.column(column), layout.row(row), layout.panel_width, layout.panel_height
        axes = self.sheet.axes(*place)
        axes.set(xticks=[], yticks=[])
        axes.imshow(panel.rgb, interpolation="nearest", aspect="auto")
        is_input = panel.scale is not None
        axes.spines[:].set(
            color=colours.SCALE_COLOURS[panel.scale or 0] if is_input else self.sheet.theme.faint,
            linewidth=3 if is_input else 0.8,
        )
        axes.set_title(
            panel.title.replace(", ", "\n"),
            fontsize=10 if is_input else 8.5,
            fontweight="bold" if is_input else "normal",
            color=self.sheet.theme.text,
            pad=4,
        )
        if panel.scale:
            height, width = panel.rgb.shape[:2]
            corner = width / 4 - 0.5, height / 4 - 0.5
            before = Rectangle(corner, width / 2, height / 2, fill=False, linewidth=1)
            before.set_edgecolor(colours.SCALE_COLOURS[panel.scale - 1])
            axes.add_patch(before)

    def show_overviews(self) -> None:
        """Show the images with the boxes on them: solid inside, dashed beyond."""
        for at, (overview, view) in enumerate(zip(self.overviews, self.views, strict=True)):
            self._show_overview(at, overview, view)

    def _show_overview(self, at: int, overview: Overview, view: Box) -> None:
        from matplotlib.patches import Rectangle

        subject = self.subject
        image = subject.images[overview.image_idx]
        tints = colours.channel_colours(image.data_shape[1])
        if subject.mode == "independent":
            structure = subject.structures[overview.image_idx]
            tints = [colours.channel_colours(subject.n_targets)[structure]]
        place = self.layout.overview(at)
        axes = self.sheet.axes(*place)
        axes.set(xticks=[], yticks=[])
        # a pixel's centre is at its index
        left, top = view.x - 0.5, view.y - 0.5
        axes.imshow(
            paint(image, overview.sample_idx, view, subject.padding, tints),
            extent=(left, left + view.width, top + view.height, top),
            aspect="auto",
        )
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
        axes.spines[:].set_visible(False)
        height, width = image.data_shape[-2:]
        border = Rectangle(
            (-0.5, -0.5), width, height, fill=False, edgecolor=self.sheet.theme.faint, linewidth=0.8
        )
        axes.add_patch(border)
        for scale in reversed(range(subject.n_scales)):
            for boxes in overview.boxes.values():
                _draw_box(axes, boxes[scale], scale, border)
        for b, boxes in overview.boxes.items():
            _write_letter(axes, ascii_uppercase[b], boxes[0], view)
        text = title(subject, overview, int(place[2] * _CHARACTERS_PER_INCH))
        axes.set_title(text, fontsize=9.5, color=self.sheet.theme.text, loc="left", pad=5)

    def write_notes(self) -> None:
        """Say what the boxes' colours are, and how to read the picture."""
        from matplotlib.lines import Line2D

        subject, patch_size = self.subject, self.patch_size
        text = explanation(subject, self.overviews, n_not_finite(subject, self.overviews))
        top = self.layout.notes_top
        lines = [
            Line2D([], [], color=colour, lw=3, label=f"×{1 << s}: {times(patch_size, s)}")
            for s, colour in enumerate(colours.SCALE_COLOURS[: subject.n_scales])
        ]
        self.sheet.figure.legend(
            handles=lines,
            loc="upper left",
            bbox_to_anchor=self.sheet.fraction(EDGE, top + 0.12),
            ncols=4,
            frameon=False,
            fontsize=9.5,
            labelcolor=self.sheet.theme.text,
            handlelength=1.6,
            columnspacing=1.4,
            borderaxespad=0,
            borderpad=0,
        )
        filled = fill(text, int(self.layout.left_width * _CHARACTERS_PER_INCH))
        y = top + 0.3 + 0.2 * -(-subject.n_scales // 4)
        self.sheet.write(
            EDGE, y, filled, fontsize=9, color=self.sheet.theme.faint, va="top", linespacing=1.4
        )


def _draw_box(axes: Any, box: Box, scale: int, border: Any) -> None:
    """Draw a window, dashed where it is outside `border`."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    for line_width, style in ((1.2, "--"), (1.8 if scale else 2.4, "-")):
        frame = Rectangle((box.x - 0.5, box.y - 0.5), box.width, box.height, fill=False)
        frame.set_edgecolor(colours.SCALE_COLOURS[scale])
        frame.set(linewidth=line_width, linestyle=style)
        axes.add_patch(frame)
    frame.set_clip_path(border.get_path(), border.get_transform())
    frame.set_path_effects([withStroke(linewidth=line_width + 1.4, foreground="#000000b0")])


def _write_letter(axes: Any, letter: str, box: Box, view: Box) -> None:
    """Write a letter above a box, or inside where there is no room above."""
    from matplotlib.patheffects import withStroke

    above = box.y - view.y > 0.05 * view.height
    axes.annotate(
        letter,
        (box.x, box.y),
        xytext=(1, 3) if above else (5, -5),
        textcoords="offset points",
        va="bottom" if above else "top",
        color="white",
        fontsize=13,
        fontweight="bold",
        path_effects=[withStroke(linewidth=3, foreground="black")],
    )

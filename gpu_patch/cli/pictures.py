"""The picture of a batch: where its patches lie, and what is in them. Drawn with matplotlib."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from textwrap import fill
from typing import Any

from numpy.typing import NDArray

from gpu_patch import ImageStack
from gpu_patch.cli import display
from gpu_patch.cli.display import BACKGROUND, FAINT, TEXT
from gpu_patch.cli.layout import EDGE, TOP, Layout
from gpu_patch.cli.modes import Subject
from gpu_patch.cli.overview import Box, Overview, overviews_of, paint
from gpu_patch.cli.panels import Panel, input_panels, target_panels
from gpu_patch.cli.text import counted

_DPI = 100
_CHARACTERS_PER_INCH = 14
_BEYOND = {
    "zero": "the patch is zero there",
    "reflect": "the context is mirrored there, as the dimmed margin shows",
    "periodic": "the context repeats the image there, as the dimmed margin shows",
    "wrap": "the context repeats what it has of the image there",
}


def draw(subject: Subject, indices: Sequence[int], out: Path) -> tuple[int, int]:
    """Draw patches into a file.

    Parameters
    ----------
    subject : Subject
        Makes the patches.
    indices : sequence of int
        The patches, at most 26.
    out : Path
        The file; its suffix says the format.

    Returns
    -------
    width, height : int
        Size of the picture in pixels.
    """
    plan = subject.plan(indices)
    batch = subject.constructor.construct_batch(indices)
    inputs, targets = input_panels(subject, plan, batch), target_panels(subject, plan, batch)
    overviews = overviews_of(plan, subject.n_scales)
    views = [
        overview.view(*subject.images[overview.image_idx].data_shape[-2:]) for overview in overviews
    ]
    layout = Layout(len(indices), len(inputs[0]), len(targets[0]), plan.patch_size, views)
    sheet = _Sheet(layout)
    sheet.write_header(subject, plan.patch_size)
    sheet.write_heading(0, "Mixed input" if subject.mixes else "Input")
    if targets[0]:
        hidden = subject.n_targets - len(targets[0])
        heading = "Targets" + (f" ({hidden} more not shown)" if hidden else "")
        sheet.write_heading(len(inputs[0]), heading)
    for row, (left, right) in enumerate(zip(inputs, targets, strict=True)):
        sheet.write_label(row, indices[row])
        for column, panel in enumerate(left + right):
            sheet.show_panel(row, column, panel)
    for at, overview in enumerate(overviews):
        sheet.show_overview(at, subject, overview, views[at])
    n_not_finite = sum(map(display.n_not_finite, _shown(subject, overviews)))
    sheet.write_notes(subject, plan.patch_size, explanation(subject, overviews, n_not_finite))
    sheet.figure.savefig(out, dpi=_DPI)
    return sheet.size


def _shown(subject: Subject, overviews: Sequence[Overview]) -> list[NDArray[Any]]:
    """Return the samples that patches come from, those of separate targets too, C(Z)YX."""
    return [
        images[overview.image_idx].data[overview.sample_idx]
        for images in (subject.images, subject.targets)
        if images
        for overview in overviews
    ]


def explanation(subject: Subject, overviews: Sequence[Overview], n_not_finite: int = 0) -> str:
    """Say in a few sentences how to read the picture."""
    sentences = []
    if n_not_finite:
        are = "value is" if n_not_finite == 1 else "values are"
        sentences.append(
            f"Stripes mark what is not finite: {n_not_finite} {are} NaN or infinite where these "
            "patches come from."
        )
    if subject.n_scales > 1:
        sentences.append(
            "Every box around a letter is brought to the size of a patch: the input shows the same "
            "centre with ever more of its surroundings. Thin boxes in it mark the scale before."
        )
    if subject.mixes:
        sentences.append("Targets are unweighted; the input adds them up with their weights.")
    if any(overview.leaves(subject.images[overview.image_idx]) for overview in overviews):
        sentences.append(f"Dashed boxes leave the image: {_BEYOND[subject.padding]}.")
    if any(overview.cuts(subject.images[overview.image_idx]) for overview in overviews):
        sentences.append("Boxes that go far beyond the image are cut off.")
    others = {image.source for image in subject.images}
    others -= {subject.images[overview.image_idx].source for overview in overviews}
    if others:
        sentences.append(f"None of these patches is from {counted(len(others), 'other image')}.")
    return " ".join(sentences)


class _Sheet:
    """The figure, drawn to a layout."""

    def __init__(self, layout: Layout) -> None:
        from matplotlib.figure import Figure

        self.layout = layout
        self.size = round(layout.width * _DPI), round(layout.height * _DPI)
        # matplotlib cuts off what is no whole pixel
        width, height = ((pixels + 0.1) / _DPI for pixels in self.size)
        self.figure: Any = Figure(figsize=(width, height), dpi=_DPI, facecolor=BACKGROUND)

    def write_header(self, subject: Subject, patch_size: Sequence[int]) -> None:
        """Say what is drawn."""
        sources = list(dict.fromkeys(_names(subject.images)))
        names = ", ".join(sources[:3]) + (" …" if len(sources) > 3 else "")
        axes = "×".join("ZYX"[-len(patch_size) :])
        parts = [f"patches of {_times(patch_size)} pixels ({axes})"]
        if subject.mode != "basic":
            scales = counted(subject.n_scales, "scale")
            parts += [scales, f"padding {subject.padding}"]
        if len(patch_size) == 3:
            parts.append("middle z plane of each")
        kind = type(subject.constructor).__name__
        self._write(EDGE, 0.5, _cut(f"Patches of {names}", 80), fontsize=18, fontweight="bold")
        self._write(EDGE, 0.8, f"{kind}: {', '.join(parts)}", fontsize=11, color=FAINT)

    def write_heading(self, column: int, text: str) -> None:
        """Write the heading of a group of panels."""
        x = self.layout.column(column)
        self._write(x, TOP - 0.45, text, fontsize=11.5, fontweight="bold")

    def write_label(self, row: int, index: int) -> None:
        """Write the letter of a patch to the left of its panels."""
        x = self.layout.column(0) - 0.12
        y = self.layout.row(row) + self.layout.panel_height / 2
        self._write(x, y, ascii_uppercase[row], fontsize=20, fontweight="bold", ha="right")
        self._write(x, y + 0.18, f"index {index}", fontsize=7.5, color=FAINT, ha="right")

    def show_panel(self, row: int, column: int, panel: Panel) -> None:
        """Show a panel with its title and frame, and in it the window of the scale before."""
        from matplotlib.patches import Rectangle

        layout = self.layout
        place = layout.column(column), layout.row(row), layout.panel_width, layout.panel_height
        axes = self._axes(*place)
        axes.imshow(panel.rgb, interpolation="nearest", aspect="auto")
        is_input = panel.scale is not None
        axes.spines[:].set(
            color=display.SCALE_COLOURS[panel.scale or 0] if is_input else FAINT,
            linewidth=3 if is_input else 0.8,
        )
        axes.set_title(
            panel.title.replace(", ", "\n"),
            fontsize=10 if is_input else 8.5,
            fontweight="bold" if is_input else "normal",
            color=TEXT,
            pad=4,
        )
        if panel.scale:
            height, width = panel.rgb.shape[:2]
            corner = width / 4 - 0.5, height / 4 - 0.5
            before = Rectangle(corner, width / 2, height / 2, fill=False, linewidth=1)
            before.set_edgecolor(display.SCALE_COLOURS[panel.scale - 1])
            axes.add_patch(before)

    def show_overview(self, at: int, subject: Subject, overview: Overview, view: Box) -> None:
        """Show an image and the boxes on it: solid inside it, dashed beyond."""
        from matplotlib.patches import Rectangle

        image = subject.images[overview.image_idx]
        colours = display.channel_colours(image.data_shape[1])
        if subject.mode == "independent":
            structure = subject.structures[overview.image_idx]
            colours = [display.channel_colours(subject.n_targets)[structure]]
        place = self.layout.overview(at)
        axes = self._axes(*place)
        # a pixel's centre is at its index
        left, top = view.x - 0.5, view.y - 0.5
        axes.imshow(
            paint(image, overview.sample_idx, view, subject.padding, colours),
            extent=(left, left + view.width, top + view.height, top),
            aspect="auto",
        )
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
        axes.spines[:].set_visible(False)
        height, width = image.data_shape[-2:]
        border = Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=FAINT, linewidth=0.8)
        axes.add_patch(border)
        for scale in reversed(range(subject.n_scales)):
            for boxes in overview.boxes.values():
                _draw_box(axes, boxes[scale], scale, border)
        for b, boxes in overview.boxes.items():
            _write_letter(axes, ascii_uppercase[b], boxes[0], view)
        title = _title(subject, overview, int(place[2] * _CHARACTERS_PER_INCH))
        axes.set_title(title, fontsize=9.5, color=TEXT, loc="left", pad=5)

    def write_notes(self, subject: Subject, patch_size: Sequence[int], text: str) -> None:
        """Say what the boxes' colours are, and how to read the picture."""
        from matplotlib.lines import Line2D

        top = self.layout.notes_top
        lines = [
            Line2D([], [], color=colour, lw=3, label=f"×{1 << s}: {_times(patch_size, s)}")
            for s, colour in enumerate(display.SCALE_COLOURS[: subject.n_scales])
        ]
        self.figure.legend(
            handles=lines,
            loc="upper left",
            bbox_to_anchor=self._fraction(EDGE, top + 0.12),
            ncols=4,
            frameon=False,
            fontsize=9.5,
            labelcolor=TEXT,
            handlelength=1.6,
            columnspacing=1.4,
            borderaxespad=0,
            borderpad=0,
        )
        filled = fill(text, int(self.layout.left_width * _CHARACTERS_PER_INCH))
        y = top + 0.3 + 0.2 * -(-subject.n_scales // 4)
        self._write(EDGE, y, filled, fontsize=9, color=FAINT, va="top", linespacing=1.4)

    def _fraction(self, x: float, y: float) -> tuple[float, float]:
        """Return a place as matplotlib counts it: parts of the figure, from below."""
        return x / self.layout.width, 1 - y / self.layout.height

    def _axes(self, x: float, y: float, width: float, height: float) -> Any:
        size = width / self.layout.width, height / self.layout.height
        axes = self.figure.add_axes((*self._fraction(x, y + height), *size))
        axes.set(xticks=[], yticks=[])
        return axes

    def _write(self, x: float, y: float, text: str, **style: Any) -> None:
        self.figure.text(*self._fraction(x, y), text, **{"color": TEXT, **style})


def _times(size: Sequence[int], scale: int = 0) -> str:
    return "×".join(str(n << scale) for n in size)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _end_of(name: str, length: int) -> str:
    """Cut a name at its beginning: names of one series differ at their end."""
    return name if len(name) <= length else "…" + name[1 - length :]


def _names(images: Sequence[ImageStack]) -> list[str]:
    """Return the names of images' files, with their folders where files share a name."""
    paths = {Path(image.source) for image in images}
    shared = {name for name, n in Counter(path.name for path in paths).items() if n > 1}
    return [
        "/".join(path.parts[-2:]) if path.name in shared else path.name
        for path in (Path(image.source) for image in images)
    ]


def _title(subject: Subject, overview: Overview, length: int) -> str:
    """Name an image; where there is no room it is its name that is cut."""
    image = subject.images[overview.image_idx]
    height, width = image.data_shape[-2:]
    name = _names(subject.images)[overview.image_idx]
    before = ""
    if subject.mode == "independent":
        before = f"structure {subject.structures[overview.image_idx]}: "
    words = [f"{height}×{width}"]
    if image.data_shape[0] > 1:
        words.append(f"sample {overview.sample_idx}")
    if image.data.ndim == 5:
        words.append(f"z {image.data_shape[2] // 2}")
    if n := display.n_not_finite(image.data[overview.sample_idx]):
        words.append(f"{n} not finite")
    after = ", ".join(["", *words])
    room = max(8, length - len(before) - len(after))
    return before + (_end_of(name, room) if before else _cut(name, room)) + after


def _draw_box(axes: Any, box: Box, scale: int, border: Any) -> None:
    """Draw a window, dashed where it is outside `border`."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    for line_width, style in ((1.2, "--"), (1.8 if scale else 2.4, "-")):
        frame = Rectangle((box.x - 0.5, box.y - 0.5), box.width, box.height, fill=False)
        frame.set_edgecolor(display.SCALE_COLOURS[scale])
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

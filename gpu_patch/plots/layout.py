"""Where things stand in the picture of a batch, in inches from its top left corner."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_patch.plots.overview import Box
from gpu_patch.plots.sheet import EDGE

TOP = 1.55
"""Where panels and overviews begin, below the header and the headings."""
_WIDTH = 16.0
_SMALLEST_OVERVIEWS, _LARGEST_OVERVIEWS = 6.2, 7.5
"""Width and height of all overviews together."""
_LARGEST_PANEL = 2.6
_GAP, _GROUP_GAP = 0.1, 0.3
_LABEL = 0.55
_CAPTION = 0.28
_NOTES = 1.5


class Layout:
    """Overviews on the left with notes below, a row of panels per patch on the right.

    Parameters
    ----------
    n_rows, n_inputs, n_targets : int
        Patches, and panels of each.
    patch_size : sequence of int
        Pixels, (Z)YX.
    views : sequence of Box
        What the overviews show.

    Attributes
    ----------
    width, height : float
        Of the picture.
    left_width : float
        Of the overviews and the notes.
    panel_width, panel_height : float
        Of each panel.
    zoom : float
        Inches per pixel of the overviews, which stand in as many columns as make them largest.
    notes_top : float
        Where the overviews end.
    """

    def __init__(
        self,
        n_rows: int,
        n_inputs: int,
        n_targets: int,
        patch_size: Sequence[int],
        views: Sequence[Box],
    ) -> None:
        self._n_inputs, self._views = n_inputs, views
        n_panels = n_inputs + n_targets
        gaps = _GAP * (n_panels - 1) + (_GROUP_GAP if n_targets else 0)
        others = 2 * EDGE + _GROUP_GAP + _LABEL + gaps
        slim = patch_size[-2] / patch_size[-1]
        widest = (_WIDTH - others - _SMALLEST_OVERVIEWS) / n_panels
        self.panel_width = min(widest, _LARGEST_PANEL, _LARGEST_PANEL / slim)
        self.panel_height = self.panel_width * slim
        panels = n_panels * self.panel_width
        # titles of targets have two lines
        self._pitch = self.panel_height + _CAPTION * (1.6 if n_targets else 1.1)

        rows = n_rows * self._pitch
        self._room = (
            min(_WIDTH - others - panels, _LARGEST_OVERVIEWS),
            min(max(rows - _NOTES, _SMALLEST_OVERVIEWS), _LARGEST_OVERVIEWS),
        )
        self._n_columns = max(range(1, len(views) + 1), key=self._zoom)
        self.zoom = self._zoom(self._n_columns)
        self._step_x = max(view.width for view in views) * self.zoom + _GAP
        self._step_y = max(view.height for view in views) * self.zoom + _CAPTION
        self.notes_top = TOP + -(-len(views) // self._n_columns) * self._step_y - _CAPTION
        self.left_width = max(self._n_columns * self._step_x - _GAP, _SMALLEST_OVERVIEWS)
        self.width = others + panels + self.left_width
        self.height = max(TOP + rows, self.notes_top + _NOTES) + EDGE

    def _zoom(self, n_columns: int) -> float:
        width = (self._room[0] + _GAP) / n_columns - _GAP
        height = self._room[1] / -(-len(self._views) // n_columns) - _CAPTION
        return min(
            width / max(view.width for view in self._views),
            height / max(view.height for view in self._views),
        )

    def column(self, column: int) -> float:
        """Return where a column of panels begins."""
        before = column * (self.panel_width + _GAP)
        gap = _GROUP_GAP if column >= self._n_inputs else 0
        return EDGE + self.left_width + _GROUP_GAP + _LABEL + before + gap

    def row(self, row: int) -> float:
        """Return where a row of panels begins."""
        return TOP + row * self._pitch

    def overview(self, at: int) -> tuple[float, float, float, float]:
        """Return left, top, width and height of an overview."""
        row, column = divmod(at, self._n_columns)
        view = self._views[at]
        return (
            EDGE + column * self._step_x,
            TOP + row * self._step_y,
            view.width * self.zoom,
            view.height * self.zoom,
        )

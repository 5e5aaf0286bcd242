"""What background filters found: which cells hold signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_patch.feed.cells import Sample, paint

_MOST_LINES = 10
"""Image stacks that a report lists."""


@dataclass(frozen=True, eq=False, repr=False)
class FilterReport:
    """What background filters found.

    Attributes
    ----------
    kept : dict of (data_idx, sample_idx) to array of bool, (Z)YX
        For each cell of the sample's grid whether it holds signal.
    data_shapes, patch_size : sequence of tuple of int, tuple of int
        Of the strategy.
    regions : bool
        Whether all that patches starting in a cell may touch was looked at, and not the cell.
    """

    kept: Mapping[Sample, NDArray[np.bool_]]
    data_shapes: Sequence[tuple[int, ...]]
    patch_size: tuple[int, ...]
    regions: bool

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return sum(grid.size for grid in self.kept.values())

    @property
    def n_kept(self) -> int:
        """Number of cells with signal."""
        return sum(int(grid.sum()) for grid in self.kept.values())

    def maps(self) -> list[NDArray[np.bool_]]:
        """Return for each image stack, S(Z)YX, which pixels lie in anything that is kept.

        Returns
        -------
        list of array of bool, shape (S, (Z), Y, X)
            One per image stack.
        """
        return paint(self.kept, self.data_shapes, self.patch_size, self.regions)

    def __repr__(self) -> str:
        what = "regions" if self.regions else "cells"
        lines = [f"FilterReport: {self.n_kept} of {self.n_cells} {what} kept"]
        for i in range(min(len(self.data_shapes), _MOST_LINES)):
            grids = [grid for (data_idx, _), grid in self.kept.items() if data_idx == i]
            n_kept, n = sum(int(grid.sum()) for grid in grids), sum(grid.size for grid in grids)
            lines.append(f"  image stack {i}: {n_kept} of {n}")
        if len(self.data_shapes) > _MOST_LINES:
            lines.append(f"  … and {len(self.data_shapes) - _MOST_LINES} more image stacks")
        return "\n".join(lines)

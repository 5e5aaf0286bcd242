"""Random patches that cover the image evenly, with parts that can be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.draws import integers
from gpu_patch.errors import index_in, mapping, probability, whole_numbers
from gpu_patch.patching._base import SampledPatching, checked_patch_size
from gpu_patch.patching._locations import Locations
from gpu_patch.patching._random import checked_generator
from gpu_patch.specs import PatchSpecs

GridCoords = tuple[int, ...]


class _Boxes(NamedTuple):
    """Boxes of patch starts, each drawn from uniformly.

    `first` and `size` have the shape (..., D), `mass` (...) is the expected number of patches of
    an epoch that start in each.
    """

    first: NDArray[np.int64]
    size: NDArray[np.int64]
    mass: NDArray[np.float64]

    def keep(self, mask: NDArray[np.bool_]) -> _Boxes:
        return _Boxes(self.first[mask], self.size[mask], self.mass[mask])


class StratifiedPatching(SampledPatching):
    """Random patches spread evenly, that never touch what is excluded.

    Each sample is cut into grid cells of patch size. Patches may start at any pixel. The starts
    are lined up cell by cell, each with a mass of 1 / (pixels of a patch), and the line is cut
    into pieces of mass 1: patch index i is drawn from piece i. So an epoch covers every pixel
    once on average, except within a patch of borders and exclusions, and two epochs' patches i
    are neighbours. What is missing to a whole number of patches goes to the starts right at
    borders and exclusions, where coverage is lowest.

    Differs from careamics 0.3.5, whose average over the image is 1, and whose grid leaves a
    remainder at the end of an axis out: here the last cells are smaller and can be excluded too.

    Parameters
    ----------
    data_shapes : sequence of sequence of int
        SC(Z)YX.
    patch_size : sequence of int
        Pixels, (Z)YX.
    seed : int or None, default None
        Seed of the places that `get_patch_spec` draws. Batches draw by counter instead, from the
        constructor's seed.

    Examples
    --------
    >>> strategy = StratifiedPatching([(1, 1, 128, 192)], (64, 64), seed=0)
    >>> strategy.get_all_grid_coords()[0, 0]
    [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    >>> strategy.exclude_patches(0, 0, [(0, 0), (0, 1)])
    >>> all(
    ...     spec["coords"][0] >= 64 or spec["coords"][1] >= 128
    ...     for spec in map(strategy.get_patch_spec, range(strategy.n_patches))
    ... )
    True
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        seed: int | None = None,
    ) -> None:
        super().__init__(data_shapes)
        self.patch_size = checked_patch_size(patch_size, self.data_shapes)
        self.seed, self.rng = seed, checked_generator(seed)
        self.n_uniforms = 1 + len(self.patch_size)
        grids = -(-self._sample_shape // self.patch_size)
        self._excluded = [np.zeros(grid, bool) for grid in grids.tolist()]
        self._probs = [np.ones(grid) for grid in grids.tolist()]
        self._boxes: list[_Boxes | None] = [None] * len(grids)
        self._line: NDArray[np.float64] | None = None

    @property
    def n_patches(self) -> int:
        self._refresh()
        return int(self._ends[-1])

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        self._refresh()
        return super().get_patch_indices(data_idx)

    def get_patch_spec(self, index: int) -> PatchSpecs:
        checked = index_in("index", index, self.n_patches, "patches")
        return self.locate(np.array([checked]), self.rng.random((self.n_uniforms, 1))).spec(0)

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        self._refresh()
        assert self._line is not None
        sample = self._sample_of(index)
        box = self._line.searchsorted(index + uniforms[0], "right")
        # index + u may round up to the next whole number, which could be the next sample's
        box = np.minimum(box, self._box_ends[sample] - 1)
        coords = self._first[box] + integers(uniforms[1:].T, self._size[box])
        return Locations(
            self._sample_image[sample], self._sample_idx[sample], coords, self.patch_size
        )

    def exclude_patches(
        self, data_idx: int, sample_idx: int, grid_coords: Sequence[GridCoords]
    ) -> None:
        """Exclude grid cells: no patch will touch any of their pixels.

        Parameters
        ----------
        data_idx, sample_idx : int
            Image stack and sample.
        grid_coords : sequence of tuple of int
            Cells, (Z)YX, as `get_all_grid_coords` lists them. Added to those excluded before.
            The number of patches changes accordingly.

        Raises
        ------
        IndexError, TypeError, ValueError
            There is no such sample, or a cell is not in its grid. Nothing is changed then.
        """
        sample = self._sample_at(data_idx, sample_idx)
        if isinstance(grid_coords, (str, bytes)) or not hasattr(grid_coords, "__iter__"):
            raise TypeError(f"grid_coords must be a sequence of cells, found {grid_coords!r}")
        cells = [self._cell("grid_coords", cell, sample) for cell in grid_coords]
        for cell in cells:
            self._excluded[sample][cell] = True
        self._forget(sample)

    def set_region_probs(
        self, data_idx: int, sample_idx: int, probs: Mapping[GridCoords, float]
    ) -> None:
        """Set how likely patches that start in a cell are, relative to the default of 1.

        Parameters
        ----------
        data_idx, sample_idx : int
            Image stack and sample.
        probs : mapping of tuple of int to float
            Cell to probability in [0, 1]; cells not named stay as they are. The number of patches
            changes accordingly.

        Raises
        ------
        IndexError, TypeError, ValueError
            There is no such sample, a cell is not in its grid, or a probability not in [0, 1].
            Nothing is changed then.
        """
        sample = self._sample_at(data_idx, sample_idx)
        checked = {
            self._cell("probs", cell, sample): probability(f"probs[{cell}]", prob)
            for cell, prob in mapping("probs", probs).items()
        }
        for cell, prob in checked.items():
            self._probs[sample][cell] = prob
        self._forget(sample)

    def get_all_grid_coords(self) -> dict[tuple[int, int], list[GridCoords]]:
        """Return all cells of each (data_idx, sample_idx).

        Returns
        -------
        dict of (int, int) to list of tuple of int
            By image stack and sample: cells, (Z)YX.
        """
        return self._cells([np.ones_like(mask) for mask in self._excluded])

    def get_included_grid_coords(self) -> dict[tuple[int, int], list[GridCoords]]:
        """Return the cells of each (data_idx, sample_idx) that are not excluded.

        Returns
        -------
        dict of (int, int) to list of tuple of int
            By image stack and sample: cells, (Z)YX.
        """
        return self._cells([~mask for mask in self._excluded])

    def _cells(self, masks: list[NDArray[np.bool_]]) -> dict[tuple[int, int], list[GridCoords]]:
        keys = zip(self._sample_image.tolist(), self._sample_idx.tolist(), strict=True)
        return {
            key: [tuple(cell) for cell in np.argwhere(mask).tolist()]
            for key, mask in zip(keys, masks, strict=True)
        }

    def _sample_at(self, data_idx: int, sample_idx: int) -> int:
        image = index_in("data_idx", data_idx, len(self.data_shapes), "image stacks")
        samples = np.flatnonzero(self._sample_image == image)
        return int(samples[index_in("sample_idx", sample_idx, len(samples), "samples")])

    def _cell(self, name: str, cell: object, sample: int) -> GridCoords:
        grid = self._excluded[sample].shape
        checked = whole_numbers(name, cell, minimum=0, length=len(grid))
        if any(c >= g for c, g in zip(checked, grid, strict=True)):
            raise ValueError(f"{name}: the cell {checked} is outside the grid of {grid} cells")
        return checked

    def _forget(self, sample: int) -> None:
        self._boxes[sample] = None
        self._line = None

    def _refresh(self) -> None:
        """Make the line of starts anew where cells changed."""
        if self._line is not None:
            return
        for i, known in enumerate(self._boxes):
            if known is None:
                self._boxes[i] = self._make_boxes(i)
        boxes = [box for box in self._boxes if box is not None]
        counts = np.array([round(float(box.mass.sum())) for box in boxes])
        self._set_counts(counts)
        self._box_ends = np.cumsum([len(box.mass) for box in boxes])
        self._first = np.concatenate([box.first for box in boxes])
        self._size = np.concatenate([box.size for box in boxes])
        self._line = np.concatenate(
            [start + np.cumsum(box.mass) for start, box in zip(self._starts, boxes, strict=True)]
        )

    def _make_boxes(self, sample: int) -> _Boxes:
        """Boxes of starts of one sample; their masses sum to the number of patches.

        A patch that starts on a cell's first pixel covers that cell alone along the axis; from
        the others it reaches into the next. So every cell is two halves along an axis, its first
        pixel and the rest, and all starts of a box of halves touch the same cells.
        """
        last = np.maximum(self._sample_shape[sample] - self.patch_size, 0).tolist()
        blocked, probs = self._excluded[sample], self._probs[sample]
        firsts, sizes = [], []
        for axis, (n_cells, patch) in enumerate(zip(blocked.shape, self.patch_size, strict=True)):
            half = np.arange(2 * n_cells)
            firsts.append(half // 2 * patch + half % 2)
            sizes.append(
                np.clip(np.where(half % 2, patch - 1, 1), 0, last[axis] + 1 - firsts[-1]).clip(0)
            )
            probs = np.repeat(probs, 2, axis)
            blocked = np.repeat(blocked, 2, axis)
            along = blocked.swapaxes(axis, 0)
            along[1:-1:2] |= along[2::2]
        count = np.prod(np.meshgrid(*sizes, indexing="ij"), axis=0)
        mass = count * ~blocked * probs / prod(self.patch_size)
        boxes = _Boxes(
            np.stack(np.meshgrid(*firsts, indexing="ij"), axis=-1),
            np.stack(np.meshgrid(*sizes, indexing="ij"), axis=-1),
            mass,
        )
        parts = [_cell_by_cell(boxes)]
        missing = ceil(round(float(mass.sum()), 9)) - float(mass.sum())
        if missing > 1e-9:
            faces = _faces(boxes, (count > 0) & ~blocked)
            if not faces.mass.any():  # their probabilities are all zero
                faces = _faces(boxes, mass > 0)
            parts.append(faces._replace(mass=faces.mass * (missing / faces.mass.sum())))
        return _Boxes(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _cell_by_cell(boxes: _Boxes) -> _Boxes:
    """Line up the boxes of a grid of halves, those of one cell together."""
    n_dims = boxes.mass.ndim
    cells_first = [*range(0, 2 * n_dims, 2), *range(1, 2 * n_dims, 2)]
    halves = [n for size in boxes.mass.shape for n in (size // 2, 2)]
    lined_up = _Boxes(
        *(
            column.reshape(*halves, -1).transpose(*cells_first, 2 * n_dims).reshape(mass_shape)
            for column, mass_shape in zip(boxes, [(-1, n_dims), (-1, n_dims), -1], strict=True)
        )
    )
    return lined_up.keep(lined_up.mass > 0)


def _faces(boxes: _Boxes, there: NDArray[np.bool_]) -> _Boxes:
    """Return the starts beside which, along an axis, no start is `there`.

    Takes the boxes as a grid of halves.
    """
    faces = []
    for axis in range(there.ndim):
        padded = np.pad(there, [(int(a == axis),) * 2 for a in range(there.ndim)])
        n = there.shape[axis]
        for neighbour, at_end in ((range(n), False), (range(2, n + 2), True)):
            alone = boxes.keep((boxes.mass > 0) & ~padded.take(neighbour, axis))
            length = alone.size[:, axis]
            first, size = alone.first.copy(), alone.size.copy()
            first[:, axis] += (length - 1) * at_end
            size[:, axis] = 1
            faces.append(_Boxes(first, size, alone.mass / length))
    return _Boxes(*(np.concatenate(column) for column in zip(*faces, strict=True)))

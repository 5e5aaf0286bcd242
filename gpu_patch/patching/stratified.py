"""Random patches that cover the image evenly, with parts that can be left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import index_in, mapping, probability, whole_numbers
from gpu_patch.draws import integers
from gpu_patch.locations import Locations
from gpu_patch.patching.base import SampledPatching, checked_patch_size
from gpu_patch.patching.random import checked_generator
from gpu_patch.patching.spread import Spread
from gpu_patch.specs import PatchSpecs

GridCoords = tuple[int, ...]

_NOISE = 1e-9
"""Masses below are none, and parts of patches below this are not rounded up."""


class _Boxes(NamedTuple):
    """Boxes of patch starts, each drawn from uniformly.

    `first` and `size` have the shape (n, D), `mass` (n,) is the expected number of patches of an
    epoch that start in each.
    """

    first: NDArray[np.int64]
    size: NDArray[np.int64]
    mass: NDArray[np.float64]


class StratifiedPatching(SampledPatching):
    """Random patches spread evenly, that never touch what is excluded.

    Each sample is cut into grid cells of patch size; the last cells of an axis may be smaller. An
    epoch has as many patches as there are included cells, a smaller one counted by its area, so
    that it covers what is included once on average. Patches may start at any pixel from where
    they touch no excluded cell. Away from borders and exclusions all starts are equally likely.
    There, where uniform starts would cover less, more patches start on the first pixels of cells,
    so that coverage is as even as least squares make it. A cell that no patch shares with others
    has a patch in every epoch. A smaller cell can only be covered together with its neighbour: if
    that is excluded, its share of patches goes to the others.

    Starts are lined up cell by cell, and the line is cut into pieces of one patch each: patch
    index i is drawn from piece i. So two epochs' patches i are neighbours.

    Counts as careamics 0.3.5, where all starts are equally likely everywhere: middles of areas
    are covered several times there, and corners and cells by themselves rarely. Its grid leaves a
    remainder at the end of an axis out.

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
        # what follows from exclusions and probabilities, by sample; None where not computed yet
        self._counts: list[int | None] = [None] * len(grids)
        self._masses: list[NDArray[np.float64] | None] = [None] * len(grids)
        self._boxes: list[_Boxes | None] = [None] * len(grids)
        self._line: NDArray[np.float64] | None = None
        # by shape of the samples
        self._spreads: dict[tuple[int, ...], Spread] = {}

    @property
    def n_patches(self) -> int:
        self._count()
        return int(self._ends[-1])

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        self._count()
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

    def reach(self) -> Iterator[Locations]:
        size = np.array(self.patch_size)
        for image, sample, excluded in zip(
            self._sample_image, self._sample_idx, self._excluded, strict=True
        ):
            corners = np.argwhere(~excluded) * size
            if n := len(corners):
                yield Locations(np.full(n, image), np.full(n, sample), corners, self.patch_size)

    def start_boxes(self, sample: int) -> NDArray[np.int64]:
        """Return where patches of a sample may start.

        Parameters
        ----------
        sample : int
            Its position among the samples of all image stacks.

        Returns
        -------
        array of int64, shape (n, 2, D)
            Boxes that do not overlap: the first start, and how many along each axis.
        """
        spread = self._spread(sample)
        order, first, size = spread.lined_up
        may = spread.allowed(self._excluded[sample])
        may &= spread.at_corners(self._probs[sample]) > 0
        return np.stack([first, size], axis=1)[may.ravel()[order]]

    def content(self) -> Iterator[NDArray[Any]]:
        yield from super().content()
        yield from self._excluded
        yield from self._probs

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
        self._masses[sample] = None
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
        self._counts[sample] = self._boxes[sample] = self._line = None
        self.version += 1

    def _spread(self, sample: int) -> Spread:
        shape = tuple(self._sample_shape[sample].tolist())
        if shape not in self._spreads:
            self._spreads[shape] = Spread(shape, self.patch_size)
        return self._spreads[shape]

    def _count(self) -> None:
        """Count the patches of samples anew where cells changed."""
        if None not in self._counts:
            return
        for sample, known in enumerate(self._counts):
            if known is None:
                self._counts[sample] = self._count_of(sample)
        self._set_counts(np.array(self._counts, np.int64))

    def _count_of(self, sample: int) -> int:
        """Return the included area in patches, rounded up, or 0 where no patch can start."""
        spread, excluded, probs = self._spread(sample), self._excluded[sample], self._probs[sample]
        if not (spread.allowed(excluded) & (spread.at_corners(probs) > 0)).any():
            return 0
        area = float((spread.areas * probs)[~excluded].sum())
        return ceil(area / spread.patch_area - _NOISE)

    def _refresh(self) -> None:
        """Make the line of starts anew where cells changed."""
        if self._line is not None:
            return
        self._count()
        self._spread_anew()
        for sample, known in enumerate(self._boxes):
            if known is None:
                self._boxes[sample] = self._line_up(sample)
        boxes = [box for box in self._boxes if box is not None]
        self._box_ends = np.cumsum([len(box.mass) for box in boxes])
        self._first = np.concatenate([box.first for box in boxes])
        self._size = np.concatenate([box.size for box in boxes])
        lines = []
        for start, end, box in zip(self._starts, self._ends, boxes, strict=True):
            line = np.minimum(start + np.cumsum(box.mass), end)
            line[-1:] = end
            lines.append(line)
        self._line = np.concatenate(lines)

    def _spread_anew(self) -> None:
        """Find the masses of samples where cells were excluded, all of one shape in one go."""
        groups: dict[Spread, list[int]] = {}
        for sample, known in enumerate(self._masses):
            if known is None:
                groups.setdefault(self._spread(sample), []).append(sample)
        for spread, samples in groups.items():
            excluded = np.stack([self._excluded[sample] for sample in samples])
            for sample, masses in zip(samples, spread.masses(excluded), strict=True):
                self._masses[sample] = masses

    def _line_up(self, sample: int) -> _Boxes:
        """Return the boxes of a sample, cell by cell; their masses sum to its number of patches."""
        spread, mass = self._spread(sample), self._masses[sample]
        assert mass is not None
        mass = mass * spread.at_corners(self._probs[sample])
        mass *= (self._counts[sample] or 0) / (mass.sum() or 1)
        order, first, size = spread.lined_up
        boxes = _Boxes(first, size, mass.ravel()[order])
        # where a start is due one patch or more per epoch, whole patches become boxes by themselves
        whole = np.where(size.prod(axis=1) == 1, np.floor(boxes.mass + _NOISE), 0.0)
        parts = [boxes._replace(mass=whole), boxes._replace(mass=boxes.mass - whole)]
        kept = [np.flatnonzero(part.mass > _NOISE) for part in parts]
        return _Boxes(
            *(
                np.concatenate([column[some] for column, some in zip(columns, kept, strict=True)])
                for columns in zip(*parts, strict=True)
            )
        )

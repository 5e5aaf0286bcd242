"""Patches at random places of parts of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import index_in
from gpu_patch.draws import integers
from gpu_patch.locations import Locations
from gpu_patch.patching.base import SampledPatching
from gpu_patch.specs import PatchSpecs
from gpu_patch.tiling import sequential_starts

Boxes = NDArray[np.int64]
"""Of starts of patches, (n, 2, D): the first of each box, and how many along each axis."""


class RegionPatching(SampledPatching):
    """Patches at uniformly random places of boxes, new ones every time.

    Parameters
    ----------
    data_shapes : sequence of sequence of int
        SC(Z)YX.
    patch_size : tuple of int
        Pixels, (Z)YX.
    boxes : sequence of array of int64, shape (n, 2, D)
        Per sample: boxes of starts that do not overlap. None where the sample has no patches.
    counts : sequence of int
        Patches per sample; 0 where there are no boxes.
    rng : numpy.random.Generator
        Of the places that `get_patch_spec` draws.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: tuple[int, ...],
        boxes: Sequence[Boxes],
        counts: Sequence[int],
        rng: np.random.Generator,
    ) -> None:
        super().__init__(data_shapes)
        self.patch_size, self.boxes, self.rng = patch_size, list(boxes), rng
        self.n_uniforms = 1 + len(patch_size)
        self._set_counts(np.array(counts, np.int64))
        self._first, self._size = np.concatenate(self.boxes).swapaxes(0, 1)
        # all boxes of all samples in one line, as long as they have starts
        self._line = self._size.prod(axis=1).cumsum()
        n_starts = [int(box[:, 1].prod(axis=1).sum()) for box in self.boxes]
        self._line_stops = np.cumsum(n_starts)
        self._line_starts = self._line_stops - n_starts

    def start_boxes(self, sample: int) -> Boxes:
        """Return where patches of a sample may start; see `StratifiedPatching.start_boxes`."""
        return self.boxes[sample]

    def count(self, sample: int) -> int:
        """Return how many patches a sample has."""
        return int(self._ends[sample] - self._starts[sample])

    def get_patch_spec(self, index: int) -> PatchSpecs:
        checked = index_in("index", index, self.n_patches, "patches")
        return self.locate(np.array([checked]), self.rng.random((self.n_uniforms, 1))).spec(0)

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        sample = self._sample_of(index)
        starts = self._line_stops[sample] - self._line_starts[sample]
        at = self._line_starts[sample] + integers(uniforms[0], starts)
        box = self._line.searchsorted(at, "right")
        coords = self._first[box] + integers(uniforms[1:].T, self._size[box])
        return Locations(
            self._sample_image[sample], self._sample_idx[sample], coords, self.patch_size
        )

    def reach(self) -> Iterator[Locations]:
        for image, sample, boxes in zip(
            self._sample_image, self._sample_idx, self.boxes, strict=True
        ):
            for first, size in boxes.tolist():
                axes = [
                    np.array(sequential_starts(n + p - 1, p, 0)) + f
                    for f, n, p in zip(first, size, self.patch_size, strict=True)
                ]
                corners = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
                n = len(corners)
                yield Locations(np.full(n, image), np.full(n, sample), corners, self.patch_size)

    def content(self) -> Iterator[NDArray[Any]]:
        yield from super().content()
        yield from self.boxes

"""Patches on a regular grid: for sequential passes and for tiled prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from gpu_patch.locations import Locations, checked_shapes
from gpu_patch.patching.base import SampledPatching, checked_overlaps, checked_patch_size
from gpu_patch.tiling import TileAxis, sequential_starts, tile_axis


class GridPatching(SampledPatching):
    """A grid per sample, the last axis running fastest; only the axes are stored.

    Parameters
    ----------
    data_shapes : sequence of sequence of int
        SC(Z)YX.
    patch_size : tuple of int
        (Z)YX.
    axes : list of list of array of int64, shape (n, k)
        Per image and axis, the n positions; column 0 is the start of the patch.
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: tuple[int, ...],
        axes: list[list[NDArray[np.int64]]],
    ) -> None:
        super().__init__(data_shapes)
        self.patch_size = patch_size
        self._grid = np.array([[len(axis) for axis in image] for image in axes])
        self._per_sample = np.array([prod(grid) for grid in self._grid.tolist()])
        # per axis, the positions of all images one after the other, and where each image's begin
        self._positions = [np.concatenate(column) for column in zip(*axes, strict=True)]
        self._offsets = np.cumsum(self._grid, axis=0) - self._grid
        self._set_counts(self._per_sample[self._sample_image])

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        sample, entries = self._entries(index)
        return Locations(
            self._sample_image[sample], self._sample_idx[sample], entries[..., 0], self.patch_size
        )

    def _entries(self, index: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Return the sample (n,) and the rows (n, D, k) of the axes' tables."""
        sample = self._sample_of(index)
        image = self._sample_image[sample]
        rest = index - self._starts[sample]
        columns = []
        for axis in reversed(range(len(self.patch_size))):
            rest, position = np.divmod(rest, self._grid[image, axis])
            columns.append(self._positions[axis][self._offsets[image, axis] + position])
        return sample, np.stack(columns[::-1], axis=1)


class SequentialPatching(GridPatching):
    """Patches one after the other, covering every pixel.

    Starts every ``patch − overlap`` while patches fit, and one last patch flush to the end. A
    patch larger than the image starts at 0.

    Parameters
    ----------
    data_shapes : sequence of sequence of int
        SC(Z)YX.
    patch_size : sequence of int
        Pixels, (Z)YX.
    overlaps : sequence of int or None, default None
        Pixels that neighbours share, (Z)YX, 0 ≤ overlap < patch; None is none.

    Examples
    --------
    >>> strategy = SequentialPatching([(1, 1, 64, 100)], (64, 64))
    >>> [strategy.get_patch_spec(i)["coords"] for i in range(strategy.n_patches)]
    [(0, 0), (0, 36)]
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        overlaps: Sequence[int] | None = None,
    ) -> None:
        shapes = checked_shapes(data_shapes)
        size = checked_patch_size(patch_size, shapes)
        self.overlaps = checked_overlaps([0] * len(size) if overlaps is None else overlaps, size)
        super().__init__(
            shapes,
            size,
            [
                [
                    np.array(sequential_starts(n, p, o), np.int64)[:, None]
                    for n, p, o in zip(shape[2:], size, self.overlaps, strict=True)
                ]
                for shape in shapes
            ],
        )


class TilePatching(GridPatching):
    """A grid of tiles for prediction: column 1 to 3 say what is kept of a tile, and where it goes.

    Parameters
    ----------
    data_shapes, patch_size
        As in `GridPatching`.
    tiles : callable
        Returns the tiles of an axis, `TileAxis`, from its number and its length.
    """

    def __init__(
        self,
        data_shapes: Sequence[tuple[int, ...]],
        patch_size: tuple[int, ...],
        tiles: Callable[[int, int], TileAxis],
    ) -> None:
        axes = [
            [np.array(tiles(axis, n), np.int64).T for axis, n in enumerate(shape[2:])]
            for shape in data_shapes
        ]
        super().__init__(data_shapes, patch_size, axes)

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        sample, entries = self._entries(index)
        image = self._sample_image[sample]
        samples_of_image = np.bincount(self._sample_image)
        return Locations(
            image,
            self._sample_idx[sample],
            entries[..., 0],
            self.patch_size,
            {
                "crop_coords": entries[..., 1],
                "crop_size": entries[..., 2],
                "stitch_coords": entries[..., 3],
                "total_tiles": self._per_sample[image] * samples_of_image[image],
            },
        )


class TiledPatching(TilePatching):
    """Overlapping tiles for prediction, with what stitching them needs.

    Parameters
    ----------
    data_shapes : sequence of sequence of int
        SC(Z)YX.
    patch_size : sequence of int
        Pixels of a tile, (Z)YX.
    overlaps : sequence of int
        Pixels that neighbours share, (Z)YX, 0 ≤ overlap < patch. Half of it is cropped from each.

    Examples
    --------
    >>> strategy = TiledPatching([(1, 1, 64, 100)], (64, 64), (16, 16))
    >>> strategy.n_patches
    2
    >>> tile = strategy.get_patch_spec(1)
    >>> tile["coords"], tile["crop_coords"], tile["crop_size"], tile["stitch_coords"]
    ((0, 36), (0, 20), (64, 44), (0, 56))
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        overlaps: Sequence[int],
    ) -> None:
        shapes = checked_shapes(data_shapes)
        size = checked_patch_size(patch_size, shapes)
        self.overlaps = checked_overlaps(overlaps, size)
        super().__init__(
            shapes, size, lambda axis, n: tile_axis(n, size[axis], self.overlaps[axis])
        )

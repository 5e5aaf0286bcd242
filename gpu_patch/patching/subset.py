"""Some of the patches of another strategy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import index_in
from gpu_patch.locations import Locations
from gpu_patch.patching.base import BatchPatching


class SubsetPatching(BatchPatching):
    """Some of the patches of a strategy that always gives the same ones.

    Parameters
    ----------
    strategy : BatchPatching
        Draws nothing.
    indices : array of int64
        Which of its patches, at least one; they keep this order.
    """

    def __init__(self, strategy: BatchPatching, indices: NDArray[np.int64]) -> None:
        self.strategy, self.indices = strategy, indices
        self.starts_inside = strategy.starts_inside
        self.data_shapes = getattr(strategy, "data_shapes", None)
        self._data_idx = strategy.sites()[indices, 0]

    @property
    def n_patches(self) -> int:
        return len(self.indices)

    @property
    def n_images(self) -> int:
        return self.strategy.n_images

    @property
    def patch_sizes(self) -> Sequence[Sequence[int]]:
        return self.strategy.patch_sizes

    def check(self, name: str, shapes: Sequence[Sequence[int]], n_scales: int) -> None:
        self.strategy.check(name, shapes, n_scales)

    def content(self) -> Iterator[NDArray[Any]]:
        yield from self.strategy.content()
        yield self.indices

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        image = index_in("data_idx", data_idx, self.n_images, "image stacks")
        return np.flatnonzero(self._data_idx == image).tolist()

    def sites(self) -> NDArray[np.int64]:
        return self.strategy.sites()[self.indices]

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        return self.strategy.locate(self.indices[index], uniforms)

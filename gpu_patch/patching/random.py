"""Patches at random places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import index_in, whole_number
from gpu_patch.draws import integers
from gpu_patch.locations import Locations
from gpu_patch.patching.base import (
    SampledPatching,
    checked_patch_size,
    tiles_of,
    warn_of_small_images,
)
from gpu_patch.specs import PatchSpecs


class RandomPatching(SampledPatching):
    """Patches at uniformly random places, new ones every time.

    As many per sample as would cover it without overlap, ``Π ceil(size / patch)``. The index
    decides the sample. A patch larger than the image starts at 0, with a warning when the
    strategy is made.

    Parameters
    ----------
    data_shapes : sequence of sequence of int
        SC(Z)YX.
    patch_size : sequence of int
        Pixels, (Z)YX.
    seed : int or None, default None
        Seed of the places that `get_patch_spec` draws (NumPy's default generator, in the order of
        careamics 0.3.5). Batches draw by counter instead, from the constructor's seed.

    Examples
    --------
    >>> strategy = RandomPatching([(3, 1, 100, 130)], (64, 64), seed=0)
    >>> strategy.n_patches
    18
    >>> strategy.get_patch_spec(7)
    {'data_idx': 0, 'sample_idx': 1, 'coords': (31, 42), 'patch_size': (64, 64)}
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        seed: int | None = None,
    ) -> None:
        super().__init__(data_shapes)
        self.patch_size = checked_patch_size(patch_size, self.data_shapes)
        warn_of_small_images(
            self, self.patch_size, stacklevel=3 + (type(self) is not RandomPatching)
        )
        self.seed, self.rng = seed, checked_generator(seed)
        self.n_uniforms = len(self.patch_size)
        self._set_counts(np.prod(-(-self._sample_shape // self.patch_size), axis=1))
        self._last_start: NDArray[np.int64] = np.maximum(self._sample_shape - self.patch_size, 0)

    def get_patch_spec(self, index: int) -> PatchSpecs:
        checked = np.array([index_in("index", index, self.n_patches, "patches")])
        sample = self._sample_of(checked)
        return self._at(sample, self._draw(self._last_start[sample])).spec(0)

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        sample = self._sample_of(index)
        return self._at(sample, integers(uniforms.T, self._last_start[sample] + 1))

    def reach(self) -> Iterator[Locations]:
        return tiles_of(self, self.patch_size)

    def _draw(self, last_start: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.rng.integers(np.zeros_like(last_start), last_start, endpoint=True, dtype=int)

    def _at(self, sample: NDArray[np.intp], coords: NDArray[np.int64]) -> Locations:
        return Locations(
            self._sample_image[sample], self._sample_idx[sample], coords, self.patch_size
        )


class FixedRandomPatching(RandomPatching):
    """Patches at random places that are drawn once, when the strategy is made.

    Parameters
    ----------
    data_shapes : sequence of sequence of int
        SC(Z)YX.
    patch_size : sequence of int
        Pixels, (Z)YX.
    seed : int or None, default None
        Seed of the places (NumPy's default generator, in the order of careamics 0.3.5).
    """

    def __init__(
        self,
        data_shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        seed: int | None = None,
    ) -> None:
        super().__init__(data_shapes, patch_size, seed)
        self.n_uniforms = 0
        self._coords = self._draw(np.repeat(self._last_start, self._ends - self._starts, axis=0))

    def reach(self) -> Iterator[Locations]:
        return iter(())

    def content(self) -> Iterator[NDArray[Any]]:
        yield from super().content()
        yield self._coords

    def get_patch_spec(self, index: int) -> PatchSpecs:
        checked = np.array([index_in("index", index, self.n_patches, "patches")])
        return self.locate(checked, np.empty((0, 1))).spec(0)

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        return self._at(self._sample_of(index), self._coords[index])


def checked_generator(seed: int | None) -> np.random.Generator:
    """Return NumPy's default generator for a seed of at least 0, or a fresh one for None."""
    return np.random.default_rng(
        None if seed is None else whole_number("seed", seed, minimum=0, maximum=2**256 - 1)
    )

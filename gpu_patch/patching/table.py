"""Patches from a table: whole samples, and lists that the user gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import index_in, sequence
from gpu_patch.locations import (
    PLAIN_KEYS,
    Locations,
    check_places,
    checked_spec,
    extra_columns,
    one_patch_size,
)
from gpu_patch.patching.base import BatchPatching, SampledPatching
from gpu_patch.specs import PatchSpecs


class FixedPatching(BatchPatching):
    """The patches of a list, in its order.

    Parameters
    ----------
    fixed_patch_specs : sequence of PatchSpecs
        One dict per patch. They are copied; keys beyond those of `PatchSpecs` are kept.

    Raises
    ------
    TypeError, ValueError
        The list is empty, or one of its dicts is no patch spec; the message names it.

    Examples
    --------
    >>> strategy = FixedPatching(
    ...     [{"data_idx": 0, "sample_idx": 2, "coords": [5, 7], "patch_size": [8, 8]}]
    ... )
    >>> strategy.get_patch_spec(0)["coords"]
    (5, 7)
    """

    def __init__(self, fixed_patch_specs: Sequence[PatchSpecs]) -> None:
        self.fixed_patch_specs: list[PatchSpecs] = [
            checked_spec(f"fixed_patch_specs[{i}]", spec)
            for i, spec in enumerate(
                sequence("fixed_patch_specs", fixed_patch_specs, "patch specs")
            )
        ]
        if not self.fixed_patch_specs:
            raise ValueError("fixed_patch_specs is empty: at least one patch spec is needed")
        sizes = [spec["patch_size"] for spec in self.fixed_patch_specs]
        if len({len(size) for size in sizes}) > 1:
            raise ValueError(
                "fixed_patch_specs must all be 2D or all be 3D, found the patch sizes "
                f"{min(sizes, key=len)} and {max(sizes, key=len)}"
            )
        self._data_idx, self._sample_idx, self._coords, self._sizes = (
            np.array([spec[key] for spec in self.fixed_patch_specs], np.int64)  # type: ignore[literal-required]
            for key in PLAIN_KEYS
        )

    @property
    def n_patches(self) -> int:
        return len(self.fixed_patch_specs)

    @property
    def n_images(self) -> int:
        return self.last_data_idx + 1

    @property
    def patch_sizes(self) -> Sequence[Sequence[int]]:
        return [spec["patch_size"] for spec in self.fixed_patch_specs]

    def check(self, name: str, shapes: Sequence[Sequence[int]], n_scales: int) -> None:
        # now rather than when a place is used
        own = np.array([(shape[0], *shape[2:]) for shape in shapes])
        for size in {tuple(size) for size in self.patch_sizes}:
            specs = [spec for spec in self.fixed_patch_specs if spec["patch_size"] == size]
            check_places(name, Locations.from_specs(specs), own, n_scales)

    def content(self) -> Iterator[NDArray[Any]]:
        yield from (self._data_idx, self._sample_idx, self._coords, self._sizes)

    @property
    def last_data_idx(self) -> int:
        """The largest `data_idx` of the list."""
        return int(self._data_idx.max())

    def get_patch_spec(self, index: int) -> PatchSpecs:
        at = index_in("index", index, self.n_patches, "patches")
        return self.locate(np.array([at]), np.empty((0, 1))).spec(0)

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        image = index_in("data_idx", data_idx, self.n_images, "image stacks")
        return np.flatnonzero(self._data_idx == image).tolist()

    def sites(self) -> NDArray[np.int64]:
        return np.column_stack([self._data_idx, self._sample_idx, self._coords])

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        specs = [self.fixed_patch_specs[i] for i in index.tolist()]
        return Locations(
            self._data_idx[index],
            self._sample_idx[index],
            self._coords[index],
            _one_size(self._sizes[index]),
            extra_columns(specs),
        )


class WholeSamplePatching(SampledPatching):
    """One patch per sample: the whole of it.

    Parameters
    ----------
    data_shapes : sequence of sequence of int
        SC(Z)YX. The patches of one batch must have one size.

    Examples
    --------
    >>> WholeSamplePatching([(2, 1, 30, 40)]).get_patch_spec(1)
    {'data_idx': 0, 'sample_idx': 1, 'coords': (0, 0), 'patch_size': (30, 40)}
    """

    def __init__(self, data_shapes: Sequence[Sequence[int]]) -> None:
        super().__init__(data_shapes)
        self._set_counts(np.ones(len(self._sample_image), np.int64))

    def sites(self) -> NDArray[np.int64]:
        start = np.zeros_like(self._sample_shape)
        return np.column_stack([self._sample_image, self._sample_idx, start])

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        return Locations(
            self._sample_image[index],
            self._sample_idx[index],
            np.zeros((len(index), self._sample_shape.shape[1]), np.int64),
            _one_size(self._sample_shape[index]),
        )


def _one_size(sizes: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the one patch size of a batch, given all of them."""
    return one_patch_size(set(map(tuple, sizes.tolist())))

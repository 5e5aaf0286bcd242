"""Patches from a table: whole samples, and lists that the user gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_patch.errors import index_in, sequence
from gpu_patch.patching._base import BatchPatching, SampledPatching
from gpu_patch.patching._locations import Locations, checked_spec
from gpu_patch.specs import PatchSpecs


class FixedPatching(BatchPatching):
    """The patches of a list, in its order.

    Parameters
    ----------
    fixed_patch_specs : sequence of PatchSpecs
        One dict per patch. They are copied; keys beyond those of `PatchSpecs` are kept.

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
            {**spec, **checked_spec(f"fixed_patch_specs[{i}]", spec)}
            for i, spec in enumerate(
                sequence("fixed_patch_specs", fixed_patch_specs, "patch specs")
            )
        ]
        if not self.fixed_patch_specs:
            raise ValueError("fixed_patch_specs is empty: at least one patch spec is needed")

    @property
    def n_patches(self) -> int:
        return len(self.fixed_patch_specs)

    def get_patch_spec(self, index: int) -> PatchSpecs:
        at = index_in("index", index, self.n_patches, "patches")
        return {**self.fixed_patch_specs[at]}

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        known = max(spec["data_idx"] for spec in self.fixed_patch_specs) + 1
        image = index_in("data_idx", data_idx, known, "image stacks")
        return [i for i, spec in enumerate(self.fixed_patch_specs) if spec["data_idx"] == image]

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        return Locations.from_specs([self.fixed_patch_specs[i] for i in index.tolist()])


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

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        sizes = self._sample_shape[index]
        differ = np.flatnonzero((sizes != sizes[0]).any(axis=1))
        if len(differ):
            raise ValueError(
                "the patches of one batch must have one patch_size, found "
                f"{tuple(sizes[0].tolist())} and {tuple(sizes[differ[0]].tolist())}: "
                "use batches of one image, or a fixed patch size"
            )
        return Locations(
            self._sample_image[index],
            self._sample_idx[index],
            np.zeros_like(sizes),
            tuple(sizes[0].tolist()),
        )

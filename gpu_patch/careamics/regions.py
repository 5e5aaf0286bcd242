"""Batches as careamics' datasets and PyTorch's collate function make them (needs careamics)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from careamics.dataset.image_region_data import ImageRegionData
from torch.utils.data import default_collate

from gpu_patch.feed.loader import BatchLoader
from gpu_patch.specs import PatchBatch, PatchSpecs
from gpu_patch.torch import TensorLoader, as_tensors


class RegionLoader(TensorLoader):
    """Yields tuples of careamics' `ImageRegionData`: the input and, if there is one, the target.

    Parameters
    ----------
    loader : BatchLoader
        Of a feed that was made of `dataset`.
    dataset : CareamicsDataset
        Says what is known of the images.
    """

    def __init__(self, loader: BatchLoader, dataset: Any) -> None:
        super().__init__(loader)
        self._dataset = dataset
        self._of_images: dict[tuple[int, ...], Any] = {}
        self._of_batches: dict[tuple[tuple[int, ...], ...], Any] = {}

    def convert(self, batch: PatchBatch) -> tuple[ImageRegionData, ...]:
        """Return what is yielded for a batch.

        Parameters
        ----------
        batch : PatchBatch
            Of the loader.

        Returns
        -------
        tuple of ImageRegionData
            With tensors of the batch's memory, and specs and metadata as PyTorch collates them.
        """
        specs = list(batch.specs)
        where = _collated(specs)
        return tuple(
            region._replace(data=tensor, region_spec=where)
            for region, tensor in zip(self._metadata(specs), as_tensors(batch), strict=True)
            if tensor is not None
        )

    def _metadata(self, specs: Sequence[PatchSpecs]) -> list[ImageRegionData]:
        """Return collated metadata of input and target, without their pixels and places."""
        images = tuple(_images_of(spec) for spec in specs)
        if images not in self._of_batches:
            if len(set(images)) > 1:  # of all batches, few of several images come again
                return self._collated(images, specs)
            self._of_batches[images] = self._collated(images, specs)
        found: list[ImageRegionData] = self._of_batches[images]
        return found

    def _collated(
        self, images: Sequence[tuple[int, ...]], specs: Sequence[PatchSpecs]
    ) -> list[ImageRegionData]:
        for key, spec in zip(images, specs, strict=True):
            if key not in self._of_images:
                # the pixels do not matter here, and neither does the place
                input_region, target_region = self._dataset._create_image_regions(0, 0, spec)
                self._of_images[key] = [
                    (region or input_region)._replace(data=0, region_spec=0)
                    for region in (input_region, target_region)
                ]
        return [
            default_collate(list(regions))
            for regions in zip(*(self._of_images[key] for key in images), strict=True)
        ]


def _collated(specs: Sequence[PatchSpecs]) -> dict[str, Any]:
    """Return what PyTorch's collate function makes of specs, in a third of its time."""
    found: dict[str, Any] = {}
    for key in specs[0]:
        values: list[Any] = [spec[key] for spec in specs]  # type: ignore[literal-required]
        first = values[0]
        if isinstance(first, int):
            found[key] = torch.tensor(values)
        elif isinstance(first, tuple) and isinstance(first[0], int):
            found[key] = list(torch.tensor(list(zip(*values, strict=True))).unbind())
        else:
            found[key] = default_collate(values)
    return found


def _images_of(spec: Any) -> tuple[int, ...]:
    """Return the image of a spec, or those of all channels."""
    return tuple(spec.get("all_data_idx", (spec["data_idx"],)))

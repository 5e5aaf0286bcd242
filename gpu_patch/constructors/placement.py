"""Where patches come from: strategies, with the images that they place patches in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import index_in, whole_number
from gpu_patch.geometry import window_start
from gpu_patch.images import PatchExtractor
from gpu_patch.locations import Locations
from gpu_patch.ops import ImageSet
from gpu_patch.patching import FixedPatching, Patching
from gpu_patch.patching.adapter import places_batches
from gpu_patch.patching.base import BatchPatching, SampledPatching


class Placement:
    """A strategy and the images that it places patches in.

    Parameters
    ----------
    name : str
        Name of the strategy's argument, for messages.
    strategy : Patching
        The strategy.
    extractor : PatchExtractor
        The images.
    n_scales : int, default 0
        Number of scales of the lateral context, whose windows must touch the image; 0 for none.
    first_image : int, default 0
        Number of the first of these images among all that the input is read from.
    """

    def __init__(
        self,
        name: str,
        strategy: Patching,
        extractor: PatchExtractor,
        n_scales: int = 0,
        first_image: int = 0,
    ) -> None:
        self.name, self.strategy, self.extractor = name, strategy, extractor
        self.n_scales, self.first_image = n_scales, first_image
        self._shapes = np.array([shape[:1] + shape[2:] for shape in extractor.shapes])
        self.places_batches = places_batches(strategy)
        self.n_uniforms = strategy.n_uniforms if places_batches(strategy) else 0
        self._trusted = self.places_batches and isinstance(strategy, SampledPatching)
        if isinstance(strategy, SampledPatching):
            self._check_shapes(strategy)
        elif isinstance(strategy, FixedPatching):
            self._check_table(strategy)

    def _check_shapes(self, strategy: SampledPatching) -> None:
        """Check that a strategy of ours was made for these images; channels may differ."""
        images = self.extractor.shapes
        if len(strategy.data_shapes) > len(images):
            raise ValueError(
                f"{self.name} was made for {len(strategy.data_shapes)} image stacks, "
                f"the extractor has {len(images)}"
            )
        for i, (made_for, found) in enumerate(zip(strategy.data_shapes, images, strict=False)):
            if (made_for[0], *made_for[2:]) != (found[0], *found[2:]):
                raise ValueError(
                    f"{self.name} was made for data_shapes[{i}] = {made_for}, but image stack {i} "
                    f"of the extractor has the shape {found}"
                )

    def _check_table(self, strategy: FixedPatching) -> None:
        """Check the places of a list now rather than when one is used."""
        for size in {spec["patch_size"] for spec in strategy.fixed_patch_specs}:
            specs = [s for s in strategy.fixed_patch_specs if s["patch_size"] == size]
            self._check(Locations.from_specs(specs))

    def _check(self, places: Locations) -> Locations:
        """Return `places` where all of them are in the images."""
        if self._trusted:
            return places
        ndim = self._shapes.shape[1] - 1
        if len(places.patch_size) != ndim:
            raise ValueError(
                f"{self.name} gave the patch_size {places.patch_size}, but the images have {ndim} "
                "spatial axes"
            )
        n_images = len(self._shapes)
        if places.data_idx.max() >= n_images:
            raise ValueError(
                f"{self.name} gave data_idx {places.data_idx.max()}, but there are {n_images} "
                "image stacks"
            )
        shapes = self._shapes[places.data_idx]
        beyond = places.sample_idx >= shapes[:, 0]
        if beyond.any():
            i = int(beyond.argmax())
            raise ValueError(
                f"{self.name} gave sample_idx {places.sample_idx[i]}, but image stack "
                f"{places.data_idx[i]} has {shapes[i, 0]} samples"
            )
        if self.n_scales:
            size = np.array(places.patch_size)
            start = window_start(places.coords, size, self.n_scales)
            outside = ((start >= shapes[:, 1:]) | (start + (size << self.n_scales) <= 0)).any(
                axis=1
            )
            if outside.any():
                i = int(outside.argmax())
                raise ValueError(
                    f"{self.name} gave coords {tuple(places.coords[i].tolist())}, but image stack "
                    f"{places.data_idx[i]} has the spatial shape {tuple(shapes[i, 1:].tolist())}: "
                    "no pixel of it is in the patch or its context"
                )
        return places

    def from_specs(self, index: int) -> Locations:
        """Place one patch with the strategy's own draws."""
        return self._check(Locations.from_specs([self.strategy.get_patch_spec(index)]))

    def locate(self, index: NDArray[np.int64], uniforms: NDArray[np.float64]) -> Locations:
        """Place a batch: at once where the strategy can, otherwise index by index."""
        if self.places_batches:
            batched: BatchPatching = self.strategy  # type: ignore[assignment]
            return self._check(batched.locate(index, uniforms))
        specs = [self.strategy.get_patch_spec(i) for i in index.tolist()]
        return self._check(Locations.from_specs(specs))

    @property
    def n_patches(self) -> int:
        """Number of patches, as the strategy says now."""
        if self._trusted:
            return self.strategy.n_patches
        return whole_number(f"{self.name}.n_patches", self.strategy.n_patches, minimum=0)

    @property
    def patch_sizes(self) -> Sequence[Sequence[int]]:
        """The patch sizes that the strategy may give, as far as it says so."""
        if isinstance(self.strategy, FixedPatching):
            return [spec["patch_size"] for spec in self.strategy.fixed_patch_specs]
        size = getattr(self.strategy, "patch_size", None)
        return [list(size)] if isinstance(size, (Sequence, np.ndarray)) else []

    def sites(self) -> NDArray[np.int64]:
        """Tell roughly where every patch lies: image, sample and first pixel, (n_patches, 2 + D).

        Of strategies that are not of this package only the image is known.
        """
        if self.places_batches:
            batched: BatchPatching = self.strategy  # type: ignore[assignment]
            return batched.sites()
        sites = np.zeros((self.n_patches, self._shapes.shape[1] + 1), np.int64)
        for image in range(len(self._shapes)):
            sites[list(self.get_patch_indices(image)), 0] = image
        return sites

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        """Return the indices whose patches lie in an image stack; none in one without patches."""
        n_images = len(self.extractor.image_stacks)
        image = index_in("data_idx", data_idx, n_images, "image stacks")
        strategy = self.strategy
        if isinstance(strategy, SampledPatching) and image >= len(strategy.data_shapes):
            return []
        if isinstance(strategy, FixedPatching) and image > strategy.last_data_idx:
            return []
        return strategy.get_patch_indices(image)

    def generators(self, *, batch: bool) -> list[object]:
        """Return the strategy's generator, where making a patch or a batch advances it."""
        return [] if batch and self.places_batches else [getattr(self.strategy, "rng", None)]


class Sampling:
    """Where all patches of a constructor come from.

    Parameters
    ----------
    placements : sequence of Placement
        One, or one per structure where structures have images of their own.
    images : sequence of ImageSet
        All that patches are read from.
    principal : int, default 0
        Which of the placements indices count.
    rng : numpy.random.Generator, optional
        What `construct_patch` draws from, beside the strategies.
    """

    def __init__(
        self,
        placements: Sequence[Placement],
        images: Sequence[ImageSet],
        principal: int = 0,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.placements, self.images = placements, images
        self.principal = placements[principal]
        self._rng = rng

    @property
    def is_chunked(self) -> bool:
        """Whether some of the images are kept by chunk."""
        return any(images.chunked for images in self.images)

    @property
    def patch_sizes(self) -> Sequence[Sequence[int]]:
        """Sizes that patches may have, (Z)YX, as far as the strategy says them."""
        return self.principal.patch_sizes

    @property
    def window_size(self) -> tuple[int, ...]:
        """What a patch reads at most with its context, (Z)YX, as far as the strategy says it."""
        sizes = self.patch_sizes or [(0,) * self.principal.extractor.n_spatial_dims]
        scale = max(self.principal.n_scales - 1, 0)
        return tuple(int(max(side)) << scale for side in zip(*sizes, strict=True))

    def generators(self, *, batch: bool) -> list[object]:
        """Return the NumPy generators that making a patch, or a batch, advances; some are None."""
        own: list[object] = [] if batch or self._rng is None else [self._rng]
        return own + [g for place in self.placements for g in place.generators(batch=batch)]

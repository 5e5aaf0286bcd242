"""Where patches come from: strategies, with the images that they place patches in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import index_in, whole_number
from gpu_patch.images import PatchExtractor
from gpu_patch.locations import Locations, check_places
from gpu_patch.patching import Patching
from gpu_patch.patching.adapter import places_batches
from gpu_patch.patching.base import BatchPatching


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

    Attributes
    ----------
    shapes : array of int64, shape (n, 1 + D)
        S(Z)YX of each image.
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
        self.shapes = np.array([shape[:1] + shape[2:] for shape in extractor.shapes])
        self.places_batches = places_batches(strategy)
        self.n_uniforms = strategy.n_uniforms if places_batches(strategy) else 0
        self._trusted = places_batches(strategy) and strategy.starts_inside
        if isinstance(strategy, BatchPatching):
            strategy.check(name, extractor.shapes, n_scales)

    def _check(self, places: Locations) -> Locations:
        """Return `places` where all of them are in the images."""
        if not self._trusted:
            check_places(self.name, places, self.shapes, self.n_scales)
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
    def version(self) -> int | None:
        """Counts changes of where patches lie; None where nobody does, or batches may not mix."""
        if not self._trusted:
            return None
        batched: BatchPatching = self.strategy  # type: ignore[assignment]
        return batched.version if len(batched.patch_sizes) == 1 else None

    @property
    def patch_sizes(self) -> Sequence[Sequence[int]]:
        """The patch sizes that the strategy may give, as far as it says so."""
        if isinstance(self.strategy, BatchPatching):
            return self.strategy.patch_sizes
        size = getattr(self.strategy, "patch_size", None)
        return [list(size)] if isinstance(size, (Sequence, np.ndarray)) else []

    def sites(self) -> NDArray[np.int64]:
        """Tell roughly where every patch lies, without drawing.

        Returns
        -------
        array of int64, shape (n_patches, 2 + D)
            Image, sample and first pixel. Where a patch is drawn from a whole sample, the middle
            of it; of strategies that are not of this package only the image.
        """
        if self.places_batches:
            batched: BatchPatching = self.strategy  # type: ignore[assignment]
            return batched.sites()
        sites = np.zeros((self.n_patches, self.shapes.shape[1] + 1), np.int64)
        for image in range(len(self.shapes)):
            sites[list(self.get_patch_indices(image)), 0] = image
        return sites

    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        """Return the indices whose patches lie in an image stack; none in one without patches."""
        n_images = len(self.extractor.image_stacks)
        image = index_in("data_idx", data_idx, n_images, "image stacks")
        if isinstance(self.strategy, BatchPatching) and image >= self.strategy.n_images:
            return []
        return self.strategy.get_patch_indices(image)

    @property
    def may_leave_images(self) -> bool:
        """Whether patches may lie partly outside their image, as far as the strategy says it."""
        starts_inside = isinstance(self.strategy, BatchPatching) and self.strategy.starts_inside
        return not starts_inside or any(
            np.any(np.array(size) > shape[2:])
            for size in self.patch_sizes
            for shape in self.extractor.shapes
        )

    def reach(self) -> Iterator[Locations]:
        """Tile all that patches may come to lie on, whatever is drawn.

        Nothing comes of strategies that always give the same patches, and of those that are not of
        this package.
        """
        if self.places_batches:
            batched: BatchPatching = self.strategy  # type: ignore[assignment]
            yield from batched.reach()

    def generators(self, *, batch: bool) -> list[object]:
        """Return the strategy's generator, where making a patch or a batch advances it."""
        return [] if batch and self.places_batches else [getattr(self.strategy, "rng", None)]


class Sampling:
    """Where all patches of a constructor come from.

    Parameters
    ----------
    placements : sequence of Placement
        One, or one per structure where structures have images of their own.
    channels : dict of str to sequence of (PatchExtractor, int)
        Of "input" and "target", as far as their channels are those of images: these, and the
        channel of theirs. Not of an input that is mixed.
    principal : int, default 0
        Which of the placements indices count.
    rng : numpy.random.Generator, optional
        What `construct_patch` draws from, beside the strategies.
    """

    def __init__(
        self,
        placements: Sequence[Placement],
        channels: Mapping[str, Sequence[tuple[PatchExtractor, int]]],
        principal: int = 0,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.placements, self.channels = placements, channels
        self.principal = placements[principal]
        self._rng = rng

    @property
    def is_chunked(self) -> bool:
        """Whether some of the images are read by page."""
        every = [images.images for part in self.channels.values() for images, _ in part]
        return any(images.pages is not None for images in every)

    @property
    def has_labels(self) -> bool:
        """Whether the target is made of labels."""
        return any(images.is_labels for images, _ in self.channels.get("target", []))

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
